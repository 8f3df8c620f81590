"""A linear program with whole numbers, written row by row and handed to HiGHS at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import highspy
import numpy as np

from infermix.arrays import Floats

Terms = list[tuple[int, float]]
"""A linear expression: (variable, coefficient); a variable may come more than once."""


@dataclass
class Lp:
    """Variables and rows so far; lists grow as groups of equations are written."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)
    row_names: list[str] = field(default_factory=list)
    row_terms: list[dict[int, float]] = field(default_factory=list)

    def variable(self, name: str, upper: float = inf, *, whole: bool = False, lower: float = 0.0) -> int:
        """A new variable; its number."""
        self.lower.append(lower)
        self.upper.append(upper)
        self.whole.append(whole)
        self.names.append(name.replace(" ", "_"))
        return len(self.lower) - 1

    def row(self, name: str, terms: Terms, *, least: float = -inf, most: float = inf) -> None:
        """``least <= terms <= most``."""
        self.row_terms.append(_gathered(terms))
        self.row_lower.append(least)
        self.row_upper.append(most)
        self.row_names.append(name.replace(" ", "_"))

    def equal(self, name: str, terms: Terms, value: float = 0.0) -> None:
        """``terms == value``."""
        self.row(name, terms, least=value, most=value)

    def value(self, terms: Terms, values: Floats) -> float:
        """An expression at a point."""
        return float(sum(weight * values[i] for i, weight in terms))


def scaled(terms: Terms, factor: float) -> Terms:
    """An expression times a number."""
    return [(i, weight * factor) for i, weight in terms]


def joined(parts: Iterable[Terms]) -> Terms:
    """The sum of expressions."""
    return [term for part in parts for term in part]


def _gathered(terms: Terms) -> dict[int, float]:
    found: dict[int, float] = {}
    for i, weight in terms:
        found[i] = found.get(i, 0.0) + weight
    return found


def as_highs(lp: Lp, objective: Terms) -> Any:
    """The program as HiGHS holds it: minimise the objective."""
    h = highspy.Highs()
    h.silent()
    for option, value in (("threads", 1), ("random_seed", 0)):
        h.setOptionValue(option, value)
    h.passModel(_model(lp, objective))
    return h


def _model(lp: Lp, objective: Terms) -> Any:
    made = highspy.HighsLp()
    made.num_col_, made.num_row_ = len(lp.lower), len(lp.row_terms)
    cost = np.zeros(len(lp.lower))
    for i, weight in objective:
        cost[i] += weight
    made.col_cost_, made.col_lower_, made.col_upper_ = cost, np.array(lp.lower), np.array(lp.upper)
    made.row_lower_, made.row_upper_ = np.array(lp.row_lower), np.array(lp.row_upper)
    kinds = {True: highspy.HighsVarType.kInteger, False: highspy.HighsVarType.kContinuous}
    made.integrality_ = [kinds[w] for w in lp.whole]
    matrix = made.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kRowwise
    matrix.num_col_, matrix.num_row_ = made.num_col_, made.num_row_
    matrix.start_ = np.concatenate([[0], np.cumsum([len(row) for row in lp.row_terms])]).astype(np.int32)
    matrix.index_ = np.array([i for row in lp.row_terms for i in row], dtype=np.int32)
    matrix.value_ = np.array([weight for row in lp.row_terms for weight in row.values()], dtype=np.float64)
    return made
