"""What a study tells its router: which policy, and what an instance costs."""

from __future__ import annotations

from infermix.cost.rent import hourly_price
from infermix.errors import InfermixError
from infermix.fleet import Fleet
from infermix.plan.problem import Study
from infermix.route.names import AUTO, BASE
from infermix.route.registry import Policy, find_policy
from infermix.units import SECONDS_PER_HOUR


def policy_of(study: Study) -> Policy:
    """The policy that the study names, ``pool_split`` where a plan is to choose one; a file is relative to the study's.

    Raises
    ------
    InputError
        Unknown name, missing file or function.
    """
    name = BASE if study.simulate.policy == AUTO else study.simulate.policy
    return find_policy(name, f"{study.path}: simulate.policy", study.base_dir)


def usd_per_s_of(study: Study, fleet: Fleet) -> dict[str, float]:
    """Pool → price of one of its instances, its share of whole systems [USD/s]; pools without a price are left out."""
    prices = study.market.prices if study.market else {}
    found = {}
    for pool in fleet.pools:
        system = pool.deployment.system
        try:
            hourly = hourly_price(system, study.cost_basis, study.cost, prices.get(system.id))
        except InfermixError:
            continue
        found[pool.name] = hourly.usd_per_hour * pool.systems / pool.instances / SECONDS_PER_HOUR
    return found
