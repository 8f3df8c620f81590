"""What a study says of failures, old signals and limits of the gateway, as the simulator takes it."""

from __future__ import annotations

from operator import itemgetter

import numpy as np

from infermix.errors import InputError, near_miss
from infermix.fleet import Fleet
from infermix.plan.problem import Study
from infermix.sim.failures import failure_events
from infermix.sim.rules import FleetRules

Event = tuple[float, int, str]


def fleet_rules(study: Study, fleet: Fleet, class_names: tuple[str, ...], horizon_s: float, seed: int) -> FleetRules:
    """The rules of a study for a run on a fleet; random failures happen within the horizon.

    Raises
    ------
    InputError
        An event names a pool or an instance that the fleet does not have.
    """
    said = study.simulate
    events = stated_events(study, fleet) + random_failures(study, fleet, horizon_s, seed)
    return FleetRules(
        events=tuple(sorted(events, key=itemgetter(0))),
        resume=said.resume,
        stale_s=said.stale_s,
        ration_per_s=_column(study, class_names, "ration_per_s"),
        ration_burst=_bursts(study, class_names),
        shed_above=_column(study, class_names, "shed_above"),
        max_wait_s=_column(study, class_names, "max_wait_s"),
    )


def comes_and_goes(study: Study, fleet: Fleet) -> bool:
    """Whether instances may be down at times."""
    said = study.simulate
    moving = any(pool.autoscale is not None or pool.up is not None for pool in fleet.pools)
    return bool(said.events) or said.failures is not None or moving


def _column(study: Study, class_names: tuple[str, ...], name: str) -> tuple[float, ...] | None:
    """A limit by class, inf where there is none; None where no class has one."""
    values = [getattr(study.traffic[c], name) if c in study.traffic else None for c in class_names]
    if all(value is None for value in values):
        return None
    return tuple(np.inf if value is None else float(value) for value in values)


def _bursts(study: Study, class_names: tuple[str, ...]) -> tuple[float, ...] | None:
    """Bursts by class: one where a class states a rate alone, so that nothing but the rate limits it."""
    rates = _column(study, class_names, "ration_per_s")
    if rates is None:
        return None
    bursts = _column(study, class_names, "ration_burst") or (np.inf,) * len(rates)
    return tuple(1.0 if rate < np.inf == burst else burst for rate, burst in zip(rates, bursts, strict=True))


def stated_events(study: Study, fleet: Fleet) -> list[Event]:
    """The events of ``[simulate]`` with numbers of instances in the fleet, in the order given."""
    first = _firsts(fleet)
    found: list[Event] = []
    names = [pool.name for pool in fleet.pools]
    for i, event in enumerate(study.simulate.events):
        where = f"{study.path}: simulate.events[{i}]"
        if event.pool not in names:
            mend = near_miss(event.pool, names)
            raise InputError("no such pool", where=where, value=event.pool, allowed=", ".join(names), mend=mend)
        size = fleet.pools[names.index(event.pool)].instances
        if event.instance >= size:
            allowed = f"0 to {size - 1}"
            raise InputError("no such instance", where=where, value=event.instance, allowed=allowed)
        found.append((event.at_s, first[names.index(event.pool)] + event.instance, event.what))
    return found


def random_failures(study: Study, fleet: Fleet, horizon_s: float, seed: int) -> list[Event]:
    """Failures of every instance that is up at the start, and the starts after their repair.

    In a pool that scales itself any instance may fail, and nothing but its autoscaling starts it again.
    """
    rule, found = study.simulate.failures, []
    if rule is None:
        return []
    for first, pool in zip(_firsts(fleet), fleet.pools, strict=True):
        scales = pool.autoscale is not None
        up = pool.instances if scales or pool.up is None else pool.up
        for j in range(first, first + up):
            found += failure_events(horizon_s, rule.mtbf_hours, rule.repair_s, j, seed, starts=not scales)
    return found


def _firsts(fleet: Fleet) -> list[int]:
    """Number of the first instance of each pool."""
    sizes = [pool.instances for pool in fleet.pools]
    return [sum(sizes[:p]) for p in range(len(sizes))]
