"""Attention and feed-forward on two machines: the halves of one add up to it, and what does not fit is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from infermix.errors import InputError, NoAnswer
from infermix.perf import model_cost, roofline
from infermix.perf.memory import capacity_bytes
from infermix.perf.predict import predict
from infermix.perf.specdec import Speculation
from infermix.perf.split import _ffn_bytes, fewest_for_ffn, split_speed
from tests.perf.deployments import deploy, with_chip, with_efficiency

CONTEXT = 8000.0


@pytest.mark.parametrize("model", ["llama-3.3-70b", "gpt-oss-120b", "deepseek-v3.2", "qwen3-next-80b-a3b"])
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_halves_on_the_same_machine_add_up_to_its_step(model: str, batch: int) -> None:
    """Both halves on machines alike: all parts of a step are there once, and only the network comes on top."""
    d = deploy("h200-x8", model, tp=8)
    found = split_speed(d, d, batch=batch, context=CONTEXT)
    whole = predict(d, batch=batch, input_tokens=int(CONTEXT), output_tokens=2)
    step = found.attention_s + found.ffn_s
    whole_s = sum(whole.parts_s.values())
    assert step == pytest.approx(whole_s, rel=2e-3), "output adds one token of context"
    assert found.tpot_s == pytest.approx(step + found.network_s)
    assert found.tokens_per_s_user == pytest.approx(1 / found.tpot_s)


def test_the_network_is_crossed_twice_a_layer() -> None:
    d = deploy("h200-x8", "llama-3.3-70b", tp=8)
    one, two = (split_speed(d, d, batch=b, context=CONTEXT).network_s for b in (1, 101))
    start = d.efficiency.figures["internode_start_s"].value
    assert d.chip.scaleout_bytes_per_s is not None
    rate = 8 * d.chip.scaleout_bytes_per_s.value * d.efficiency.figures["internode_bytes"].value
    assert two - one == pytest.approx(2 * 80 * 100 * 8192 * 2 / rate)
    assert one == pytest.approx(2 * 80 * (start + 8192 * 2 / rate))


def test_the_slower_network_rules() -> None:
    a, b = deploy("h200-x8", "llama-3.3-70b", tp=8), deploy("h200-x8", "llama-3.3-70b", tp=1)
    few = split_speed(a, msgspec.structs.replace(a, tp=4), batch=512, context=100).network_s
    many = split_speed(a, a, batch=512, context=100).network_s
    assert few > many and b.chips == 1


def test_two_batches_in_flight_fill_the_idle_half() -> None:
    d, f = deploy("h200-x8", "llama-3.3-70b", tp=8), deploy("cs3", "llama-3.3-70b", stages=3)
    found = split_speed(d, f, batch=32, context=CONTEXT)
    alone = 32 / found.tpot_s
    assert alone < found.tokens_per_s <= 2 * alone
    longest = max(found.attention_s, found.ffn_s, found.network_s)
    assert found.tokens_per_s <= 32 / longest * (1 + 1e-9), "no more than the busiest part lets through"


def test_drafts_share_the_step_between_the_tokens_kept() -> None:
    spec = Speculation("ngram", 2, 2.0)
    d, f = (deploy(s, "llama-3.3-70b", spec=spec, **o) for s, o in (("h200-x8", {"tp": 8}), ("cs3", {"stages": 3})))
    found = split_speed(d, f, batch=8, context=CONTEXT)
    assert found.tpot_s == pytest.approx((found.attention_s + found.ffn_s + found.network_s) / 2)
    with pytest.raises(InputError, match="same speculation"):
        split_speed(d, msgspec.structs.replace(f, spec=None), batch=8, context=CONTEXT)


def test_faster_memory_of_a_half_shortens_that_half_alone() -> None:
    d, f = deploy("h200-x8", "llama-3.3-70b", tp=8), deploy("cs3", "llama-3.3-70b", stages=3)
    assert f.chip.sram_bytes_per_s is not None and d.chip.mem_bytes_per_s is not None
    base = split_speed(d, f, batch=64, context=CONTEXT)
    sram = msgspec.structs.replace(f.chip.sram_bytes_per_s, value=2 * f.chip.sram_bytes_per_s.value)
    hbm = msgspec.structs.replace(d.chip.mem_bytes_per_s, value=2 * d.chip.mem_bytes_per_s.value)
    ffn = split_speed(d, with_chip(f, sram_bytes_per_s=sram), batch=64, context=CONTEXT)
    attention = split_speed(with_chip(d, mem_bytes_per_s=hbm), f, batch=64, context=CONTEXT)
    assert ffn.ffn_s < base.ffn_s and ffn.attention_s == base.attention_s
    assert attention.attention_s < base.attention_s and attention.ffn_s == base.ffn_s


def test_the_half_of_a_wafer_reads_its_weights_and_synchronises() -> None:
    f = deploy("cs3", "llama-3.3-70b", stages=3)
    d = deploy("h200-x8", "llama-3.3-70b", tp=8)
    quiet = with_efficiency(f, "layer_s", 0.0)
    model = f.model
    mlp = 3 * model.hidden * model.ffn * model.layers
    assert f.chip.sram_bytes_per_s is not None and f.chip.bf16_flop_per_s is not None
    found = split_speed(d, quiet, batch=10, context=CONTEXT).ffn_s
    reading = model.layers * mlp * 2 / (f.chips * f.chip.sram_bytes_per_s.value)
    share = f.efficiency.figures["gemm_flop"].value
    reckoning = model.layers * 10 * 2 * mlp / (f.chips * f.chip.bf16_flop_per_s.value * share)
    assert found == pytest.approx(reading + reckoning), "a layer at a time: every layer on 1/L of the silicon"


@pytest.mark.parametrize(("system", "model"), [("cs3", "llama-3.3-70b"), ("groq3-lpx-rack", "deepseek-v3.2")])
def test_the_fewest_machines_hold_the_half_and_one_less_does_not(system: str, model: str) -> None:
    f = deploy(system, model)
    n = fewest_for_ffn(f)
    assert n is not None and n > 1
    held = _ffn_bytes(f)
    assert held <= capacity_bytes(msgspec.structs.replace(f, stages=n))
    assert held > capacity_bytes(msgspec.structs.replace(f, stages=n - 1))
    parts = model_cost.weight_parts(f.model, f.weights)
    assert held == parts.experts + parts.mlp
    assert fewest_for_ffn(deploy("groq-v1-node", "kimi-k2")) is None


def test_what_does_not_fit_or_go_together_is_refused() -> None:
    d, f = deploy("h200-x8", "llama-3.3-70b", tp=8), deploy("cs3", "llama-3.3-70b", stages=1)
    with pytest.raises(NoAnswer, match="feed-forward half"):
        split_speed(d, f, batch=1, context=100)
    enough = msgspec.structs.replace(f, stages=3)
    with pytest.raises(NoAnswer, match="KV tokens left"):
        split_speed(d, enough, batch=4096, context=100_000)
    with pytest.raises(InputError, match="SRAM machine"):
        split_speed(enough, d, batch=1, context=100)
    with pytest.raises(InputError, match="same model"):
        split_speed(d, deploy("cs3", "llama-3.1-70b", stages=3), batch=1, context=100)
    with pytest.raises(InputError, match="pp"):
        split_speed(msgspec.structs.replace(d, pp=2), enough, batch=1, context=100)
    with pytest.raises(NoAnswer, match="scaleout_bytes_per_s"):
        split_speed(with_chip(d, scaleout_bytes_per_s=None), enough, batch=1, context=100)


def test_attention_alone_leaves_more_room_for_contexts() -> None:
    d, f = deploy("h200-x8", "llama-3.3-70b", tp=8), deploy("cs3", "llama-3.3-70b", stages=3)
    found = split_speed(d, f, batch=1, context=100)
    assert found.kv_tokens_left > predict(d, batch=1, input_tokens=100, output_tokens=1).kv_tokens_left
    parts = model_cost.weight_parts(d.model, d.weights)
    free = capacity_bytes(d) - parts.mixers - parts.head - parts.embedding
    assert found.kv_tokens_left == int(free // model_cost.kv_bytes_per_token(d.model, d.kv))
    assert float(roofline.stack_s(d, np.ones(1)).mlp[0]) > 0
