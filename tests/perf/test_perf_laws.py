"""Physical laws over every system, model and layout of the catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.arrays import Floats
from infermix.catalog.records import System
from infermix.errors import InfermixError, InputError, NoAnswer
from infermix.perf import table
from infermix.perf.deployment import BLOCK_TOKENS, Deployment
from infermix.perf.table import StepTable, compile_table
from tests.naive import perf as naive
from tests.perf.deployments import (
    ALL_SLIDE,
    CAT,
    MLA_MODELS,
    MODELLED,
    deploy,
    deploy_on,
    is_pipeline,
    largest_systems,
    layouts,
    scaled,
    with_chip,
    with_efficiency,
)

ROUNDING = 1e-12
TIMES = ("decode_s", "mixed_s", "per_seq_s", "kv_s", "pair_s", "load_s", "latency_s", "issue_interval_s")


@cache
def counts(model_id: str, weights: str) -> tuple[float, float, float]:
    """(bytes that every step reads, bytes of one expert in all MoE layers, FLOP of a token), from the twin."""
    model = CAT.models[model_id]
    vocabulary = model.hidden * model.vocab * naive.BF16
    none = sum(naive.layer_bytes(model, weights, layer, 0) for layer in range(model.layers))
    one = sum(naive.layer_bytes(model, weights, layer, 1) for layer in range(model.layers))
    return none + vocabulary, one - none, naive.token_flop(model) + 2 * model.hidden * model.vocab


@dataclass(frozen=True)
class Run:
    """A compiled deployment, and what physics says of it."""

    d: Deployment
    t: StepTable

    @cached_property
    def tokens(self) -> Floats:
        return np.arange(1.0, self.t.valid_tokens + 1)

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second of all chips."""
        chip = self.d.chip
        return self.d.chips * naive.value(chip.sram_bytes_per_s if self.d.is_pipeline else chip.mem_bytes_per_s)

    @cached_property
    def peak(self) -> float:
        """Dense FLOP a second of all chips, of whichever unit is faster for these weights."""
        return self.d.chips * max(naive.peak(self.d.chip, self.d.weights)[0], naive.peak(self.d.chip, "bf16")[0])

    @cached_property
    def weights_read(self) -> Floats:
        """Bytes of weights that steps of T tokens read at least, summed over the DP ranks."""
        always, expert, _ = counts(self.d.model.id, self.d.weights)
        model, mine = self.d.model, np.ceil(self.tokens / self.d.dp)
        if not model.experts:
            return self.d.dp * always + 0.0 * mine
        return self.d.dp * (always + expert * model.experts * (1 - (1 - model.active_experts / model.experts) ** mine))

    @cached_property
    def flop(self) -> Floats:
        """Operations of steps of T decoding sequences, attention left out."""
        return self.tokens * counts(self.d.model.id, self.d.weights)[2]

    def decode_s(self, context: float) -> Floats:
        """Decode steps of T sequences with so much context each."""
        return self.t.decode_s[1:] + self.tokens * (self.t.per_seq_s + self.t.kv_s * context)

    def __str__(self) -> str:
        return f"{self.d.model.id} on {self.d.name}"


def wanted(system_id: str) -> Iterator[Deployment]:
    """Every model in every layout: TP degrees, plain DP, or stages; long tables on the largest of a chip's systems."""
    system = CAT.systems[system_id]
    tokens = {"max_batched_tokens": 8192 if system in largest_systems() else 1024}
    for model_id in MODELLED:
        model = CAT.models[model_id]
        for layout in layouts(system, model):
            yield deploy_on(system, model, **layout, **tokens)
        if system.chips > 1 and not is_pipeline(system):
            yield deploy_on(system, model, tp=1, dp=system.chips, **tokens)


@pytest.fixture(scope="module", params=sorted(CAT.systems))
def runs(request: pytest.FixtureRequest) -> Iterator[list[Run]]:
    """What compiles on one system; what does not has to fail to fit, and to say so."""
    found = []
    for d in wanted(request.param):
        fits, refusal = naive.kv_tokens_left(d), ""
        try:
            found.append(Run(d, compile_table(d)))
        except NoAnswer as said:
            refusal = str(said)
        if refusal:
            assert fits < BLOCK_TOKENS + 1, refusal
            assert f"{d.model.id} does not fit on {d.name}: " in refusal
            assert "KV tokens left" in refusal
        else:
            assert fits > BLOCK_TOKENS - 1, str(found[-1])
    yield found
    table._COMPILED.clear()


def test_something_runs_on_every_system(runs: list[Run]) -> None:
    assert runs


def test_every_number_is_finite_and_positive(runs: list[Run]) -> None:
    for run in runs:
        beside = {"load_s"} if not run.d.is_pipeline else {"per_seq_s"}
        for name in TIMES:
            times = np.asarray(getattr(run.t, name))
            assert np.isfinite(times).all(), f"{run}: {name}"
            assert (times == 0).all() if name in beside else (times > 0).all(), f"{run}: {name}"
        assert run.t.blocks >= 1 and 0 < run.t.low <= 1 <= run.t.high < np.inf, str(run)


def test_no_step_beats_the_bandwidth(runs: list[Run]) -> None:
    """Weights once (of experts those touched) and the KV cache of the batch, over all bandwidth."""
    for run in runs:
        for context in (1, 200, 30_000):
            kv = naive.context_kv_bytes(run.d.model, run.d.kv, context) * run.tokens
            bound = (run.weights_read + kv) / run.bandwidth
            assert (run.decode_s(context) >= bound).all(), f"{run} with {context} tokens of context"


def test_no_step_beats_the_arithmetic(runs: list[Run]) -> None:
    for run in runs:
        assert (run.decode_s(0) >= run.flop / run.peak).all(), f"{run}: decode"
        pairs = run.tokens * (run.tokens + 1) / 2
        attention = pairs * naive.pair_flop(run.d.model) * naive.full_layers(run.d.model)
        flop = run.tokens * naive.token_flop(run.d.model) + attention
        prompt = run.t.mixed_s[1:] + run.t.pair_s * pairs
        assert (prompt >= flop / run.peak).all(), f"{run}: prompt"


def test_weights_and_cache_stay_within_the_memory(runs: list[Run]) -> None:
    for run in runs:
        d, model = run.d, run.d.model
        memory = d.chips * naive.value(d.chip.sram_bytes if d.is_pipeline else d.chip.mem_bytes)
        token = naive.full_layers(model) * naive.token_kv_bytes(model, d.kv) * max(1, d.tp / model.kv_heads)
        held = d.dp * naive.weight_bytes(model, d.weights) + run.t.blocks * run.t.block_tokens * token
        assert held <= memory * d.efficiency.figures["memory_use"].value <= memory, str(run)


def test_more_tokens_take_longer_and_larger_batches_serve_more(runs: list[Run]) -> None:
    for run in runs:
        for name in ("decode_s", "mixed_s"):
            times = getattr(run.t, name)
            assert (np.diff(times) >= -ROUNDING * times[:-1]).all(), f"{run}: {name}"
        assert (
            run.t.mixed_s[: run.d.max_num_seqs + 1] >= run.t.decode_s[: run.d.max_num_seqs + 1] * (1 - ROUNDING)
        ).all()
        short, long = run.decode_s(100), run.decode_s(10_000)
        assert (long > short).all(), str(run)
        assert (np.diff(long) > -ROUNDING * long[:-1]).all(), str(run)
        if run.d.dp == 1:
            speed = run.tokens / short
            assert (np.diff(speed) >= -ROUNDING * speed[:-1]).all(), f"{run}: throughput falls with the batch"


def test_sram_machines_are_flat_while_there_are_no_more_users_than_layers(runs: list[Run]) -> None:
    for run in runs:
        if run.d.is_pipeline:
            layers = run.d.model.layers
            assert (run.t.decode_s[1 : layers + 1] == run.t.decode_s[1]).all(), str(run)
            assert run.t.decode_s[layers + 1] > run.t.decode_s[layers], str(run)
            assert run.t.issue_interval_s * layers <= run.t.latency_s * (1 + ROUNDING), str(run)


def test_more_chips_hold_more_tokens(runs: list[Run]) -> None:
    """Of one model on one system, by TP or by stages."""
    held: dict[str, dict[int, int]] = {}
    for run in runs:
        if run.d.dp == 1:
            held.setdefault(run.d.model.id, {})[run.d.chips] = run.t.blocks
    for model, blocks in held.items():
        assert list(blocks.values()) == sorted(blocks.values()), f"{model}: {blocks}"


def test_twice_the_speed_halves_every_time_and_nothing_else(runs: list[Run]) -> None:
    for run in runs[:: max(1, len(runs) // 20)]:
        twice = run.t.at_speed(2)
        for field in fields(StepTable):
            before, after = getattr(run.t, field.name), getattr(twice, field.name)
            assert np.all(after == before / 2 if field.name in TIMES else after == before), f"{run}: {field.name}"


def test_low_speed_is_slower_and_high_speed_faster(runs: list[Run]) -> None:
    for run in runs[:: max(1, len(runs) // 20)]:
        low, high = run.t.at_speed(run.t.low), run.t.at_speed(run.t.high)
        for name in TIMES:
            slow, middle, fast = (np.asarray(getattr(t, name)) for t in (low, run.t, high))
            assert (slow >= middle).all() and (middle >= fast).all(), f"{run}: {name}"


def reason(d: Deployment) -> str:
    """Why a deployment does not run (``runs`` when it does)."""
    try:
        compile_table(d)
    except InputError as refusal:
        return refusal.what
    except NoAnswer as refusal:
        return "does not fit" if "does not fit" in str(refusal) else str(refusal)
    return "runs"


def test_every_pair_of_the_catalogue_runs_or_says_why() -> None:
    """Best layout of each (system, model) pair; the models that are refused everywhere are the known ones."""
    census: Counter[str] = Counter()
    refused: dict[str, set[str]] = {}
    for system in CAT.systems.values():
        for model in CAT.models.values():
            small = {"max_num_seqs": 64, "max_batched_tokens": 256}
            said = {reason(deploy_on(system, model, **layout, **small)) for layout in layouts(system, model)}
            answer = "runs" if "runs" in said else "; ".join(sorted(said))
            census[answer] += 1
            refused.setdefault(answer, set()).add(model.id)
    table._COMPILED.clear()
    mla, slide = "models with MLA are not modelled yet", "models whose layers all slide are not modelled yet"
    assert set(census) == {"runs", "does not fit", mla, slide}, census
    assert refused[mla] == set(MLA_MODELS) and refused[slide] == set(ALL_SLIDE)
    assert refused["runs"] == set(MODELLED)
    assert census["runs"] > 2 * census["does not fit"] > 0, census
    assert census[mla] == len(MLA_MODELS) * len(CAT.systems)


BETTER_CHIP = (
    "bf16_flop_per_s",
    "fp8_flop_per_s",
    "int8_op_per_s",
    "fp4_flop_per_s",
    "sram_bytes",
    "sram_bytes_per_s",
    "mem_bytes",
    "mem_bytes_per_s",
    "link_bytes_per_s",
)


def not_worse(better: StepTable, base: StepTable, said: str) -> None:
    """Raise unless the better machine is nowhere slower and holds no fewer tokens."""
    for name in TIMES:
        faster, slower = np.asarray(getattr(better, name)), np.asarray(getattr(base, name))
        assert (faster <= slower * (1 + ROUNDING)).all(), f"{said}: {name}"
    assert better.blocks >= base.blocks, f"{said}: blocks"


@pytest.mark.parametrize("system", largest_systems(), ids=lambda system: system.id)
def test_a_better_chip_is_nowhere_worse(system: System) -> None:
    """Larger memory, faster memory, arithmetic or links: one figure at a time."""
    felt: set[str] = set()
    for model_id in MODELLED:
        model = CAT.models[model_id]
        for layout in list(layouts(system, model))[-2:]:
            d = deploy_on(system, model, **layout, max_batched_tokens=1024)
            try:
                base = compile_table(d)
            except InfermixError:
                continue
            for name in BETTER_CHIP:
                figure = getattr(d.chip, name)
                if figure is None or not figure.value:
                    continue
                better = compile_table(with_chip(d, **{name: scaled(figure, 1.5)}))
                not_worse(better, base, f"{model_id} on {d.name} with more {name}")
                felt |= {name} if better.hash != base.hash else set()
    table._COMPILED.clear()
    pipeline = is_pipeline(system)
    assert {"sram_bytes", "sram_bytes_per_s"} <= felt if pipeline else {"mem_bytes", "mem_bytes_per_s"} <= felt
    assert pipeline or "link_bytes_per_s" in felt
    assert felt & {"bf16_flop_per_s", "fp8_flop_per_s", "int8_op_per_s"}


FAMILIES = {
    "ampere": ("a100-80-x8", "llama-3.1-70b", {"tp": 8}),
    "blackwell": ("b200-x8", "gpt-oss-120b", {"tp": 4}),
    "cdna": ("mi300x-x8", "mixtral-8x22b", {"tp": 8}),
    "hopper": ("h200-x8", "glm-4.5-air", {"tp": 8}),
    "neuron": ("trn2-x16", "llama-3.1-70b", {"tp": 16}),
    "tpu": ("tpu-v6e-x8", "qwen3-32b", {"tp": 8}),
    "wafer": ("cs3", "gpt-oss-120b", {"stages": 4}),
    "groq": ("groq-v1-rack", "qwen3-30b-a3b", {"stages": 9}),
    "sram-card": ("corsair-x8", "gpt-oss-20b", {"stages": 4}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_better_efficiencies_are_nowhere_worse(family: str) -> None:
    """Shares and rates up, times of overheads down."""
    system, model, layout = FAMILIES[family]
    d = deploy(system, model, **layout)
    assert d.efficiency.id == family
    base = compile_table(d)
    for name in d.efficiency.figures:
        if name in ("speed", "speed_moe", "narrowest_weight_bits", "memory_use"):
            continue
        lower = name.endswith("_factor") or (name.endswith("_s") and not name.endswith("_per_s"))
        better = compile_table(with_efficiency(d, name, 0.9 if lower else 1.1))
        not_worse(better, base, f"{d.name} with better {name}")
    roomy = compile_table(with_efficiency(d, "memory_use", 1.02))
    assert roomy.blocks > base.blocks
    not_worse(roomy, base, d.name)


@settings(deadline=None, max_examples=60)
@given(
    pair=st.sampled_from([("h200-x8", "tp"), ("b200-x8", "tp"), ("cs3", "stages"), ("groq-v1-rack", "stages")]),
    model=st.sampled_from(MODELLED),
    factor=st.floats(1.0, 10.0),
    names=st.sets(st.sampled_from(BETTER_CHIP), min_size=1),
)
def test_any_better_chip_is_nowhere_worse(pair: tuple[str, str], model: str, factor: float, names: set[str]) -> None:
    system, axis = pair
    ranks = 64 if axis == "stages" else max(tp for tp in (1, 2, 4, 8) if CAT.models[model].heads % tp == 0)
    d = deploy(system, model, max_batched_tokens=512, **{axis: ranks})
    figures = {name: scaled(figure, factor) for name in names if (figure := getattr(d.chip, name)) is not None}
    try:
        base = compile_table(d)
    except NoAnswer:
        return
    not_worse(compile_table(with_chip(d, **figures)), base, f"{model} on {d.name}")


@settings(deadline=None, max_examples=60)
@given(factor=st.floats(0.1, 10.0), again=st.floats(0.1, 10.0), name=st.sampled_from(["h100-x8", "cs3"]))
def test_speeds_multiply(factor: float, again: float, name: str) -> None:
    base = compile_table(deploy(name, "llama-3.1-8b"))
    once, both = base.at_speed(factor).at_speed(again), base.at_speed(factor * again)
    for field in TIMES:
        assert np.allclose(getattr(once, field), getattr(both, field), rtol=1e-12, atol=0), field


def test_narrower_weights_and_cache_are_nowhere_worse() -> None:
    """In bytes: 8-bit beats 16-bit, and 8-bit KV holds about twice the tokens."""
    for system, layout in (("h200-x8", {"tp": 8}), ("b200-x8", {"tp": 8}), ("cs3", {"stages": 8})):
        wide, narrow = (compile_table(deploy(system, "llama-3.1-70b", weights=w, **layout)) for w in ("bf16", "fp8"))
        not_worse(narrow, wide, system)
        small = compile_table(deploy(system, "llama-3.1-70b", weights="bf16", kv="fp8", **layout))
        not_worse(small, wide, system)
        assert small.blocks == pytest.approx(2 * wide.blocks, abs=2)
        assert small.kv_s == wide.kv_s / 2


def test_kv_heads_are_copied_beyond_their_number() -> None:
    """16 ranks on 8 KV heads store each twice: no faster per token than 8 ranks."""
    eight, sixteen = (compile_table(deploy("gb200-nvl72", "llama-3.1-70b", tp=tp)) for tp in (8, 16))
    assert sixteen.kv_s == pytest.approx(eight.kv_s, rel=1e-12)
    assert sixteen.pair_s == pytest.approx(eight.pair_s / 2, rel=1e-12)


def test_equal_tables_have_equal_hashes_and_every_field_counts() -> None:
    base = compile_table(deploy("cs3", "llama-3.1-8b"))
    assert base.at_speed(1.0).hash == base.hash
    for field in fields(StepTable):
        other = replace(base, **{field.name: getattr(base, field.name) + 1})
        assert other.hash != base.hash, field.name
