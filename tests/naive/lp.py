"""A linear program, dense and small, for twins that enumerate everything whole and leave the rest to it."""

from __future__ import annotations

import highspy
import numpy as np

Row = tuple[dict[int, float], float]
"""Coefficients by variable, and a bound: ``a x <= b``."""


def least(cost: list[float], upper: list[Row], exact: list[Row], most: dict[int, float]) -> list[float] | None:
    """The cheapest x >= 0 that keeps every row and bound; None when there is none."""
    n, infinite = len(cost), float("inf")
    rows = [*upper, *exact]
    made = highspy.HighsLp()
    made.num_col_, made.num_row_ = n, len(rows)
    made.col_cost_, made.col_lower_ = np.array(cost), np.zeros(n)
    made.col_upper_ = np.array([most.get(i, infinite) for i in range(n)])
    made.row_upper_ = np.array([b for _, b in rows])
    made.row_lower_ = np.array([-infinite] * len(upper) + [b for _, b in exact])
    made.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    made.a_matrix_.start_ = np.concatenate([[0], np.cumsum([len(a) for a, _ in rows])]).astype(np.int32)
    made.a_matrix_.index_ = np.array([i for a, _ in rows for i in a], dtype=np.int32)
    made.a_matrix_.value_ = np.array([x for a, _ in rows for x in a.values()], dtype=float)
    solver = highspy.Highs()
    solver.silent()
    solver.passModel(made)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    return list(solver.getSolution().col_value)
