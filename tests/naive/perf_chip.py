"""A chip's peaks and its collectives."""

from __future__ import annotations

import math
from typing import NamedTuple

from infermix.catalog.records import Chip, Figure
from infermix.perf.deployment import Deployment


def value(figure: Figure | None) -> float:
    """The number, 0 where the catalogue has none."""
    return figure.value if figure is not None else 0.0


class Peak(NamedTuple):
    """A dense peak, the share of it that products reach, and whether its numbers are narrower than bf16."""

    rate: float
    share: str
    narrow: bool
    quantises: bool = False


def peak(chip: Chip, weights: str) -> Peak:
    """The arithmetic that weights of this dtype use."""
    wide, fp8, fp4, int8 = (
        value(figure) for figure in (chip.bf16_flop_per_s, chip.fp8_flop_per_s, chip.fp4_flop_per_s, chip.int8_op_per_s)
    )
    if weights == "nvfp4" and fp4:
        return Peak(fp4, "gemm_flop_fp4", True, True)
    if weights in ("nvfp4", "fp8") and fp8:
        return Peak(fp8, "gemm_flop_fp8", True, True)
    if weights == "mxfp4" and fp4 and fp8:
        return Peak(fp8, "gemm_flop_fp8", True, True)
    if weights == "int8" and int8:
        return Peak(int8, "gemm_flop", True)
    if wide:
        return Peak(wide, "gemm_flop", False)
    if fp8:
        return Peak(fp8, "gemm_flop_fp8", True, True)
    return Peak(int8, "gemm_flop", True)


class Wires:
    """Messages between the chips of a deployment."""

    def __init__(self, d: Deployment) -> None:
        self.d = d
        self.figures = {name: figure.value for name, figure in d.efficiency.figures.items()}

    def link(self, share: str) -> float:
        """Rate of a chip's link in a collective."""
        raw = value(self.d.chip.link_bytes_per_s)
        reached = self.figures[share] * raw
        return reached if "NVSwitch" in self.d.chip.link else min(raw, reached)

    def network(self) -> float:
        """Rate of a chip's port between systems."""
        return self.figures["internode_bytes"] * value(self.d.chip.scaleout_bytes_per_s)

    def systems(self, ranks: int) -> int:
        """Systems that so many ranks fill, one after another."""
        return math.ceil(ranks / self.d.system.chips)

    def all_reduce(self, ranks: int, size: float) -> float:
        """Rings inside each system, then one ring for each share between systems."""
        if ranks == 1:
            return 0.0
        systems = self.systems(ranks)
        inside = ranks / systems
        seconds = 0.0
        if inside > 1:
            around = size * (inside - 1) / inside
            seconds += self.figures["allreduce_start_s"]
            seconds += around / self.link("allreduce_bytes")  # reduce, scattered
            seconds += around / self.link("allreduce_bytes")  # gather
        if systems > 1:
            share = size / inside
            seconds += self.figures["internode_start_s"]
            seconds += 2 * share * (systems - 1) / systems / self.network()
        return seconds

    def all_to_all(self, ranks: int, size: float) -> float:
        """An even share of what a rank sends goes to every rank, itself included."""
        if ranks == 1:
            return 0.0
        systems = self.systems(ranks)
        inside = ranks / systems
        seconds = self.figures["alltoall_start_s"]
        if inside > 1:
            seconds += size / ranks * (inside - 1) / self.link("alltoall_bytes")
        if systems > 1:
            seconds += self.figures["internode_start_s"] + size / ranks * (ranks - inside) / self.network()
        return seconds

    def hop(self, size: float) -> float:
        """From one stage to the next."""
        chip = self.d.chip
        start = self.figures["allreduce_start_s"] if chip.hop_s is None else chip.hop_s.value
        if self.systems(self.d.tp * self.d.pp * self.d.dp) > 1:
            return max(start, self.figures["internode_start_s"]) + size / self.network()
        return start + size / value(chip.link_bytes_per_s)
