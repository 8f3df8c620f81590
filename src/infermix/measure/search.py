"""Few positive numbers that make errors small which jump now and then.

``least`` finds the valley (Hooke and Jeeves, JACM 8(2), 1961): each number is tried larger and smaller, and after a
round that helped all go on together in the direction that they took; steps halve where nothing helps. ``polished`` goes
down the valley where numbers stand in for each other (Levenberg and Marquardt, SIAM 11(2), 1963). Steps are factors, so
that numbers of any size are searched alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from infermix.arrays import Floats

FIRST_STEP = 0.5
"""In logarithms: a factor of 1.65."""
LEAST_STEP = 0.05
WORTH = 1e-3
"""Relative gain below which a step does not count."""
ITERATIONS = 12
PROBE = 0.005
"""Step in logarithms by which derivatives are taken."""


def least(
    loss: Callable[[Floats], float], start: Floats, *, first_step: float = FIRST_STEP, last_step: float = LEAST_STEP
) -> tuple[Floats, float]:
    """(numbers, loss) where no step helps, from ``first_step`` down to ``last_step``; numbers that are 0 stay 0.

    >>> far = lambda x: float(np.abs(np.log(x / [2.0, 5.0])).sum())
    >>> found, error = least(far, np.array([1.0, 1.0]), last_step=0.002)
    >>> found.round(1).tolist()
    [2.0, 5.0]
    """
    best, lowest, step = start, loss(start), first_step
    while step >= last_step:
        tried, found = _explore(loss, best, lowest, step)
        if found >= lowest * (1.0 - WORTH):
            step /= 2.0
            continue
        while found < lowest * (1.0 - WORTH):
            ahead = np.where(best > 0.0, tried * tried / np.where(best > 0.0, best, 1.0), 0.0)
            best, lowest = tried, found
            tried, found = _explore(loss, ahead, loss(ahead), step)
    return best, lowest


def _explore(loss: Callable[[Floats], float], start: Floats, lowest: float, step: float) -> tuple[Floats, float]:
    """Each number in turn a step up or down, where that helps."""
    best = start.copy()
    for i in np.flatnonzero(start > 0.0):
        for factor in (np.exp(step), np.exp(-step)):
            tried = best.copy()
            tried[i] *= factor
            found = loss(tried)
            if found < lowest * (1.0 - WORTH):
                best, lowest = tried, found
                break
    return best, lowest


def polished(
    residuals: Callable[[Floats], Floats], loss: Callable[[Floats], float], start: Floats, lowest: float
) -> tuple[Floats, float]:
    """(numbers, loss) after steps of damped least squares, of which only those that help are taken."""
    best, damping, free = start, 1e-3, np.flatnonzero(start > 0.0)
    at, slopes = residuals(best), np.zeros((0, 0))
    for _ in range(ITERATIONS):
        if not len(slopes):
            slopes = np.stack([(residuals(_scaled(best, int(i), PROBE)) - at) / PROBE for i in free], axis=1)
        square = slopes.T @ slopes
        step = np.linalg.solve(square + damping * np.diag(np.diag(square) + 1e-12), -slopes.T @ at)
        tried = best.copy()
        tried[free] *= np.exp(np.clip(step, -1.0, 1.0))
        found = loss(tried)
        if found < lowest:
            gain, best, lowest, damping = lowest - found, tried, found, damping / 3.0
            at, slopes = residuals(best), np.zeros((0, 0))
            if gain < WORTH * lowest:
                break
        else:
            damping *= 10.0
    return best, lowest


def _scaled(numbers: Floats, i: int, step: float) -> Floats:
    """The numbers with one of them larger."""
    other = numbers.copy()
    other[i] *= np.exp(step)
    return other
