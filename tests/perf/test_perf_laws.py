"""Physical laws of single step tables, over every model on every chip of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from infermix.arrays import Floats
from infermix.perf import dataflow
from infermix.perf.deployment import BLOCK_TOKENS, Deployment
from tests.naive import perf_chip, perf_memory
from tests.naive import perf_model as count
from tests.perf.deployments import CAT, ROUNDING, TIMES, Run, runs_on, systems_by_chip

RUNNING = [chip for chip in sorted(systems_by_chip()) if not CAT.chips[chip].no_speed]


@pytest.fixture(scope="module", params=RUNNING)
def runs(request: pytest.FixtureRequest) -> list[Run]:
    return runs_on(request.param)


@dataclass(frozen=True)
class Counts:
    """What the twin counts of a model in these dtypes."""

    weights: float
    """Bytes of blocks without experts."""
    experts: float
    vocabulary: float
    flop: float
    reach_flop: float
    read_flop: float
    pair_flop: float
    kept: float
    read: float
    windows: float
    """Bytes of windows that a sequence keeps, each KV head once."""
    states: float
    contexts: dict[int, float]
    """Bytes that a decoding token reads at these contexts."""


@cache
def counts(model_id: str, weights: str, kv: str) -> Counts:
    model = CAT.models[model_id]
    none = count.line_bytes(model, weights, 0)
    windows = sum(
        (model.sliding_window or 0) * count.block_kv_bytes(model, kv, block)
        for block in count.blocks_of(model)
        if block == "sliding"
    )
    return Counts(
        weights=none,
        experts=count.line_bytes(model, weights, model.experts) - none,
        vocabulary=count.vocabulary_bytes(model),
        flop=count.token_flop(model),
        reach_flop=count.reach_flop(model),
        read_flop=count.context_read_flop(model),
        pair_flop=count.context_pair_flop(model),
        kept=count.kept_kv_bytes(model, kv),
        read=count.read_kv_bytes(model, kv),
        windows=windows,
        states=count.state_bytes(model),
        contexts={context: count.context_kv_bytes(model, kv, context) for context in (1, 200, 30_000)},
    )


def of(run: Run) -> Counts:
    return counts(run.d.model.id, run.d.weights, run.d.kv)


def width_of(d: Deployment) -> int:
    """Tokens that a step computes for each sequence."""
    return 1 + (d.spec.depth if d.spec else 0)


def bandwidth(d: Deployment) -> float:
    """Bytes a second of all chips."""
    rate = d.chip.sram_bytes_per_s if d.is_pipeline else d.chip.mem_bytes_per_s
    return perf_memory.chips(d) * perf_chip.value(rate)


def peak(d: Deployment) -> float:
    """Dense FLOP a second of all chips, of whichever unit is faster for these weights."""
    return perf_memory.chips(d) * max(perf_chip.peak(d.chip, dtype).rate for dtype in (d.weights, "bf16"))


def weights_read(run: Run) -> Floats:
    """Bytes of weights that steps read at least, over all chips.

    Each of ``pp`` microbatches reads all stages' weights in turn; each ``dp`` group its own copy, and of experts
    what its share of the tokens reaches (with ``ep``: what the tokens of all groups reach, once).
    """
    d, model = run.d, run.d.model
    always, experts = of(run).weights, of(run).experts
    if d.chip.only_models:
        return 0 * run.tokens
    head = 0.0 if d.is_pipeline else count.BF16 * model.hidden * model.vocab
    total = d.dp * d.pp * (always + head) + 0 * run.tokens
    if model.experts:
        copies = d.dp if d.ep == 1 else 1
        mine = np.maximum(1, run.tokens * width_of(d) / d.pp / copies)
        total += copies * d.pp * experts * (1 - (1 - model.active_experts / model.experts) ** mine)
    return total


def test_no_step_beats_the_bandwidth(runs: list[Run]) -> None:
    """Weights (of experts those touched) and the KV cache of the batch, over all bandwidth."""
    for run in runs:
        weights = weights_read(run) / bandwidth(run.d)
        for context in (1, 200, 30_000):
            kv = of(run).contexts[context] * run.tokens / bandwidth(run.d)
            if run.d.is_pipeline:  # windows and states lie within the time of a layer
                kv = 0 * kv
            assert (run.decode_s(context) >= (weights + kv) * (1 - ROUNDING)).all(), f"{run} at {context} of context"
        assert run.t.kv_s >= of(run).read / bandwidth(run.d) * (1 - ROUNDING), str(run)


def test_no_step_beats_the_arithmetic(runs: list[Run]) -> None:
    for run in runs:
        model, width = run.d.model, width_of(run.d)
        flop = of(run).flop
        logits = 0.0 if run.d.is_pipeline else 2.0 * model.hidden * model.vocab
        reach = 0.0 if run.d.is_pipeline else of(run).reach_flop
        for context in (0, 30_000):
            read = context * of(run).read_flop
            work = run.tokens * width * (flop + logits + reach + read)
            assert (run.decode_s(context) >= work / peak(run.d) * (1 - ROUNDING)).all(), f"{run}: decode"
        pairs = run.tokens * (run.tokens + 1) / 2
        work = run.tokens * (flop + reach) + pairs * of(run).pair_flop
        prompt = run.t.mixed_s + run.t.pair_s * pairs
        assert (prompt >= work / peak(run.d) * (1 - ROUNDING)).all(), f"{run}: prompt"


def test_every_number_is_finite_and_not_negative(runs: list[Run]) -> None:
    for run in runs:
        sees = of(run).kept > 0
        zero = {"per_seq_s"} if run.d.is_pipeline else {"load_s"}
        zero |= set() if sees else {"kv_s", "pair_s", "load_s"}
        for name in TIMES:
            times = np.asarray(getattr(run.t, name))
            assert np.isfinite(times).all(), f"{run}: {name}"
            assert (times == 0).all() if name in zero else (times > 0).all(), f"{run}: {name}"
        assert run.t.blocks >= 1 and 0 < run.t.low <= 1 <= run.t.high < np.inf, str(run)


def test_weights_and_cache_stay_within_the_memory(runs: list[Run]) -> None:
    for run in runs:
        d, model = run.d, run.d.model
        memory = perf_memory.chips(d) * perf_chip.value(d.chip.sram_bytes if d.is_pipeline else d.chip.mem_bytes)
        own = of(run)
        held = d.dp * (own.weights + own.vocabulary) + (1 if d.ep > 1 else d.dp) * own.experts
        held = 0.0 if d.chip.only_models else held
        held += d.max_num_seqs * (own.windows + own.states)
        copies = d.tp if model.mla_kv_lora else max(1, d.tp / model.kv_heads)
        held += run.t.blocks * BLOCK_TOKENS * own.kept * copies
        assert held <= memory * d.efficiency.figures["memory_use"].value * (1 + ROUNDING), str(run)
        assert d.efficiency.figures["memory_use"].value <= 1, str(run)


def test_more_tokens_take_longer_and_larger_batches_serve_more(runs: list[Run]) -> None:
    """Batches in whole multiples of ``pp`` x ``dp``: what does not divide evenly waits for the fullest group."""
    for run in runs:
        for name in ("decode_s", "mixed_s"):
            times = getattr(run.t, name)
            assert (np.diff(times) >= -ROUNDING * times[:-1]).all(), f"{run}: {name}"
        assert (run.t.mixed_s >= run.t.decode_s * (1 - ROUNDING))[run.tokens <= run.d.max_num_seqs].all(), str(run)
        short, long = run.decode_s(100), run.decode_s(10_000)
        assert (long >= short).all(), str(run)
        assert (np.diff(long) >= -ROUNDING * long[:-1]).all(), str(run)
        even = run.tokens % (run.d.pp * run.d.dp) == 0
        speed = (run.tokens / short)[even]
        assert (np.diff(speed) >= -ROUNDING * speed[:-1]).all(), f"{run}: throughput falls with the batch"


def test_sram_machines_are_flat_while_there_are_no_more_users_than_layers(runs: list[Run]) -> None:
    for run in runs:
        if run.d.is_pipeline:
            line = dataflow.places(run.d)
            assert line >= run.d.model.layers
            flat = run.t.decode_s[run.tokens <= line]
            assert (flat == flat[0]).all(), str(run)
            assert (run.t.decode_s[run.tokens > line] > flat[0]).all(), str(run)
            assert run.t.issue_interval_s * line <= run.t.latency_s * (1 + ROUNDING), str(run)


def test_a_token_alone_takes_no_less_than_the_interval(runs: list[Run]) -> None:
    for run in runs:
        assert run.t.latency_s == run.t.decode_s[0] + run.t.per_seq_s, str(run)
        assert run.t.issue_interval_s <= run.t.latency_s, str(run)


def test_twice_the_speed_halves_every_time(runs: list[Run]) -> None:
    for run in runs[::10]:
        twice, low, high = run.t.at_speed(2), run.t.at_speed(run.t.low), run.t.at_speed(run.t.high)
        for name in TIMES:
            before, after = np.asarray(getattr(run.t, name)), np.asarray(getattr(twice, name))
            assert (after == before / 2).all(), f"{run}: {name}"
            assert (np.asarray(getattr(low, name)) >= before).all(), f"{run}: {name}"
            assert (np.asarray(getattr(high, name)) <= before).all(), f"{run}: {name}"
        assert twice.blocks == run.t.blocks and twice.tokens_per_step == run.t.tokens_per_step
