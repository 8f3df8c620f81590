"""What answers teach: how long they are, how many tokens a text has, how far the model of speed is off."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import ceil, exp, log

REMEMBERED = 512
PRIOR = 20
"""The stated mean counts as so many answers."""
SLOWLY = 0.05
"""Weight of one answer in a running mean."""
MOST_RATIO = 4.0


class Lengths:
    """Output tokens of a class's latest answers."""

    __slots__ = ("_latest", "_prior", "_sorted", "_sum")

    def __init__(self, stated_mean: float) -> None:
        self._prior = stated_mean
        self._latest: deque[int] = deque(maxlen=REMEMBERED)
        self._sum = 0
        self._sorted: list[int] = []

    def add(self, tokens: int) -> None:
        """One more answer."""
        if len(self._latest) == REMEMBERED:
            oldest = self._latest[0]
            self._sum -= oldest
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._latest.append(tokens)
        self._sum += tokens
        insort(self._sorted, tokens)

    @property
    def mean(self) -> float:
        """Mean, the stated one counted among them."""
        return (self._sum + PRIOR * self._prior) / (len(self._latest) + PRIOR)

    def quantile(self, share: float) -> float:
        """So long that this share of answers is no longer; the stated mean before there are any.

        >>> lengths = Lengths(100.0)
        >>> for n in range(1, 101): lengths.add(n)
        >>> lengths.quantile(0.9)
        90.0
        """
        if not self._latest:
            return self._prior
        return float(self._sorted[max(ceil(share * len(self._sorted)) - 1, 0)])


class Running:
    """A running mean of logarithms: ratios, in which twice and half weigh the same."""

    __slots__ = ("_bound", "_log", "count")

    def __init__(self, start: float, bound: float = MOST_RATIO) -> None:
        self._log, self._bound = log(start), bound
        self.count = 0

    def add(self, ratio: float) -> None:
        """One more, no further off than the bound; the first ones weigh more."""
        self.count += 1
        weight = max(SLOWLY, 1.0 / (self.count + 4))
        limited = min(max(log(ratio), -log(self._bound)), log(self._bound))
        self._log += weight * (limited - self._log)

    @property
    def value(self) -> float:
        """The mean ratio."""
        return exp(self._log)
