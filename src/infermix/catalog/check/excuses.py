"""Figures that break a rule and are right all the same: each with its reason and the source that bears it out."""

from __future__ import annotations

import math
from typing import NamedTuple


class Excuse(NamedTuple):
    """One figure that one rule does not apply to, as long as it has this value (SI)."""

    rule: str
    figure: str
    value: float
    source: str
    """An id of sources.toml or an address."""
    reason: str

    def covers(self, value: float) -> bool:
        """Whether the figure still has the value that was found right."""
        return math.isclose(value, self.value, rel_tol=0.03)


_ULTRA = "Blackwell Ultra has three times its 8-bit rate in FP4, and gave up int8 for it"
_MX4 = "Meta's table gives MX4 three times the rate of FP8 from MTIA 450 on"
_GEFORCE = "on GeForce cards 16- and 8-bit floats run at half rate with 32-bit accumulation, integers and FP4 do not"
_TENSTORRENT = "https://docs.tenstorrent.com/aibs/wormhole/specifications.html"
_QUALCOMM = "https://quic.github.io/cloud-ai-sdk-pages/latest/Getting-Started/Architecture"
_RUBIN = "the rack is recalled with 288 PFLOP/s BF16 beside the 1.2 EFLOP/s FP8 that the press bears out"
_RATIO = "narrow_rates_are_small_multiples"

EXCUSES = (
    Excuse(_RATIO, "chips/b300-sxm/fp4_flop_per_s", 14e15, "S1", _ULTRA),
    Excuse(_RATIO, "chips/gb300-nvl72/fp4_flop_per_s", 15e15, "S1", _ULTRA),
    Excuse(_RATIO, "chips/b300-sxm/int8_op_per_s", 153.5e12, "S1", _ULTRA),
    Excuse(_RATIO, "chips/gb300-nvl72/int8_op_per_s", 165e12, "S1", _ULTRA),
    Excuse(_RATIO, "chips/vr200-nvl72/fp8_flop_per_s", 17.5e15, "M", _RUBIN),
    Excuse(_RATIO, "chips/mtia-450/fp4_flop_per_s", 21e15, "S30", _MX4),
    Excuse(_RATIO, "chips/mtia-500/fp4_flop_per_s", 30e15, "S30", _MX4),
    Excuse(
        _RATIO,
        "chips/trainium3/fp8_flop_per_s",
        2517e12,
        "S7",
        "AWS quadrupled 8-bit arithmetic and kept 16-bit as it was",
    ),
    Excuse(_RATIO, "chips/groq-lpu-v1/int8_op_per_s", 750e12, "S19", "188 TFLOP/s FP16, 750 TOP/s int8: four to one"),
    Excuse(_RATIO, "chips/qaic100-ultra/int8_op_per_s", 870e12, _QUALCOMM, "870 TOP/s int8 beside 290 TFLOP/s FP16"),
    Excuse(_RATIO, "chips/wormhole-n150/fp8_flop_per_s", 262e12, _TENSTORRENT, "262 TFLOP/s FP8 beside 74 FP16"),
    Excuse(_RATIO, "chips/wormhole-n300/fp8_flop_per_s", 466e12, _TENSTORRENT, "466 TFLOP/s FP8 beside 131 FP16"),
    Excuse(_RATIO, "chips/rtx-3090/int8_op_per_s", 284e12, "VSPEC", _GEFORCE),
    Excuse(_RATIO, "chips/rtx-4090/int8_op_per_s", 660e12, "VSPEC", _GEFORCE),
    Excuse(_RATIO, "chips/rtx-5090/int8_op_per_s", 838e12, "VSPEC", _GEFORCE),
    Excuse(_RATIO, "chips/rtx-5090/fp4_flop_per_s", 1676e12, "VSPEC", _GEFORCE),
    Excuse(_RATIO, "chips/atom-max/int8_op_per_s", 512e12, "ASCII", "32 TFLOP/s FP16 and 128 TOP/s int8 on each ATOM"),
    Excuse(_RATIO, "chips/corsair/fp4_flop_per_s", 9600e12, "S39", "in memory: 2,400 TOP/s MXINT8, 9,600 MXINT4"),
)
