"""Speculative decoding: what it can and cannot gain."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from infermix.perf.specdec import Speculation
from infermix.perf.table import compile_table, table_at
from tests.perf.deployments import CAT, ROUNDING, TIMES, WHOLE, Run, deploy, runs_on, systems_by_chip

RUNNING = [chip for chip in sorted(systems_by_chip()) if not CAT.chips[chip].no_speed]


def with_spec(run: Run, spec: Speculation) -> Run:
    d = msgspec.structs.replace(run.d, spec=spec)
    return Run(d, run.tokens, table_at(d, run.tokens))


def gain(spec: Run, none: Run, context: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How much sooner the next token comes, by batch."""
    return none.decode_s(context) / (spec.decode_s(context) / spec.t.tokens_per_step)


@pytest.mark.parametrize("chip", RUNNING)
def test_a_draft_gains_at_most_what_it_keeps(chip: str) -> None:
    """So with one token kept it is never faster than without; drafts of text cost least; deeper ones cost more."""
    for turn, none in enumerate(runs_on(chip)):
        if not WHOLE and turn % 8:
            continue
        depth = 1 + turn // 8 % 4
        text, layer = (with_spec(none, Speculation(method, depth, 1.0)) for method in ("ngram", "eagle"))
        deeper = with_spec(none, Speculation("eagle", depth + 1, 1.0))
        for context in (0, 30_000):
            assert (gain(text, none, context) <= 1 + ROUNDING).all(), str(text)
            assert (gain(layer, none, context) <= gain(text, none, context) * (1 + ROUNDING)).all(), str(layer)
            assert (gain(deeper, none, context) <= gain(layer, none, context) * (1 + ROUNDING)).all(), str(deeper)
        kept = with_spec(none, Speculation("ngram", depth, depth + 1.0))
        assert (gain(kept, none, 100) <= (depth + 1) * (1 + ROUNDING)).all(), str(kept)
        assert none.t.blocks >= text.t.blocks >= layer.t.blocks, str(layer)
        for name in TIMES:
            slower, faster = np.asarray(getattr(layer.t, name)), np.asarray(getattr(none.t, name))
            assert (slower >= faster * (1 - ROUNDING)).all(), f"{layer}: {name}"


@pytest.mark.parametrize(
    ("system", "model", "layout"),
    [
        ("h200-x8", "llama-3.1-70b", {"tp": 8}),
        ("b200-x8", "qwen3-32b", {"tp": 2}),
        ("mi300x-x8", "llama-3.1-8b", {}),
        ("tpu-v6e-x8", "gemma-3-27b", {"tp": 8}),
        ("cs3", "llama-3.1-70b", {"stages": 8}),
    ],
)
def test_the_gain_shrinks_with_the_batch(system: str, model: str, layout: dict[str, int]) -> None:
    """For dense models; with experts the first tokens ahead touch more of them, so mid-sized batches gain most."""
    kept = Speculation("ngram", 3, 2.5)
    none, spec = (compile_table(deploy(system, model, spec=s, **layout)) for s in (None, kept))
    batch = np.arange(1, 2000)
    ratio = none.decode_s[batch] / (spec.decode_s[batch] / spec.tokens_per_step)
    assert (np.diff(ratio) <= 1e-9).all()
    assert ratio[0] > 1.6 and ratio[-1] < ratio[0]


def test_with_few_sequences_text_that_is_always_right_gains_all_of_it() -> None:
    """A 405B in 16 bits waits for its weights: four tokens take as long as one."""
    none, spec = (
        compile_table(deploy("h200-x8", "llama-3.1-405b", tp=8, weights="fp8", spec=s))
        for s in (None, Speculation("ngram", 3, 4.0))
    )
    assert none.decode_s[1] / (spec.decode_s[1] / spec.tokens_per_step) == pytest.approx(4, rel=0.02)


def test_what_a_draft_costs_by_hand() -> None:
    """Two tokens ahead: three are verified, two of 32 layers and two vocabulary projections more."""
    d = deploy("h100-x1", "llama-3.1-8b")
    none = compile_table(d)
    spec = compile_table(msgspec.structs.replace(d, spec=Speculation("eagle", 2, 2.0)))
    f = {name: figure.value for name, figure in d.efficiency.figures.items()}
    read = (4096 * 128_256 * 2 + (4096 + 128_256) * 2) / (f["gemm_bytes"] * 3.35e12)
    head = read + f["gemm_floor_s"]
    layer = (none.decode_s[5] - head - f["host_s"]) / 32
    assert spec.decode_s[5] == pytest.approx(none.decode_s[15] + 2 * (layer + head), rel=1e-6)
    assert spec.per_seq_s == pytest.approx(3 * none.per_seq_s - 2 * f["seq_s"])
    assert spec.kv_s == none.kv_s
    assert spec.tokens_per_step == 2


def test_mtp_needs_a_model_that_was_trained_for_it() -> None:
    assert CAT.models["deepseek-v3"].mtp_layers == 1
    spec = Speculation("mtp", 1, 1.8)
    assert compile_table(deploy("h200-x8", "deepseek-v3", dp=8, ep=8, spec=spec)).tokens_per_step == 1.8
