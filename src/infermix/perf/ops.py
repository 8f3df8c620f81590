"""Operators on chips that stream weights: ``joined(arithmetic, bytes) + floor``, arrays over tokens in, seconds out."""

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


def gemm_share(name: str, *, grouped: bool = False) -> str:
    """Figure of the share of a peak that products reach: by the peak's name, and whether experts are grouped.

    >>> gemm_share("fp4_flop_per_s"), gemm_share("bf16_flop_per_s", grouped=True)
    ('gemm_flop_fp4', 'moe_flop')
    """
    if grouped:
        return "moe_flop_narrow" if name in NARROW else "moe_flop"
    return {"fp8_flop_per_s": "gemm_flop_fp8", "fp4_flop_per_s": "gemm_flop_fp4"}.get(name, "gemm_flop")


NARROW = ("fp8_flop_per_s", "fp4_flop_per_s")
"""Peaks whose products quantise their input first."""


def joined(a: Floats, b: Floats, overlap: float) -> Floats:
    """Seconds of two kinds of work that overlap in part: their sum at 1, the longer of the two as it grows.

    ``(a^p + b^p)^(1/p)``: never less than the longer one.
    """
    longer, shorter = np.maximum(a, b), np.minimum(a, b)
    share = shorter / np.maximum(longer, 1e-300)
    return np.asarray(longer * (1.0 + share**overlap) ** (1.0 / overlap))


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
    grouped: bool = False,
) -> Floats:
    """Seconds to multiply ``tokens`` rows by ``matrices`` matrices of ``rows x columns`` that share the tokens.

    ``grouped``: the matrices are experts, each with few of the tokens, so that tiles are half empty and reading one
    expert hides little of the arithmetic of another: the two times add up.
    """
    f = efficiency.figures
    peak, name = peak_flop_per_s(chip, weights)
    assert chip.mem_bytes_per_s is not None
    arithmetic = 2.0 * tokens * rows * columns / (f[gemm_share(name, grouped=grouped)].value * peak)
    moved = matrices * rows * columns * BYTES_PER_WEIGHT[weights] + tokens * (rows + columns) * ACTIVATION_BYTES
    share = f["moe_bytes" if grouped else "gemm_bytes"].value
    overlap = 1.0 if grouped else f["gemm_overlap_narrow" if name in NARROW else "gemm_overlap"].value
    floor = f["gemm_floor_s"].value + (f["quantise_s"].value if name in NARROW else 0.0)
    return joined(arithmetic, moved / (share * chip.mem_bytes_per_s.value), overlap) + floor
