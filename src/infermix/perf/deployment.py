"""A deployment: one model on one system, with a parallelism, dtypes and engine settings."""

from __future__ import annotations

from typing import Literal

import msgspec

from infermix.catalog.records import Chip, Efficiency, Model, System
from infermix.errors import InputError

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

BYTES_PER_KV = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0}

BLOCK_TOKENS = 16
"""Tokens in a KV block (the default of vLLM on CUDA)."""

MAX_NUM_SEQS = 256
MAX_BATCHED_TOKENS = 8192

Role = Literal["both", "prefill", "decode"]


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What one instance is.

    HBM machines use ``tp`` and ``dp`` inside one system (or ``systems_per_instance`` of them); SRAM
    machines use ``stages``: how many systems (wafers, racks, card sets) stand in line for one replica.
    """

    model: Model
    system: System
    chip: Chip
    efficiency: Efficiency
    tp: int = 1
    dp: int = 1
    stages: int = 0
    weights: str = ""
    kv: str = "bf16"
    role: Role = "both"
    max_num_seqs: int = MAX_NUM_SEQS
    max_batched_tokens: int = MAX_BATCHED_TOKENS

    @property
    def is_pipeline(self) -> bool:
        """Weights and KV cache live in SRAM, layers stand in line."""
        return self.efficiency.machine == "pipeline"

    @property
    def chips(self) -> int:
        """Chips that one instance occupies."""
        return self.stages * self.system.chips if self.is_pipeline else self.tp * self.dp

    @property
    def systems_per_instance(self) -> int:
        """Whole systems that one instance spans (1 when it takes a part of one)."""
        return self.stages if self.is_pipeline else -(-self.chips // self.system.chips)

    @property
    def instances_per_system(self) -> int:
        """Instances that one system hosts (1 when an instance spans several)."""
        return 1 if self.is_pipeline else max(1, self.system.chips // self.chips)

    @property
    def name(self) -> str:
        """Short and unique within a study, such as ``h200-x8 tp8 mxfp4/fp8 64 seqs``."""
        layout = f"x{self.stages}" if self.is_pipeline else f"tp{self.tp}" + (f" dp{self.dp}" if self.dp > 1 else "")
        return f"{self.system.id} {layout} {self.weights}/{self.kv} {self.max_num_seqs} seqs"


def check_deployment(deployment: Deployment) -> Deployment:
    """Return the deployment, or raise InputError naming what does not fit together."""
    d, where = deployment, f"{deployment.model.id} on {deployment.system.id}"
    if d.weights not in BYTES_PER_WEIGHT:
        raise InputError("unknown weight dtype", where=where, value=d.weights, allowed=", ".join(BYTES_PER_WEIGHT))
    if d.kv not in BYTES_PER_KV:
        raise InputError("unknown KV dtype", where=where, value=d.kv, allowed=", ".join(BYTES_PER_KV))
    (_check_stages if d.is_pipeline else _check_parallelism)(d, where)
    _check_model(d, where)
    if not 1 <= d.max_num_seqs <= d.max_batched_tokens:
        allowed = f"1 to {d.max_batched_tokens}"
        raise InputError("max_num_seqs out of range", where=where, value=d.max_num_seqs, allowed=allowed)
    return d


def _check_stages(d: Deployment, where: str) -> None:
    if d.stages < 1:
        allowed = "systems in line for one replica, 1 or more"
        raise InputError("stages missing", where=where, value=d.stages, allowed=allowed)
    if (d.tp, d.dp) != (1, 1):
        allowed = "1 and 1; stages alone lays out SRAM machines"
        raise InputError("tp and dp are for HBM machines", where=where, value=(d.tp, d.dp), allowed=allowed)


def _check_parallelism(d: Deployment, where: str) -> None:
    if d.tp < 1 or d.dp < 1 or d.stages:
        what = "tp and dp must be 1 or more, and stages is for SRAM machines"
        raise InputError(what, where=where, value=(d.tp, d.dp, d.stages))
    if d.model.heads % d.tp:
        allowed = f"divisors of {d.model.heads}"
        raise InputError("tp must divide the attention heads", where=where, value=d.tp, allowed=allowed)
    if d.systems_per_instance > 1:
        allowed = f"up to {d.system.chips}"
        raise InputError("tp x dp exceeds the chips of one system", where=where, value=d.chips, allowed=allowed)


def _check_model(d: Deployment, where: str) -> None:
    if d.model.mla_kv_lora:
        allowed = "dense and MoE models with grouped-query attention"
        raise InputError("models with MLA are not modelled yet", where=where, value=d.model.id, allowed=allowed)
    if d.model.sliding_window and d.model.sliding_layers >= d.model.layers:
        what = "models whose layers all slide are not modelled yet"
        raise InputError(what, where=where, value=d.model.id, allowed="models with a layer of full attention")


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
