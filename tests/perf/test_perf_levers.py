"""Levers: each is a deployment predicted again, none is told that does not help, and the ratios are true."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from infermix.catalog.records import Figure
from infermix.perf.deployment import Deployment
from infermix.perf.levers import Lever, levers
from infermix.perf.predict import predict
from infermix.perf.specdec import Speculation
from tests.perf.deployments import deploy

LOAD = {"batch": 4, "input_tokens": 2000, "output_tokens": 200}


def told(d: Deployment, **load: Any) -> dict[str, Lever]:
    asked = {**LOAD, **load}
    return {lever.change: lever for lever in levers(d, predict(d, **asked), **asked)}


def ratios(d: Deployment, other: Deployment, **load: Any) -> tuple[float, float]:
    now, then = (predict(x, **{**LOAD, **load}) for x in (d, other))
    return now.tpot_s / then.tpot_s, now.ttft_s / then.ttft_s


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ("tp 8 instead of 2", {"tp": 8}),
        ("tp 4 instead of 2", {"tp": 4}),
        ("fp8 weights instead of bf16", {"weights": "fp8"}),
        ("speculative decoding eagle:2:2.3", {"spec": Speculation("eagle", 2, 2.3)}),
    ],
)
def test_a_setting_is_the_deployment_with_it(change: str, options: dict[str, Any]) -> None:
    d = deploy("h200-x8", "llama-3.3-70b", tp=2)
    lever = told(d)[change]
    assert (lever.decode, lever.prompt) == pytest.approx(ratios(d, msgspec.structs.replace(d, **options)))
    assert lever.kind == "setting"


def test_kv_in_fewer_bits_helps_where_contexts_are_long() -> None:
    d = deploy("h200-x8", "llama-3.3-70b", tp=8)
    long = {"batch": 16, "input_tokens": 60_000}
    lever = told(d, **long)["fp8 KV cache instead of bf16"]
    assert (
        lever.decode == pytest.approx(ratios(d, msgspec.structs.replace(d, kv="fp8"), **long)[0]) and lever.decode > 1.2
    )
    assert "fp8 KV cache instead of bf16" not in told(d, batch=1, input_tokens=10)


def test_hardware_is_twice_the_figure() -> None:
    d = deploy("h200-x8", "llama-3.3-70b", tp=8)
    old = d.chip.mem_bytes_per_s
    assert old is not None
    better = msgspec.structs.replace(d.chip, mem_bytes_per_s=msgspec.structs.replace(old, value=2 * old.value))
    lever = told(d)["twice the memory bandwidth"]
    assert (lever.decode, lever.prompt) == pytest.approx(ratios(d, msgspec.structs.replace(d, chip=better)))
    assert lever.kind == "hardware"


def test_half_the_launches_is_half_of_each_overhead() -> None:
    d = deploy("h200-x8", "gpt-oss-120b", tp=8)
    names = ("layer_s", "moe_layer_s", "attention_floor_s", "gemm_floor_s", "quantise_s", "host_s", "seq_s")
    halved = {
        n: msgspec.structs.replace(d.efficiency.figures[n], value=d.efficiency.figures[n].value / 2) for n in names
    }
    figures: dict[str, Figure] = {**d.efficiency.figures, **halved}
    faster = msgspec.structs.replace(d, efficiency=msgspec.structs.replace(d.efficiency, figures=figures))
    assert told(d)["half the time of launches and host"].decode == pytest.approx(ratios(d, faster)[0])


@pytest.mark.parametrize("system", ["h200-x8", "mi300x-x8", "trn2-x16", "gb200-nvl72", "cs3", "l40s-x8", "h100-x1"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-oss-120b", "qwen3-30b-a3b"])
def test_only_what_helps_is_told_best_first(system: str, model: str) -> None:
    stages = {"stages": 8} if system == "cs3" else {}
    d = deploy(system, model, **stages)
    if not predict(d, **LOAD).fits:
        pytest.skip("does not fit on one chip")
    found = list(told(d).values())
    assert all(max(x.decode, x.prompt) >= 1.02 for x in found)
    assert [x.decode for x in found] == sorted((x.decode for x in found), reverse=True)
    assert {x.kind for x in found} <= {"setting", "hardware"}
    for lever in found:
        assert lever.kind == "setting" or (lever.decode >= 1 - 1e-9 and lever.prompt >= 1 - 1e-9), lever


def test_no_setting_is_told_that_the_machine_does_not_have() -> None:
    assert "fp8 weights instead of bf16" not in told(deploy("a100-80-x8", "llama-3.3-70b", tp=8))
    assert not any("tp" in change.split()[:1] for change in told(deploy("h200-x8", "llama-3.3-70b", tp=8)))
    assert any(
        "experts shared out" in c for c in told(deploy("h200-x8", "deepseek-v3.2", tp=8), batch=64, input_tokens=8000)
    )
    assert not any("experts" in change for change in told(deploy("h200-x8", "llama-3.3-70b", tp=8)))
    drafted = deploy("h200-x8", "llama-3.3-70b", tp=8, spec=Speculation("eagle", 2, 2.3))
    assert not any("speculative" in change for change in told(drafted))
    assert any("mtp:2" in change for change in told(deploy("h200-x8", "deepseek-v3.2", tp=8)))


def test_sram_machines_have_levers_of_their_own() -> None:
    found = told(deploy("cs3", "llama-3.3-70b", stages=4))
    assert "half the time of synchronisation" in found and "twice the memory bandwidth" not in found
    assert not any(change.startswith(("tp", "experts")) for change in found)
    assert "4 systems in line instead of 2" in told(deploy("cs3", "gpt-oss-120b", stages=2))


def test_a_change_that_no_longer_fits_is_left_out() -> None:
    """A draft layer takes memory: where hardly any is left, the lever goes."""
    d = deploy("h100-x8", "llama-3.3-70b", tp=4)
    room = predict(d, **LOAD).kv_tokens_left
    full = {"batch": 1, "input_tokens": room - 300, "output_tokens": 200}
    assert predict(d, **full).fits
    assert not any("speculative" in change for change in told(d, **full))
    assert any("speculative" in change for change in told(d))
