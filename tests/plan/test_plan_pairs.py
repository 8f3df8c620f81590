"""Prefill and decode apart: the program against enumeration, capacities beside a partner, what a plan says of pairs."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.fleet import Fleet, Pool
from infermix.perf.transfer import network_bytes_per_s
from infermix.plan import model
from infermix.plan.capacity import Capacities
from infermix.plan.export.gateway import gateway_toml
from infermix.plan.model import Column, make_table
from infermix.plan.pairs import parts_of, stage_shares
from infermix.plan.problem import load_study, parse_study
from infermix.plan.question import Question, ask
from infermix.plan.result import PairPlan
from infermix.plan.rules import Limits
from infermix.plan.shortlist import KEPT_PAIRS
from infermix.plan.solve import choose, lower_bound, make_planner
from infermix.sim import engines
from tests.perf.deployments import deploy
from tests.plan.questions import CHAT, MODEL, demand, offer, option, question
from tests.report.plans import biting_plan, pool, served

EXAMPLE = Path(__file__).parents[2] / "examples" / "plan" / "pairs.toml"
MOST = 4
SYSTEMS = ("h100-x1", "mi300x-x1")


def market(case: int) -> tuple[Question, list[Column]]:
    """Two systems that do both, and two pairs of them; supply, power and a budget in some cases."""
    random = np.random.default_rng(7000 + case)
    limited = random.uniform(size=3) < 0.4
    offers = [
        offer(system, float(random.uniform(1, 9)), int(random.integers(2, 7)) if limited[0] else None,
              float(random.uniform(500, 3000)))
        for system in SYSTEMS
    ]  # fmt: skip
    limits = Limits(
        power_mw=float(random.uniform(0.002, 0.008)) if limited[1] else None,
        usd_per_hour=float(random.uniform(5, 30)) if limited[2] else None,
    )
    columns = [Column(option(of), 1, MOST, {"chat": float(random.uniform(1, 4))}) for of in offers]
    for (a, b), name in zip((offers, offers[::-1]), ("a > b", "b > a"), strict=True):
        for of, role in ((a, "prefill"), (b, "decode")):
            part = replace(option(of, role=role), pair=name)
            columns.append(Column(part, 1, MOST, {"chat": float(random.uniform(2, 12))}))
    return question(offers, [demand("chat", float(random.uniform(4, 14)), 200)], limits), columns


def fleets(asked: Question, columns: list[Column]) -> Iterator[float]:
    """Cost of every fleet that serves all of it within the limits."""
    rates = [column.capacity["chat"] for column in columns]
    for counts in itertools.product(range(MOST + 1), repeat=len(columns)):
        pairs = [min(counts[i] * rates[i], counts[i + 1] * rates[i + 1]) for i in (2, 4)]
        if counts[0] * rates[0] + counts[1] * rates[1] + max(pairs) < asked.demands[0].rate_per_s - 1e-9:
            continue
        had = {
            of.key: sum(n for n, c in zip(counts, columns, strict=True) if c.option.offer is of) for of in asked.offers
        }
        cost = sum(had[of.key] * of.price.usd_per_hour for of in asked.offers)
        watts = sum(had[of.key] * (of.facility_w or 0.0) for of in asked.offers)
        short = any(of.supply is not None and had[of.key] > of.supply for of in asked.offers)
        over = watts > (asked.limits.power_mw or 1.0) * 1e6 or cost > (asked.limits.usd_per_hour or 1e9)
        if not (short or over):
            yield cost


@pytest.mark.parametrize("case", range(20))
def test_the_program_equals_enumeration(case: int) -> None:
    asked, columns = market(case)
    expected = min(fleets(asked, columns), default=None)
    found = model.solve(model.build(asked, make_table(asked, columns)), gap=0.0)
    if expected is None:
        assert found is None
        return
    assert found is not None and found.usd_per_hour == pytest.approx(expected, abs=0.005)
    sent = {role: sum(c.rates["chat"] for c in found.choices if c.column.option.deployment.role == role)
            for role in ("prefill", "decode")}  # fmt: skip
    assert sent["prefill"] == pytest.approx(sent["decode"], abs=1e-6)
    assert len({c.column.option.pair for c in found.choices if c.column.option.pair}) <= 1


def test_some_cases_take_a_pair_some_do_not_and_some_have_no_answer() -> None:
    taken = []
    for case in range(20):
        asked, columns = market(case)
        found = model.solve(model.build(asked, make_table(asked, columns)), gap=0.0)
        taken.append("none" if found is None else any(c.column.option.pair for c in found.choices))
    assert set(taken) == {"none", True, False}


def raw(**changes: Any) -> dict[str, Any]:
    study = tomllib.loads(EXAMPLE.read_text())
    study["market"] |= changes
    return study


@pytest.mark.parametrize(
    ("ready", "count"), [("shipping", 1), ("demonstrated", 1), ("hypothetical", 4)]
)  # fmt: skip
def test_pairs_that_are_ready_enough_may_be_had(ready: str, count: int) -> None:
    asked = ask(parse_study(raw(pairs=[], pairs_ready=ready), "s.toml"))
    parts = parts_of(asked)
    assert len(parts) == count and parts[0].name == "h100-x1 > h100-x1"


def test_the_cheapest_pairs_are_simulated_and_all_are_in_the_bound() -> None:
    systems = ["h100-x1", "h200-x1", "mi300x-x1"]
    table = {"systems": systems, "prices": {}, "pairs": [], "pairs_ready": "hypothetical"}
    planner = make_planner(ask(parse_study(raw(**table) | {"traffic": {"chat": CHAT}}, "s.toml")))
    assert len({o.pair for o in planner.short if o.pair}) == KEPT_PAIRS < 9
    assert {k.option.pair.rpartition(" ")[0] for k in planner.found.kept} == {
        "",
        *(f"{a} > {b}" for a in systems for b in systems),
    }
    assert all(o.partner is not None and o.partner.pair == o.pair for o in planner.short if o.pair)


def test_nothing_is_paired_unless_asked() -> None:
    planner = make_planner(ask(parse_study(raw(pairs=[]), "s.toml")))
    assert not any(base.pair for base in planner.found.bases.found)


def test_a_pair_of_systems_that_are_not_on_the_market_is_refused() -> None:
    with pytest.raises(InputError, match=r"market\.pairs\[0\]\.decode.*cs4.*did you mean 'cs3'"):
        parse_study(raw(pairs=[{"prefill": "h100-x1", "decode": "cs4"}]), "s.toml")
    with pytest.raises(InputError, match=r"market\.pairs\[0\].*decoder"):
        parse_study(raw(pairs=[{"prefill": "h100-x1", "decoder": "cs3"}]), "s.toml")


@pytest.mark.parametrize("table", [{"objective": {"maximise": "profit_usd_per_hour"}},
                                   {"limits": {"redundancy": {"system": 0.9}}}])  # fmt: skip
def test_what_has_no_equations_for_pairs_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"market\.pairs.*do not go with"):
        make_planner(ask(parse_study(raw() | table, "s.toml")))


def test_a_decode_pool_serves_more_than_one_that_reads_as_well_and_the_bound_is_no_higher() -> None:
    asked = ask(load_study(EXAMPLE))
    planner, alone = make_planner(asked), make_planner(ask(parse_study(raw(pairs=[]), "s.toml")))
    assert lower_bound(planner) <= lower_bound(alone) + 1e-6
    best = {
        role: max(k.capacity["summaries"] for k in planner.found.kept
                  if k.option.deployment.stages == 1 and k.option.deployment.role == role)
        for role in ("both", "decode")
    }  # fmt: skip
    assert best["decode"] > best["both"]


@pytest.mark.compiled_only
def test_a_link_that_takes_no_time_never_lowers_a_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    planner = make_planner(ask(load_study(EXAMPLE)))
    wanted = planner.question.demands[0]
    parts = [o for o in planner.short if o.pair and o.deployment.systems_per_instance == 1]
    assert {o.deployment.role for o in parts} == {"prefill", "decode"}
    slow = [Capacities().simulate(o, wanted, 1) for o in parts]
    monkeypatch.setattr(engines, "network_bytes_per_s", lambda d: 1e9 * network_bytes_per_s(d))
    fast = [Capacities().simulate(o, wanted, 1) for o in parts]
    assert all(f >= s > 0 for f, s in zip(fast, slow, strict=True)) and any(
        f > 1.1 * s for f, s in zip(fast, slow, strict=True)
    )


@pytest.mark.compiled_only
def test_a_market_with_pairs_is_no_dearer() -> None:
    found = choose(make_planner(ask(load_study(EXAMPLE))))
    without = choose(make_planner(ask(parse_study(raw(pairs=[]), "s.toml"))))
    assert found is not None and without is not None and found.usd_per_hour < 0.8 * without.usd_per_hour
    assert {c.column.option.deployment.role for c in found.choices} == {"prefill", "decode"}


def test_shares_count_a_request_that_is_handed_over_at_both_pools() -> None:
    parts = [("reader", "prefill", 0.3), ("writer", "decode", 0.3), ("other", "both", 0.4)]
    pools = [
        Pool(name=name, deployment=deploy("h100-x1", MODEL, role=role), instances=1, serves={"chat": share})
        for name, role, share in parts
    ]
    found = stage_shares(Fleet(tuple(pools)), ["chat", "code"])
    assert found["chat"] == pytest.approx({"reader": 3 / 7, "writer": 3 / 7, "other": 4 / 7}) and not found["code"]


def test_the_gateway_has_one_backend_for_the_router_of_a_pair(tmp_path: Path) -> None:
    from infermix.serve.config import read_gateway

    study = load_study(EXAMPLE)
    parts = [
        pool(name, role=role, model=MODEL, serves={"summaries": 0.5})
        for name, role in (("reader", "prefill"), ("writer", "decode"))
    ]
    plan = msgspec.structs.replace(
        biting_plan(),
        fleet=parts,
        serves={"summaries": {"reader": 1.0, "writer": 1.0}},
        classes={"summaries": served()},
        pairs=[PairPlan(prefill="reader", decode="writer", readiness="hypothetical", source="none known")],
    )
    text = gateway_toml(plan, study, catalog(), tmp_path)
    assert "has no such roles" in text
    (row,) = read_gateway(tomllib.loads(text), "gateway.toml").backends
    assert row.name == "reader+writer" and row.serves == {"summaries": 1.0} and row.usd_per_hour == 120.0
    assert row.max_inflight == 512 and row.system is None and row.tpot_s == served().tpot_s["p50"]
