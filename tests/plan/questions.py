"""Small questions to the planner, made of real systems and invented capacities."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from infermix.catalog.load import catalog
from infermix.cost.rent import HourlyPrice
from infermix.perf.deployment import Deployment
from infermix.plan.offers import Offer
from infermix.plan.options import Option
from infermix.plan.problem import Study, parse_study
from infermix.plan.question import Demand, Question
from infermix.plan.rules import Limits
from infermix.workload.classes import TrafficClass
from infermix.workload.requests import make_requests
from tests.perf.deployments import deploy

CAT = catalog()
MODEL = "llama-3.1-8b"

CHAT: dict[str, Any] = {
    "profile": "azure-conv-2023",
    "rate_per_s": 20.0,
    "slo": {"ttft_s": 2.0, "tpot_s": 0.05, "attainment": 0.95},
}
RAW: dict[str, Any] = {
    "model": MODEL,
    "traffic": {"chat": CHAT},
    "market": {"systems": ["h100-x1", "l40s-x1"]},
    "prove": {"seeds": 5, "requests_per_class": 2000},
}


def study(**changes: Any) -> Study:
    """RAW with some of its tables replaced."""
    return parse_study({**copy.deepcopy(RAW), **changes}, "s.toml")


def offer(system: str, usd_per_hour: float, supply: int | None = None, facility_w: float | None = 1000.0) -> Offer:
    record = CAT.systems[system]
    price = HourlyPrice(usd_per_hour, "rent", ())
    return Offer(system=record, chip=CAT.chips[record.chip], price=price, supply=supply, facility_w=facility_w)


def option(of: Offer, **layout: Any) -> Option:
    deployment: Deployment = deploy(of.system.id, MODEL, **layout)
    return Option(of, deployment)


def demand(name: str, rate_per_s: float, output: int, inputs: int = 100, cls: TrafficClass | None = None,
           rates_per_s: tuple[float, ...] = ()) -> Demand:  # fmt: skip
    """A class whose requests are all alike."""
    sample = make_requests((name,), np.arange(10.0), np.full(10, inputs), np.full(10, output))
    return Demand(name, cls or study().traffic["chat"], rate_per_s, sample, rates_per_s)


def question(offers: list[Offer], demands: list[Demand], limits: Limits | None = None, forced: str = "",
             **more: Any) -> Question:  # fmt: skip
    return Question(**{
        "study": study(), "catalog": CAT, "model": CAT.models[MODEL], "offers": tuple(offers),
        "demands": tuple(demands), "limits": limits or Limits(), "speed": "nominal", "forced": forced, **more,
    })  # fmt: skip
