"""A study with its names resolved: systems with price and power on one basis, classes with their mean work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats
from infermix.catalog.load import Catalog, catalog, load_own_chip, with_measured, with_own_chip
from infermix.catalog.measured import read_measured
from infermix.catalog.query import find_model, find_system
from infermix.catalog.records import Model
from infermix.errors import InputError, NoAnswer, located
from infermix.plan.offers import Api, Contract, Offer, Reservation
from infermix.plan.problem import Study
from infermix.plan.resolve import apis_of, offers_of, reservations
from infermix.plan.rules import Limits
from infermix.plan.slots import Slot, is_even, slots_of
from infermix.workload.arrivals import Drawn, draw
from infermix.workload.classes import TrafficClass
from infermix.workload.requests import Requests
from infermix.workload.rows import without_parents
from infermix.workload.shape import by_hour

SAMPLE = 60_000
"""Requests of each class from which mean work is taken."""
HOUR_SAMPLE = 2_000
"""Requests of each class from which the busiest hour is told."""


@dataclass(frozen=True, eq=False)
class Demand:
    """A class: its promise, its rates, and a sample of its requests."""

    name: str
    cls: TrafficClass
    rate_per_s: float
    """In its busiest slot."""
    sample: Requests
    """Of this class alone, at its own rate."""
    rates_per_s: tuple[float, ...] = ()
    """In every slot; empty where there is one."""
    model: Model | None = None
    """The class's own; None: the study's."""

    def rate_at(self, slot: int) -> float:
        """Requests a second in a slot."""
        return self.rates_per_s[slot] if self.rates_per_s else self.rate_per_s

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
    seen: tuple[frozenset[str], ...] = ()
    """Sets of systems that are no answer: what the next best fleet is."""
    faster: tuple[tuple[str, float], ...] = ()
    """System → what its instances serve over what they do: the speed at which it would enter."""
    reserved: tuple[Reservation, ...] = ()
    slots: tuple[Slot, ...] = (Slot(),)
    apis: tuple[Api, ...] = ()

    @property
    def hour(self) -> int | None:
        """Hour of the day that is planned, where one slot is; None where every hour is alike."""
        return self.slots[0].hour if len(self.slots) == 1 else None

    @property
    def models(self) -> tuple[Model, ...]:
        """Models of the classes, each once."""
        return tuple({m.id: m for m in map(self.model_of, self.demands)}.values())

    @property
    def profits(self) -> bool:
        """Whether profit is maximised, not cost minimised."""
        return self.study.objective.maximise is not None

    def least_served(self, demand: Demand) -> float:
        """Share of a class that must be served."""
        if demand.cls.least_served is not None:
            return demand.cls.least_served
        return 0.0 if self.profits or self.limits.rationing else 1.0

    def model_of(self, demand: Demand) -> Model:
        """The model that a class is served by."""
        return demand.model or self.model

    @cached_property
    def contracts(self) -> tuple[tuple[Offer, Contract], ...]:
        """Every way to have systems, with its offer."""
        return tuple((offer, contract) for offer in self.offers for contract in offer.ways)

    def running(self, slot: int) -> list[Reservation]:
        """Training that runs in a slot."""
        return [held for held in self.reserved if held.slots[slot]]

    def reserved_usd_per_hour(self, slot: int = 0) -> float:
        """Price of the training that runs in a slot [USD/h]."""
        return sum(held.usd_per_hour for held in self.running(slot))

    def reserved_w(self, slot: int = 0) -> float:
        """Its power at the wall [W]; NoAnswer where the catalogue has no figure."""
        unknown = [held for held in self.running(slot) if held.facility_w is None]
        if unknown:
            raise NoAnswer(
                f"training.{unknown[0].name}: no power figure of {unknown[0].system.id}, so limits.power_mw cannot be "
                "checked"
            )
        return sum(held.systems * (held.facility_w or 0.0) for held in self.running(slot))

    def reserved_systems(self, system: str, slot: int = 0) -> int:
        """Systems of one kind that training holds in a slot."""
        return sum(held.systems for held in self.running(slot) if held.system.id == system)

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
    slots = find_slots(study, model)
    return Question(
        study=study,
        catalog=facts,
        model=model,
        offers=offers_of(study, facts, study.market),
        demands=demands(study, model, slots),
        limits=study.limits,
        speed=study.prove.speeds,
        reserved=reservations(study, facts, slots),
        apis=apis_of(study, facts, study.market, model),
        slots=slots,
    )


def find_slots(study: Study, model: Model) -> tuple[Slot, ...]:
    """The slots of a study; busy is measured in uncached input and output tokens."""
    weights = dict.fromkeys(study.traffic, 1.0)
    if not is_even(study) and len(study.traffic) > 1:
        for demand in demands(study, model, (Slot(),), HOUR_SAMPLE):
            inputs, cached, outputs = demand.lengths
            weights[demand.name] = demand.rate_per_s * float((inputs - cached + outputs).mean())
    return slots_of(study, weights)


def planned_hour(study: Study, model: Model) -> int | None:
    """The busiest hour of the day, by which a fleet is judged; None where every hour is alike."""
    whole = msgspec.structs.replace(study, slots=msgspec.structs.replace(study.slots, count=1))
    return find_slots(whole, model)[0].hour


def open_facts(study: Study) -> Catalog:
    """The catalogue, with the study's own chips and measured deployments."""
    facts = catalog()
    for file in study.market.own_chips if study.market else []:
        facts = with_own_chip(facts, *load_own_chip(study.base_dir / file))
    for name, asked in study.calibration.items():
        with located(f"{study.path}: calibration.{name}"):
            system = find_system(asked.system, facts)
            model = find_model(asked.model or study.model, facts)
            facts = with_measured(facts, system, read_measured(study.base_dir / asked.file, asked, model.id))
    return facts


def offered(
    study: Study,
    model: Model,
    *,
    seed: int,
    requests: int | None = None,
    min_per_class: int = 0,
    hold_hour: bool = False,
    hour: int | None = None,
) -> Drawn:
    """The study's traffic from an hour on, the planned one unless told; with ``hold_hour`` it stays as busy as then."""
    return draw(
        study.traffic,
        seed=seed,
        requests=requests,
        min_per_class=min_per_class,
        max_context=contexts(study, model),
        base_dir=study.base_dir,
        start_hour=(planned_hour(study, model) if hour is None else hour) or 0,
        hold_hour=hold_hour,
    )


def contexts(study: Study, model: Model) -> dict[str, int]:
    """Class → longest context of its model [tokens]."""
    return {name: model_of_class(study, name, model).max_context for name in study.traffic}


def model_of_class(study: Study, name: str, default: Model) -> Model:
    """The model that a class names; the study's where it names none."""
    own = study.traffic[name].model
    if own is None:
        return default
    with located(f"{study.path}: traffic.{name}.model"):
        return find_model(own, catalog())


def demands(
    study: Study, model: Model, slots: tuple[Slot, ...] = (Slot(),), sample: int = SAMPLE
) -> tuple[Demand, ...]:
    """The classes with a sample each, drawn apart so that a rare class has as many as a frequent one.

    Each is drawn at the hour of the only slot, or at its own busiest hour; without hours, rates are means.
    """
    found = []
    for name, cls in study.traffic.items():
        swing = by_hour(cls.shape)
        hours = [slot.hour for slot in slots if slot.hour is not None]
        hour = max(hours, key=lambda h, swing=swing: float(swing[h])) if hours else None  # type: ignore[misc]
        mine = model_of_class(study, name, model)
        drawn = draw(
            {name: cls},
            seed=study.simulate.seed,
            requests=sample,
            max_context=mine.max_context,
            base_dir=study.base_dir,
            start_hour=hour or 0,
            hold_hour=hour is not None,
        )
        rates = _rates(name, drawn.rates_per_s[name], swing, hour, slots)
        found.append(Demand(name, cls, max(rates), drawn.requests, rates if len(slots) > 1 else (), mine))
    return tuple(found)


def _rates(name: str, peak: float, swing: Floats, hour: int | None, slots: tuple[Slot, ...]) -> tuple[float, ...]:
    """Rates in the slots of a class that has its ``peak`` at an hour [1/s]."""
    hourly = [1.0 if s.hour in (None, hour) else float(swing[s.hour] / swing[hour]) for s in slots]
    return tuple(peak * part * slot.factor(name) for part, slot in zip(hourly, slots, strict=True))


def scaled(requests: Requests, rate_factor: float) -> Requests:
    """The same requests, offered ``rate_factor`` times as fast: same luck, other load."""
    return replace(requests, arrival_s=np.asarray(requests.arrival_s) / rate_factor)


def thinned(requests: Requests, n: int) -> Requests:
    """About n requests spread evenly over the sample, at the sample's rate: the mix of sessions stays.

    Parents may be among those left out, so none is kept.
    """
    stride = max(1, len(requests) // max(1, n))
    kept = _columnwise(requests, lambda column: column[::stride])
    return scaled(replace(kept, parent=without_parents(len(kept))), float(stride))


def merged(parts: list[Requests]) -> Requests:
    """Requests of several classes in order of arrival, parents kept; class c is the c-th part."""
    order = np.argsort(np.concatenate([p.arrival_s for p in parts]), kind="stable")
    columns: dict[str, Any] = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts])[order]
        for f in fields(Requests)
        if isinstance(getattr(parts[0], f.name), np.ndarray)
    }
    rank = np.full(len(order) + 1, -1, dtype=np.int32)
    rank[order] = np.arange(len(order))
    begin = np.cumsum([0, *(len(p) for p in parts)])
    mothers = [np.where(p.parent >= 0, p.parent + first, -1) for p, first in zip(parts, begin, strict=False)]
    columns["parent"] = rank[np.concatenate(mothers)[order]]
    columns["class_id"] = np.repeat(np.arange(len(parts), dtype=np.int16), [len(p) for p in parts])[order]
    return Requests(class_names=tuple(p.class_names[0] for p in parts), **columns)


def _columnwise(requests: Requests, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Requests:
    columns: dict[str, Any] = {
        f.name: change(getattr(requests, f.name))
        for f in fields(requests)
        if isinstance(getattr(requests, f.name), np.ndarray)
    }
    return replace(requests, **columns)
