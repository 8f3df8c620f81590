"""Where an offer stands in every draw: what it saves by how much of it is used, what is paid, what is gained.

One may use fewer of the offered systems than there are. For each number that was looked at, the rest of the fleet
costs so much less and so many systems are used; paid are those, but at least the share that is paid in any case. The
best number counts, so with ``take_or_pay`` below 1 a gain is at least what is told here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from infermix.arrays import Bools, Floats
from infermix.plan.quote.worth import Terms, Worlds, parts, served_hours


@dataclass(frozen=True)
class Stand:
    """Rows of ``saving`` and ``used`` are numbers of systems that may be used, ``most``; columns are draws.

    The first row is none, the last all that are offered.
    """

    most: Floats
    saving: Floats
    """What the rest of the fleet costs less [USD/h]; infinite where there is no fleet without the offer."""
    used: Floats
    """Systems (million output tokens an hour) that serve."""
    count: float
    """Systems (million tokens an hour) offered."""
    take_or_pay: float
    worlds: Worlds
    terms: Terms

    @property
    def rows(self) -> Bools:
        """Numbers within the offer."""
        return self.most <= self.count * (1 + 1e-9)

    @property
    def paid(self) -> Floats:
        """[number, draw] what is paid for."""
        return np.asarray(np.maximum(self.used, self.take_or_pay * self.count)[self.rows])

    def gains_usd(self, price: float) -> Floats:
        """Gain of every draw, the best number of systems used; at worst they are paid for and stand idle."""
        worth, hours, fixed = parts(self.worlds, self.terms)
        each = _times(self.saving[self.rows], worth) - price * hours * self.paid
        return np.asarray(each.max(axis=0) + fixed)

    def break_even(self) -> Floats:
        """Price at which a draw gains nothing; infinite where taking gains at any price."""
        worth, hours, fixed = parts(self.worlds, self.terms)
        gross = _times(self.saving[self.rows], worth) + fixed
        bill = hours * self.paid
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = np.where(bill > 0.0, gross / bill, np.where(gross >= 0.0, np.inf, -np.inf))
        return np.asarray(found.max(axis=0))

    def probability(self, price: float) -> float:
        """Share of draws that gain; the nominal world is none of them."""
        return float((self.gains_usd(price)[1:] >= 0.0).mean())

    def effective_price(self, price: float) -> float:
        """What a plain offer would cost that is paid as much for and serves as long, over all draws."""
        _, hours, fixed = parts(self.worlds, self.terms)
        rate = np.log1p(np.full(len(fixed), self.terms.discount_rate))
        served = served_hours(rate, self.worlds.delivery_years, self.terms.years) * self.worlds.delivered
        bill = self.paid[-1] * np.ones_like(served)
        return float((price * hours * bill - fixed)[1:].sum() / max((served * bill)[1:].sum(), 1e-300))

    def with_terms(self, **changes: object) -> Stand:
        """The same offer on other terms of payment."""
        return replace(self, terms=replace(self.terms, **changes))  # type: ignore[arg-type]

    def with_worlds(self, **changes: object) -> Stand:
        """The same offer, in worlds that turn out otherwise."""
        return replace(self, worlds=replace(self.worlds, **changes))  # type: ignore[arg-type]


def _times(saving: Floats, worth: Floats) -> Floats:
    """Savings by their hours; what never serves saves nothing, even where it alone could."""
    return np.where(worth > 0.0, np.where(worth > 0.0, saving, 0.0) * worth, 0.0)
