"""The step table: a deployment compiled to what the simulator and the emulator read.

``t = base(T) + per_seq_s D + kv_s K + pair_s Q + load_s C`` with T tokens in the step, D sequences,
K KV tokens read, Q prompt token x context pairs and C cached tokens brought in; ``base`` is
``decode_s`` without a prompt chunk and ``mixed_s`` with one (``docs/design/simulator.md``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from infermix.arrays import Floats
from infermix.catalog import shape
from infermix.catalog.measured import Measured
from infermix.errors import NoAnswer
from infermix.perf import dataflow, roofline
from infermix.perf.deployment import BLOCK_TOKENS, Deployment, check_deployment
from infermix.perf.measured import base_s, measured_of
from infermix.perf.memory import kv_blocks, kv_tokens_left

TABLE_VERSION = 1


@dataclass(frozen=True)
class StepTable:
    """Compiled step times of one deployment.

    Attributes
    ----------
    decode_s, mixed_s
        Seconds over T = 0 .. max_batched_tokens; T = 0 repeats T = 1.
    per_seq_s, kv_s, pair_s, load_s
        Linear terms [s].
    latency_s, issue_interval_s
        One token alone through the machine, and the least time between two of them [s].
    tokens_per_step
        Output tokens that a sequence gets from a step (1 without speculative decoding).
    low, high
        Factors on *speed* at the ends of the interval; times at ``low`` speed are ``1/low`` as long.
    valid_tokens
        Largest T the table was made for.
    """

    decode_s: Floats
    mixed_s: Floats
    per_seq_s: float
    kv_s: float
    pair_s: float
    load_s: float
    latency_s: float
    issue_interval_s: float
    block_tokens: int
    blocks: int
    valid_tokens: int
    low: float
    high: float
    tokens_per_step: float = 1.0
    version: int = TABLE_VERSION

    @property
    def hash(self) -> str:
        """Content hash: equal tables, equal hash."""
        digest = hashlib.sha256(np.concatenate([self.decode_s, self.mixed_s]).tobytes())
        scalars = [getattr(self, f.name) for f in fields(self) if f.name not in ("decode_s", "mixed_s")]
        digest.update(repr(scalars).encode())
        return digest.hexdigest()[:16]

    def at_speed(self, factor: float) -> StepTable:
        """The same machine, faster (> 1) or slower (< 1) throughout."""
        decode_s = self.decode_s / factor
        return replace(
            self,
            decode_s=decode_s,
            mixed_s=decode_s if self.mixed_s is self.decode_s else self.mixed_s / factor,
            per_seq_s=self.per_seq_s / factor,
            kv_s=self.kv_s / factor,
            pair_s=self.pair_s / factor,
            load_s=self.load_s / factor,
            latency_s=self.latency_s / factor,
            issue_interval_s=self.issue_interval_s / factor,
        )


_COMPILED: dict[bytes, StepTable] = {}
MOST_COMPILED = 2048
"""Tables remembered (up to 128 kB each); beyond that all are forgotten."""


def compile_table(deployment: Deployment) -> StepTable:
    """Compile a deployment.

    Raises
    ------
    InputError
        The parallelism or a dtype does not go with the machine.
    NoAnswer
        The model does not fit, or the chip lacks a figure that step time needs.
    """
    key = msgspec.json.encode(deployment)
    if key not in _COMPILED:
        if len(_COMPILED) >= MOST_COMPILED:
            _COMPILED.clear()
        _COMPILED[key] = _compile(check_deployment(deployment))
    return _COMPILED[key]


def _compile(d: Deployment) -> StepTable:
    refuse_unfit(d)
    tokens = np.arange(d.max_batched_tokens + 1, dtype=np.float64)
    tokens[0] = 1.0
    return table_at(d, tokens)


def table_at(d: Deployment, tokens: Floats) -> StepTable:
    """Step times of a deployment that fits, at these tokens alone; a table proper has all up to max_batched_tokens."""
    own = measured_of(d)
    if own is not None:
        return _measured_table(d, own, tokens)
    machine = dataflow if d.is_pipeline else roofline
    decode = machine.decode_s(d, tokens)
    per_seq = 0.0 if d.is_pipeline else roofline.per_seq_s(d)
    one_stage = not d.is_pipeline and d.pp == 1 and d.spec is None
    latency = float(decode[0]) + per_seq
    low, high = speed_interval(d)
    return StepTable(
        decode_s=decode,
        mixed_s=decode + roofline.prompt_launches_s(d) if one_stage else machine.mixed_s(d, tokens),
        per_seq_s=per_seq,
        kv_s=machine.kv_s(d),
        pair_s=machine.pair_s(d),
        load_s=dataflow.load_s(d) if d.is_pipeline else 0.0,
        latency_s=latency,
        issue_interval_s=dataflow.issue_interval_s(d) if d.is_pipeline else latency / d.pp,
        block_tokens=BLOCK_TOKENS,
        blocks=kv_blocks(d),
        valid_tokens=d.max_batched_tokens,
        low=low,
        high=high,
        tokens_per_step=d.spec.accepted_per_step if d.spec else 1.0,
    )


def _measured_table(d: Deployment, own: Measured, tokens: Floats) -> StepTable:
    """Step times as they were measured, prompts in them or not."""
    base = base_s(own, tokens)
    latency = float(base[0]) + own.seq_s
    return StepTable(
        decode_s=base, mixed_s=base, per_seq_s=own.seq_s, kv_s=own.kv_s, pair_s=own.pair_s, load_s=0.0,
        latency_s=latency, issue_interval_s=latency, block_tokens=BLOCK_TOKENS,
        blocks=kv_blocks(d) if own.kv_tokens is None else own.kv_tokens // BLOCK_TOKENS,
        valid_tokens=d.max_batched_tokens, low=own.low, high=own.high,
    )  # fmt: skip


def refuse_unfit(d: Deployment) -> None:
    """Raise ``NoAnswer`` where a figure is missing or the model does not fit."""
    missing = missing_figures(d)
    if missing:
        raise NoAnswer(f"{d.chip.id}: no step time, the catalogue lacks {', '.join(missing)}")
    own = measured_of(d)
    left = kv_tokens_left(d) if own is None or own.kv_tokens is None else own.kv_tokens
    if left < BLOCK_TOKENS:
        raise NoAnswer(f"{d.model.id} does not fit on {d.name}: {left:,} KV tokens left")


def missing_figures(d: Deployment) -> list[str]:
    """Names of the chip's figures without which there is no step time."""
    chip = d.chip
    peaks = (chip.bf16_flop_per_s, chip.fp8_flop_per_s, chip.int8_op_per_s)
    needed = {"a peak arithmetic rate": next((p for p in peaks if p), None)}
    if d.is_pipeline:
        needed |= {"sram_bytes": chip.sram_bytes, "sram_bytes_per_s": chip.sram_bytes_per_s}
    else:
        needed |= {"mem_bytes": chip.mem_bytes, "mem_bytes_per_s": chip.mem_bytes_per_s}
        if d.chips > 1 and d.system.chips > 1:
            needed["link_bytes_per_s"] = chip.link_bytes_per_s
        if d.chips > d.system.chips:
            needed["scaleout_bytes_per_s"] = chip.scaleout_bytes_per_s
    return [name for name, figure in needed.items() if figure is None or not figure.value]


def speed_interval(d: Deployment) -> tuple[float, float]:
    """Ends of the interval of speed as factors: the family's, MoE models' own, wider where a model is a guess.

    A closed model stands for a range of active parameters; its steps may be as much faster or slower.
    """
    figures = d.efficiency.figures
    figure = figures.get("speed_moe", figures["speed"]) if d.model.experts else figures["speed"]
    high = figure.high or 1.0
    if not d.is_pipeline:
        high = min(high, *(1.0 / figures[name].value for name in _shares_of_peak(d)))
    low, active = figure.low or 1.0, d.model.active_params
    if d.model.closed and active.low and active.high:
        return low * active.value / active.high, high * active.value / active.low
    return low, high


_SHARES_OF_PEAK = ("gemm_flop", "gemm_flop_fp8", "gemm_flop_fp4", "gemm_bytes", "attention_bytes", "attention_flop")
"""No interval may reach beyond the datasheet: share of peak times ``high`` stays at or below 1."""


def _shares_of_peak(d: Deployment) -> tuple[str, ...]:
    """Those that the model's steps hang on."""
    latent = ("mla_bytes", "mla_flop") if shape.is_mla(d.model) else ()
    experts = ("moe_flop", "moe_flop_narrow", "moe_bytes") if d.model.experts else ()
    return (*_SHARES_OF_PEAK, *latent, *experts)


def step_time_s(deployment: Deployment, *, decode_seqs: ArrayLike, context_tokens: ArrayLike) -> Floats:
    """Seconds of a decode step; arrays broadcast. With speculation a step gives ``tokens_per_step`` tokens.

    Parameters
    ----------
    decode_seqs
        Sequences in the batch, up to ``max_batched_tokens``.
    context_tokens
        Mean context of a sequence [tokens].
    """
    table = compile_table(deployment)
    seqs, context = np.broadcast_arrays(np.asarray(decode_seqs), np.asarray(context_tokens))
    return np.asarray(table.decode_s[seqs] + seqs * (table.per_seq_s + table.kv_s * context))
