"""A study with its names resolved: systems with price and power on one basis, classes with their mean work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats
from infermix.catalog.load import Catalog, catalog, load_own_chip, with_own_chip
from infermix.catalog.query import find_model, find_system
from infermix.catalog.records import KINDS_OF_CHIP, Chip, Model, System
from infermix.cost.energy import facility_w
from infermix.cost.rent import HourlyPrice, hourly_price
from infermix.errors import InputError, located, near_miss
from infermix.plan.problem import Limits, Study
from infermix.workload.arrivals import Drawn, draw
from infermix.workload.classes import TrafficClass
from infermix.workload.requests import Requests

SAMPLE = 60_000
"""Requests of each class from which mean work is taken."""


@dataclass(frozen=True)
class Offer:
    """A system on the market."""

    system: System
    chip: Chip
    price: HourlyPrice
    supply: int | None
    facility_w: float | None


@dataclass(frozen=True, eq=False)
class Demand:
    """A class: its promise, its rate, and a sample of its requests."""

    name: str
    cls: TrafficClass
    rate_per_s: float
    sample: Requests
    """Of this class alone, at its own rate."""

    @cached_property
    def some_lengths(self) -> tuple[Floats, Floats, Floats]:
        """The same of every sixtieth request, for checks that many options go through."""
        inputs, cached, outputs = self.lengths
        return inputs[::60], cached[::60], outputs[::60]

    @cached_property
    def lengths(self) -> tuple[Floats, Floats, Floats]:
        """(input, cached, output) tokens of the sample."""
        s = self.sample
        return s.input_tokens.astype(float), s.cached_tokens.astype(float), s.output_tokens.astype(float)

    @property
    def mean_output(self) -> float:
        """Output tokens of a mean request."""
        return float(self.lengths[2].mean())


@dataclass(frozen=True)
class Question:
    """Everything the planner reads."""

    study: Study
    catalog: Catalog
    model: Model
    offers: tuple[Offer, ...]
    demands: tuple[Demand, ...]
    limits: Limits
    speed: str
    """``low`` or ``nominal``: where the promises must hold."""
    forced: str = ""
    """A system of which at least one must be bought: what it would cost to have it."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order of the study."""
        return tuple(d.name for d in self.demands)

    def with_offers(self, keep: Iterable[str]) -> Question:
        """The same question with fewer systems on the market."""
        wanted = set(keep)
        return replace(self, offers=tuple(o for o in self.offers if o.system.id in wanted))

    def with_limits(self, limits: Limits) -> Question:
        """The same question under other limits."""
        return replace(self, limits=limits)

    def with_demands(self, demands: tuple[Demand, ...]) -> Question:
        """The same question for other classes."""
        return replace(self, demands=demands)


def ask(study: Study) -> Question:
    """Resolve a study.

    Raises
    ------
    InputError
        Unknown model or system (with the near miss), no market, a price on the wrong basis.
    """
    facts = open_facts(study)
    with located(f"{study.path}: model"):
        model = find_model(study.model, facts)
    if study.market is None or not study.market.systems:
        raise InputError("no systems on the market", where=study.path or "study", mend="add [market] systems = [...]")
    offers = tuple(_offer(study, facts, name) for name in study.market.systems)
    _check_names(study)
    return Question(
        study=study,
        catalog=facts,
        model=model,
        offers=offers,
        demands=demands(study, model),
        limits=study.limits,
        speed=study.prove.speeds,
    )


def open_facts(study: Study) -> Catalog:
    """The catalogue, with the study's own chips."""
    facts = catalog()
    for file in study.market.own_chips if study.market else []:
        facts = with_own_chip(facts, *load_own_chip(study.base_dir / file))
    return facts


def offered(study: Study, model: Model, *, seed: int, requests: int | None = None, min_per_class: int = 0) -> Drawn:
    """The study's traffic."""
    return draw(
        study.traffic,
        seed=seed,
        requests=requests,
        min_per_class=min_per_class,
        max_context=model.max_context,
        base_dir=study.base_dir,
    )


def demands(study: Study, model: Model) -> tuple[Demand, ...]:
    """The classes with a sample each, drawn apart so that a rare class has as many as a frequent one."""
    found = []
    for name, cls in study.traffic.items():
        drawn = draw(
            {name: cls},
            seed=study.simulate.seed,
            requests=SAMPLE,
            max_context=model.max_context,
            base_dir=study.base_dir,
        )
        found.append(Demand(name=name, cls=cls, rate_per_s=drawn.rates_per_s[name], sample=drawn.requests))
    return tuple(found)


def _offer(study: Study, facts: Catalog, name: str) -> Offer:
    assert study.market is not None
    with located(f"{study.path}: market.systems"):
        system = find_system(name, facts)
        price = hourly_price(system, study.cost_basis, study.cost, study.market.prices.get(name))
    power = facility_w(system, study.cost.pue) if system.power_w is not None else None
    return Offer(
        system=system,
        chip=facts.chips[system.chip],
        price=price,
        supply=study.market.supply.get(name),
        facility_w=power,
    )


def _check_names(study: Study) -> None:
    assert study.market is not None
    for table, names in (("supply", study.market.supply), ("prices", study.market.prices)):
        for name in names:
            if name not in study.market.systems:
                raise InputError(
                    "not on the market",
                    where=f"{study.path}: market.{table}",
                    value=name,
                    allowed=", ".join(study.market.systems),
                    mend=near_miss(name, study.market.systems),
                )
    kinds = sorted(set(KINDS_OF_CHIP.values()))
    for kind in study.limits.min_share_output_tokens:
        if kind not in kinds:
            raise InputError(
                "unknown kind of chip",
                where=f"{study.path}: limits.min_share_output_tokens",
                value=kind,
                allowed=", ".join(kinds),
                mend=near_miss(kind, kinds),
            )


def scaled(requests: Requests, rate_factor: float) -> Requests:
    """The same requests, offered ``rate_factor`` times as fast: same luck, other load."""
    return replace(requests, arrival_s=np.asarray(requests.arrival_s) / rate_factor)


def thinned(requests: Requests, n: int) -> Requests:
    """About n requests spread evenly over the sample, at the sample's rate: the mix of sessions stays."""
    stride = max(1, len(requests) // max(1, n))
    return scaled(_columnwise(requests, lambda column: column[::stride]), float(stride))


def merged(parts: list[Requests]) -> Requests:
    """Requests of several classes in order of arrival; class c is the c-th part."""
    order = np.argsort(np.concatenate([p.arrival_s for p in parts]), kind="stable")
    columns: dict[str, Any] = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts])[order]
        for f in fields(Requests)
        if isinstance(getattr(parts[0], f.name), np.ndarray)
    }
    columns["class_id"] = np.repeat(np.arange(len(parts), dtype=np.int16), [len(p) for p in parts])[order]
    return Requests(class_names=tuple(p.class_names[0] for p in parts), **columns)


def _columnwise(requests: Requests, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Requests:
    columns: dict[str, Any] = {
        f.name: change(getattr(requests, f.name))
        for f in fields(requests)
        if isinstance(getattr(requests, f.name), np.ndarray)
    }
    return replace(requests, **columns)
