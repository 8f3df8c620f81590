"""Engines and fleets: what does not go together is refused in one line, figures become blocks and seconds."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.errors import InputError, NoAnswer
from infermix.fleet import Fleet, PoolRow, make_fleet
from infermix.perf import model_cost, roofline
from infermix.perf.memory import draft_bytes, weights_bytes
from infermix.perf.specdec import Speculation, acceptance, accepted_variance
from infermix.perf.table import compile_table
from infermix.perf.transfer import kv_transfer
from infermix.sim.specs import fleet_specs
from infermix.sim.state import DECODE, PREFILL, PoolSpec
from infermix.workload.requests import Requests, make_requests

CAT = catalog()
CLASSES = ("chat", "code")
H100 = {"system": "h100-x1", "instances": 2}
SCALE = {"least": 1, "target_inflight": 8.0, "every_s": 10.0}


def fleet(model: str = "llama-3.1-8b", **rows: dict[str, Any]) -> Fleet:
    pools = {name: msgspec.convert(row, PoolRow) for name, row in rows.items()}
    return make_fleet(CAT, pools, model, CLASSES, "f.toml: fleet")


def requests() -> Requests:
    return make_requests(CLASSES, [0.0, 1.0], [1000, 1000], [100, 100])


def specs(model: str = "llama-3.1-8b", **rows: dict[str, Any]) -> list[PoolSpec]:
    return fleet_specs(fleet(model, **rows), requests(), "nominal")


@pytest.mark.parametrize(
    ("row", "must"),
    [
        ({"retention_s": 60.0}, "retention_s belongs to a prefix cache; set prefix_cache = true"),
        ({"host_kv_gb": 100.0, "host_gb_per_s": 20.0}, "host_kv_gb belongs to a prefix cache"),
        ({"prefix_cache": True, "host_kv_gb": 100.0}, "host_gb_per_s is missing"),
        ({"prefix_cache": True, "remote_latency_s": 0.01}, "remote_kv_gb is missing"),
        ({"prefix_cache": True, "remote_kv_gb": -1.0, "remote_gb_per_s": 2.0}, "remote_kv_gb must be positive"),
        ({"prefix_cache": True, "retention_s": 0.0}, "retention_s must be positive; got 0.0"),
        ({"watermark": 1.0}, "watermark out of range; got 1.0; allowed: 0 to below 1"),
        ({"link_latency_s": 0.1}, "link_latency_s is for pools of prefill or decode alone"),
        ({"up": 3}, "up out of range; got 3; allowed: 0 to instances (2)"),
        ({"role": "prefill", "spec": "eagle:2"}, "a prefill pool drafts nothing"),
        ({"role": "decode", "prefix_cache": True}, "a decode pool reads no prompts, so it keeps no prefix cache"),
        ({"autoscale": SCALE}, "how long a start takes is not said; say start_s, or load_gb_per_s of the pool"),
        ({"autoscale": SCALE, "load_gb_per_s": 0.0}, "load_gb_per_s must be positive"),
        ({"autoscale": SCALE | {"start_s": 5.0}, "load_gb_per_s": 1.0}, "both say how long a start takes"),
        ({"autoscale": SCALE | {"least": 3, "start_s": 5.0}}, "least out of range; got 3"),
        ({"autoscale": SCALE | {"every_s": 0.0, "start_s": 5.0}}, "every_s must be positive and finite; got 0"),
        ({"autoscale": SCALE | {"down_after": 0, "start_s": 5.0}}, "down_after must be 1 or more; got 0"),
        ({"autoscale": SCALE | {"start_s": -1.0}}, "start_s must be finite and 0 or more; got -1"),
    ],
)
def test_keys_that_do_not_go_together(row: dict[str, Any], must: str) -> None:
    with pytest.raises(InputError) as told:
        fleet(a={**H100, **row})
    assert must in str(told.value)
    assert str(told.value).startswith("f.toml: fleet.a") and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("rows", "where", "must"),
    [
        ({"a": {"role": "prefill"}}, "a", "no decode pool takes on what it reads; got 'chat'"),
        ({"a": {"role": "decode"}}, "a", "no prefill pool hands over to it"),
        (
            {"a": {"role": "prefill"}, "b": {"role": "decode", "serves": {"chat": 1.0}}},
            "a",
            "no decode pool takes on what it reads; got 'code'",
        ),
        (
            {"a": {"role": "prefill", "serves": {"chat": 1.0}}, "b": {"role": "decode", "serves": {"code": 1.0}}},
            "a",
            "no decode pool takes on what it reads; got 'chat'",
        ),
        (
            {"a": {"role": "prefill"}, "b": {"role": "decode", "model": "llama-3.3-70b", "system": "h200-x8"}},
            "a",
            "it would hand over to b, which runs another model; got 'llama-3.3-70b'",
        ),
    ],
)
def test_prompts_have_somewhere_to_go(rows: dict[str, dict[str, Any]], where: str, must: str) -> None:
    with pytest.raises(InputError) as told:
        fleet(**{name: {**H100, **row} for name, row in rows.items()})
    assert f"f.toml: fleet.{where}: {must}" in str(told.value)


def test_a_pool_without_features_is_as_before() -> None:
    (spec,) = specs(a=H100)
    plain = {f: getattr(spec, f) for f in ("role", "watermark_blocks", "prefix_cache", "host_blocks", "remote_blocks")}
    assert set(plain.values()) == {0} and spec.ranks == 1 and spec.instances_up is None
    assert spec.accepted_per_step == spec.accepted_most == 1 and spec.target_inflight == np.inf


def test_gigabytes_become_blocks_and_rates_seconds_a_token() -> None:
    """32 layers x 8 heads x 128 x keys and values x 2 bytes = 131,072 bytes a token, 16 tokens a block."""
    row = {
        **H100, "prefix_cache": True, "retention_s": 600.0, "host_kv_gb": 100.0, "host_gb_per_s": 25.0,
        "remote_kv_gb": 1000.0, "remote_gb_per_s": 5.0, "remote_latency_s": 0.002, "watermark": 0.01,
    }  # fmt: skip
    made = fleet(a=row)
    (spec,) = fleet_specs(made, requests(), "nominal")
    assert model_cost.kv_bytes_per_token(made.pools[0].deployment.model, "bf16") == 131_072
    assert (spec.prefix_cache, spec.retention_s) == (True, 600.0)
    assert spec.host_blocks == int(100e9 // (131_072 * 16)) and spec.host_load_s == pytest.approx(131_072 / 25e9)
    assert spec.remote_blocks == int(1e12 // (131_072 * 16)) and spec.remote_load_s == pytest.approx(131_072 / 5e9)
    assert (spec.host_latency_s, spec.remote_latency_s) == (0.0, 0.002)
    assert spec.watermark_blocks == int(0.01 * spec.blocks) > 0


@pytest.mark.parametrize("model", ["llama-3.3-70b", "gpt-oss-120b"])
def test_a_transfer_is_that_of_the_slower_network(model: str) -> None:
    rows: dict[str, Any] = {
        "a": {"system": "h200-x8", "tp": 4, "instances": 1, "role": "prefill", "link_latency_s": 0.001},
        "b": {"system": "b200-x8", "tp": 8, "instances": 1, "role": "decode"},
    }
    made = fleet(model, **rows)
    read, answer = fleet_specs(made, requests(), "nominal")
    assert (read.role, answer.role) == (PREFILL, DECODE)
    for tokens in (1, 10_000):
        told = kv_transfer(made.pools[0].deployment, made.pools[1].deployment, tokens).seconds
        latency = max(read.transfer_latency_s, answer.transfer_latency_s)
        took = latency + tokens * max(read.transfer_s_per_token, answer.transfer_s_per_token)
        assert took == pytest.approx(told + 0.001)


def test_a_chip_without_a_network_rate_hands_nothing_over() -> None:
    bare = next(
        s.id
        for s in CAT.systems.values()
        if (chip := CAT.chips[s.chip]).scaleout_bytes_per_s is None
        and s.chips == 1
        and chip.mem_bytes_per_s
        and chip.efficiency
        and CAT.efficiencies[chip.efficiency].machine != "pipeline"
        and chip.mem_bytes is not None
        and chip.mem_bytes.value > 60e9
        and chip.bf16_flop_per_s
    )
    rows = {"a": {**H100, "role": "prefill"}, "b": {**H100, "system": bare, "role": "decode"}}
    with pytest.raises(NoAnswer, match="lacks scaleout_bytes_per_s"):
        specs(**rows)


def test_pairs_are_told_with_their_readiness() -> None:
    rows = {
        "read": {**H100, "role": "prefill"},
        "same": {**H100, "role": "decode"},
        "other": {**H100, "system": "mi300x-x1", "role": "decode"},
        "both": H100,
    }
    found = {(p.prefill, p.decode): p for p in fleet(**rows).pairs}
    assert list(found) == [("read", "same"), ("read", "other")]
    assert found["read", "same"].readiness == "shipping" and found["read", "same"].source.startswith("https://")
    assert found["read", "other"].readiness == "hypothetical" and found["read", "other"].source == "none known"


def test_a_start_takes_as_long_as_loading_the_weights() -> None:
    made = fleet(a={**H100, "load_gb_per_s": 2.0, "autoscale": SCALE, "up": 1})
    d = made.pools[0].deployment
    (spec,) = fleet_specs(made, requests(), "nominal")
    assert spec.start_s == pytest.approx((weights_bytes(d) + draft_bytes(d)) / 2e9) and 6 < spec.start_s < 10
    assert (spec.least, spec.target_inflight, spec.scale_every_s, spec.scale_down_after) == (1, 8.0, 10.0, 1)
    assert spec.instances_up == 1
    (stated,) = specs(a={**H100, "autoscale": SCALE | {"start_s": 30.0, "down_after": 3}})
    assert (stated.start_s, stated.scale_down_after) == (30.0, 3)


def test_groups_of_even_load_take_what_the_step_table_says() -> None:
    """``kv_s`` counts the tokens of all groups: a group alone, on its own chips, takes dp times as long for one."""
    rows: dict[str, Any] = {"system": "h200-x8", "tp": 1, "dp": 8, "ep": 8, "instances": 1}
    made = fleet("gpt-oss-120b", a=rows)
    (spec,) = fleet_specs(made, requests(), "nominal")
    d = made.pools[0].deployment
    alone = msgspec.structs.replace(d, dp=1, ep=1)
    assert spec.ranks == d.dp == 8
    assert spec.ranks * spec.kv_s == pytest.approx(roofline.kv_s(alone))
    assert spec.ranks * spec.pair_s == pytest.approx(roofline.pair_s(alone))
    assert specs(a={"system": "h200-x8", "tp": 8, "instances": 1})[0].ranks == 1


def test_speculation_gives_the_tokens_of_the_draft() -> None:
    (plain,), (spec,) = specs(a=H100), specs(a={**H100, "spec": "eagle:3:2.4"})
    assert (spec.accepted_per_step, spec.accepted_most) == (2.4, 4) and 0 < spec.accepted_variance < 3
    made = fleet(a={**H100, "spec": "eagle:3:2.4"}).pools[0].deployment
    assert np.array_equal(spec.decode_s, compile_table(made).decode_s) and spec.decode_s[1] > plain.decode_s[1]


@pytest.mark.parametrize(("depth", "mean"), [(1, 1.8), (2, 2.3), (3, 2.5), (4, 1.0), (2, 3.0), (3, 3.97)])
def test_the_variance_is_that_of_all_outcomes(depth: int, mean: float) -> None:
    """Every outcome of the drafted tokens, each accepted or not, with its probability."""
    spec = Speculation("eagle", depth, mean)
    p = acceptance(spec)
    first = second = 0.0
    for outcome in product((True, False), repeat=depth):
        kept = 1 + next((i for i, yes in enumerate(outcome) if not yes), depth)
        chance = float(np.prod([p if yes else 1 - p for yes in outcome]))
        first, second = first + chance * kept, second + chance * kept**2
    assert first == pytest.approx(mean, abs=1e-9)
    assert accepted_variance(spec) == pytest.approx(second - first**2, abs=1e-9)
