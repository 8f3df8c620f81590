"""How things may turn out: a Latin hypercube over what nobody knows, the same for every price that is asked about.

Each unknown is cut into as many equally likely strata as there are draws, and every stratum is met once: the share of
draws below any of its values is exact to one draw. The first draw is none: there everything is as it is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from infermix.arrays import Floats
from infermix.catalog.query import figure
from infermix.plan.question import Question
from infermix.plan.quote.offer import Said, VendorOffer, ends
from infermix.plan.quote.worth import MONTHS, Worlds
from infermix.rng import uniforms
from infermix.silicon.draw import triangular

NOMINAL = 0
"""The draw in which everything is as it is said."""


@dataclass(frozen=True)
class Draws:
    """One entry a draw, the nominal world first."""

    unknowns: tuple[str, ...]
    """What was drawn: demand, falls, late, never, equity, speed/FAMILY, price/SYSTEM."""
    cube: Floats
    """[draw, unknown] share of what may be that lies below; 1/2 in the nominal world."""
    demand: Floats
    """Traffic over the study's."""
    price: dict[str, Floats]
    """System → its price over the catalogue's."""
    delivery_years: Floats
    delivered: Floats
    """1 or 0."""
    falls: Floats
    equity_usd: Floats

    def __len__(self) -> int:
        return len(self.demand)

    def share(self, unknown: str) -> Floats | None:
        """Its column; None for what is certain."""
        return self.cube[:, self.unknowns.index(unknown)] if unknown in self.unknowns else None

    def worlds(self, kept: Floats) -> Worlds:
        """What becomes of the offer."""
        return Worlds(self.delivery_years, self.delivered > 0, self.falls, self.equity_usd, kept > 0)


def latin(seed: int, dimensions: int, count: int) -> Floats:
    """A Latin hypercube of so many points, the middle of a stratum each.

    >>> sorted(float(x) for x in latin(1, 1, 4)[:, 0])
    [0.125, 0.375, 0.625, 0.875]
    """
    columns = [np.argsort(uniforms(seed, 1000 + d, count)) for d in range(dimensions)]
    return (np.stack(columns, axis=1) + 0.5) / count if columns else np.zeros((count, 0))


def draw(offer: VendorOffer, question: Question) -> Draws:
    """Draws of an offer to a question, whose offers tell which prices and which families of chips may vary."""
    ranges = price_ranges(question)
    families = sorted({o.chip.efficiency for o in question.offers if o.chip.efficiency})
    said: dict[str, Said] = {"demand": offer.ranges.demand, "falls": offer.ranges.market_falls_per_year}
    if offer.equity:
        said["equity"] = offer.equity.usd
    unknowns = [name for name, value in said.items() if len(set(ends(value))) > 1]
    unknowns += [f"speed/{family}" for family in families] + [f"price/{system}" for system in ranges]
    late = offer.late
    unknowns += [name for name, odds in (("late", late.probability), ("never", late.never)) if odds > 0]
    cube = np.vstack([np.full((1, len(unknowns)), 0.5), latin(offer.seed, len(unknowns), offer.draws)])
    column = {name: cube[:, i] for i, name in enumerate(unknowns)}

    def value(name: str, low: float, mode: float, high: float) -> Floats:
        found = np.full(len(cube), mode)
        if name in column:
            found[1:] = triangular(column[name][1:], low, mode, high)
        return found

    drawn = {name: value(name, *ends(number)) for name, number in said.items()}
    is_late = _happens(column.get("late"), late.probability, len(cube))
    return Draws(
        unknowns=tuple(unknowns),
        cube=cube,
        demand=drawn["demand"],
        price={system: value(f"price/{system}", *bounds) for system, bounds in ranges.items()},
        delivery_years=(offer.delivery_months + is_late * late.months) / MONTHS,
        delivered=1.0 - _happens(column.get("never"), late.never, len(cube)),
        falls=drawn["falls"],
        equity_usd=drawn.get("equity", np.zeros(len(cube))),
    )


def _happens(column: Floats | None, probability: float, count: int) -> Floats:
    """1 in the share of draws in which it happens; never in the nominal world, unless it is certain."""
    if column is None:
        return np.zeros(count)
    found = (column < probability).astype(float)
    found[NOMINAL] = float(probability >= 1.0)
    return found


def price_ranges(question: Question) -> dict[str, tuple[float, float, float]]:
    """System → (low, 1, high) of its price over what the catalogue says; only where that has ends."""
    found = {}
    for offer in question.offers:
        if not offer.price.figures:
            continue
        price = figure(question.catalog, offer.price.figures[0])
        if price.low is not None and price.high is not None and price.high > price.low:
            found[offer.system.id] = (price.low / price.value, 1.0, price.high / price.value)
    return found
