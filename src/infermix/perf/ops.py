"""Operators on chips that stream weights: ``max(arithmetic, bytes) + floor``, arrays over tokens in, seconds out."""

from __future__ import annotations

import numpy as np

from infermix.arrays import Floats
from infermix.catalog.records import Chip, Efficiency
from infermix.errors import NoAnswer
from infermix.perf.deployment import BYTES_PER_WEIGHT
from infermix.perf.model_cost import ACTIVATION_BYTES


def peak_flop_per_s(chip: Chip, weights: str) -> tuple[float, str]:
    """(dense peak, name of its figure) of the arithmetic that multiplies weights of this dtype.

    nvfp4 runs at the fp4 rate where there is one; mxfp4 weights meet 8-bit activations on chips with
    fp4 units and are widened to bf16 elsewhere; 8-bit weights run at the fp8 (else int8) rate.
    """
    wanted = {
        "nvfp4": ("fp4_flop_per_s", "fp8_flop_per_s", "bf16_flop_per_s"),
        "mxfp4": ("fp8_flop_per_s",) if chip.fp4_flop_per_s else ("bf16_flop_per_s",),
        "fp8": ("fp8_flop_per_s", "bf16_flop_per_s"),
        "int8": ("int8_op_per_s", "bf16_flop_per_s"),
    }.get(weights, ("bf16_flop_per_s",))
    for name in (*wanted, "bf16_flop_per_s", "fp8_flop_per_s", "int8_op_per_s"):
        figure = getattr(chip, name)
        if figure is not None:
            return figure.value, name
    raise NoAnswer(f"{chip.id}: no peak arithmetic rate is known")


def attention_peak_flop_per_s(chip: Chip) -> float:
    """Dense peak at which attention multiplies: 16 bits where the chip has them [FLOP/s]."""
    return peak_flop_per_s(chip, "bf16")[0]


def gemm_s(
    chip: Chip,
    efficiency: Efficiency,
    weights: str,
    tokens: Floats,
    rows: float,
    columns: float,
    *,
    matrices: Floats | float = 1.0,
) -> Floats:
    """Seconds to multiply ``tokens`` rows by ``matrices`` matrices of ``rows x columns`` that share the tokens."""
    f = efficiency.figures
    peak, name = peak_flop_per_s(chip, weights)
    reached = f["gemm_flop_fp8"].value if name in ("fp8_flop_per_s", "fp4_flop_per_s") else f["gemm_flop"].value
    assert chip.mem_bytes_per_s is not None
    arithmetic = 2.0 * tokens * rows * columns / (reached * peak)
    moved = matrices * rows * columns * BYTES_PER_WEIGHT[weights] + tokens * (rows + columns) * ACTIVATION_BYTES
    return (
        np.maximum(arithmetic, moved / (f["gemm_bytes"].value * chip.mem_bytes_per_s.value)) + f["gemm_floor_s"].value
    )
