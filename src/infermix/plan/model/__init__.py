"""The planning problem as a mixed-integer program: one ``define_*`` for each group of equations (``build.py``)."""

from infermix.plan.model.build import build
from infermix.plan.model.objective import cost, revenue
from infermix.plan.model.program import Program
from infermix.plan.model.solution import Choice, Solution, solve
from infermix.plan.table import Column, Table, make_table

__all__ = ["Choice", "Column", "Program", "Solution", "Table", "build", "cost", "make_table", "revenue", "solve"]
