"""A deployment: one model on one system, with a parallelism, dtypes and engine settings."""

from __future__ import annotations

from typing import Literal

import msgspec

from infermix.catalog.records import Chip, Efficiency, Model, System
from infermix.errors import InputError, NoAnswer
from infermix.perf.specdec import Speculation

BYTES_PER_WEIGHT = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "nvfp4": 0.5625,
    "mxfp4": 0.53125,
    "int4": 0.53125,
}
"""Bytes of a stored weight, block scales included (mxfp4: 32 weights share one byte; nvfp4: 16)."""

BYTES_PER_KV = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "nvfp4": 0.5625, "int4": 0.53125}

BLOCK_TOKENS = 16
"""Tokens in a KV block (the default of vLLM on CUDA)."""

MAX_NUM_SEQS = 256
MAX_BATCHED_TOKENS = 8192

Role = Literal["both", "prefill", "decode"]


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What one instance is.

    Machines that stream weights from memory use ``tp``, ``pp``, ``dp`` and ``ep``; SRAM machines use ``stages``:
    how many systems (wafers, racks, card sets) stand in line for one replica.
    """

    model: Model
    system: System
    chip: Chip
    efficiency: Efficiency
    tp: int = 1
    """Chips that share every layer."""
    pp: int = 1
    """Groups of layers in line."""
    dp: int = 1
    """Groups of ``tp`` chips with sequences of their own; each holds the attention weights."""
    ep: int = 1
    """Groups of chips that share out the experts (at most tp x dp); 1: every ``dp`` group holds all experts."""
    stages: int = 0
    weights: str = ""
    kv: str = "bf16"
    role: Role = "both"
    max_num_seqs: int = MAX_NUM_SEQS
    max_batched_tokens: int = MAX_BATCHED_TOKENS
    spec: Speculation | None = None

    @property
    def is_pipeline(self) -> bool:
        """Weights and KV cache live in SRAM, layers stand in line."""
        return self.efficiency.machine == "pipeline"

    @property
    def chips(self) -> int:
        """Chips that one instance occupies."""
        return self.stages * self.system.chips if self.is_pipeline else self.tp * self.pp * self.dp

    @property
    def systems_per_instance(self) -> int:
        """Whole systems that one instance spans (1 when it takes a part of one)."""
        return self.stages if self.is_pipeline else -(-self.chips // self.system.chips)

    @property
    def instances_per_system(self) -> int:
        """Instances that one system hosts (1 when an instance spans several)."""
        return 1 if self.is_pipeline else max(1, self.system.chips // self.chips)

    @property
    def layout(self) -> str:
        """Parallelism in short, such as ``tp8``, ``dp8 ep8``, ``tp8 pp2`` or ``x4`` on SRAM machines."""
        if self.is_pipeline:
            return f"x{self.stages}"
        sizes = {"tp": self.tp, "pp": self.pp, "dp": self.dp, "ep": self.ep}
        return " ".join(f"{name}{n}" for name, n in sizes.items() if n > 1) or "tp1"

    @property
    def name(self) -> str:
        """Short and unique within a study, such as ``h200-x8 tp8 mxfp4/fp8 64 seqs``."""
        spec = f" {self.spec}" if self.spec else ""
        return f"{self.system.id} {self.layout} {self.weights}/{self.kv} {self.max_num_seqs} seqs{spec}"


def check_deployment(deployment: Deployment) -> Deployment:
    """Return the deployment, or raise InputError naming what does not fit together.

    Raises ``NoAnswer`` where the chip cannot run the model at all.
    """
    d, where = deployment, f"{deployment.model.id} on {deployment.system.id}"
    _check_chip(d)
    if d.weights not in BYTES_PER_WEIGHT:
        raise InputError("unknown weight dtype", where=where, value=d.weights, allowed=", ".join(BYTES_PER_WEIGHT))
    if d.kv not in BYTES_PER_KV:
        raise InputError("unknown KV dtype", where=where, value=d.kv, allowed=", ".join(BYTES_PER_KV))
    (_check_stages if d.is_pipeline else _check_parallelism)(d, where)
    if not 1 <= d.max_num_seqs <= d.max_batched_tokens:
        allowed = f"1 to {d.max_batched_tokens}"
        raise InputError("max_num_seqs out of range", where=where, value=d.max_num_seqs, allowed=allowed)
    if d.spec and d.spec.method == "mtp" and not d.model.mtp_layers:
        allowed = "eagle or ngram, or a model trained to predict further tokens"
        raise InputError("the model has no layers for multi-token prediction", where=where, allowed=allowed)
    return d


def _check_chip(d: Deployment) -> None:
    if d.chip.no_speed:
        raise NoAnswer(f"{d.chip.id}: {d.chip.no_speed}")
    if d.chip.only_models and d.model.id not in d.chip.only_models:
        raise NoAnswer(f"{d.chip.id} is wired for {', '.join(d.chip.only_models)} and runs no other model")


def _check_stages(d: Deployment, where: str) -> None:
    if d.stages < 1:
        allowed = "systems in line for one replica, 1 or more"
        raise InputError("stages missing", where=where, value=d.stages, allowed=allowed)
    if (d.tp, d.pp, d.dp, d.ep) != (1, 1, 1, 1):
        allowed = "1; stages alone lays out SRAM machines"
        what = "tp, pp, dp and ep are for machines that stream weights from memory"
        raise InputError(what, where=where, value=(d.tp, d.pp, d.dp, d.ep), allowed=allowed)


def _check_parallelism(d: Deployment, where: str) -> None:
    if min(d.tp, d.pp, d.dp, d.ep) < 1 or d.stages:
        what = "tp, pp, dp and ep must be 1 or more, and stages is for SRAM machines"
        raise InputError(what, where=where, value=(d.tp, d.pp, d.dp, d.ep, d.stages))
    if d.model.heads % d.tp:
        allowed = f"divisors of {d.model.heads}"
        raise InputError("tp must divide the attention heads", where=where, value=d.tp, allowed=allowed)
    if d.pp > d.model.layers:
        raise InputError("pp exceeds the layers", where=where, value=d.pp, allowed=f"up to {d.model.layers}")
    _check_experts(d, where)
    if d.chips > d.system.chips and d.chips % d.system.chips:
        allowed = f"up to {d.system.chips}, or whole multiples of it over several systems"
        raise InputError("tp x pp x dp does not fill whole systems", where=where, value=d.chips, allowed=allowed)


def _check_experts(d: Deployment, where: str) -> None:
    if d.ep == 1:
        return
    if not d.model.experts:
        raise InputError("ep is for models with experts", where=where, value=d.ep, allowed="1")
    if d.tp * d.dp % d.ep or d.ep > d.model.experts:
        allowed = f"divisors of tp x dp = {d.tp * d.dp}, up to {d.model.experts} experts"
        raise InputError("ep does not divide the chips", where=where, value=d.ep, allowed=allowed)


def narrowest_bits(chip: Chip, efficiency: Efficiency) -> int:
    """Fewest bits in which this chip's software is known to keep weights.

    A family may state it (``narrowest_weight_bits``); else it follows from the arithmetic of the datasheet.
    """
    stated = efficiency.figures.get("narrowest_weight_bits")
    if stated is not None:
        return int(stated.value)
    if chip.fp4_flop_per_s is not None:
        return 4
    return 8 if chip.fp8_flop_per_s is not None or chip.int8_op_per_s is not None else 16


def best_weights(model: Model, chip: Chip, efficiency: Efficiency) -> str:
    """Native dtype of the model where the chip can keep it, else the next wider one that it can."""
    bits = narrowest_bits(chip, efficiency)
    native = model.native_weights
    if BYTES_PER_WEIGHT.get(native, 2.0) * 8 >= bits:
        return native if native in BYTES_PER_WEIGHT else "bf16"
    if bits > 8:
        return "bf16"
    return "fp8" if chip.fp8_flop_per_s is not None else "int8"


def can_keep_kv(chip: Chip, kv: str) -> bool:
    """16-bit KV anywhere; narrower KV where the chip has arithmetic as narrow, or 8-bit for 4-bit KV."""
    eight = chip.fp8_flop_per_s or chip.int8_op_per_s
    needs = {
        "fp8": chip.fp8_flop_per_s,
        "int8": chip.int8_op_per_s,
        "nvfp4": chip.fp4_flop_per_s,
        "int4": eight,
    }
    return kv not in needs or needs[kv] is not None
