"""Figures that break a rule and are right all the same: each with its reason and the source that bears it out."""

from __future__ import annotations

from typing import NamedTuple


class Excuse(NamedTuple):
    """One figure that one rule does not apply to; ``source`` is an id of sources.toml or an address."""

    rule: str
    figure: str
    source: str
    reason: str


_ULTRA = "Blackwell Ultra has three times its 8-bit rate in FP4, and gave up int8 for it"
_MX4 = "Meta's table gives MX4 three times the rate of FP8 from MTIA 450 on"
_GEFORCE = "on GeForce cards 16- and 8-bit floats run at half rate with 32-bit accumulation, integers and FP4 do not"
_TENSTORRENT = "https://docs.tenstorrent.com/aibs/wormhole/specifications.html"
_RATIO = "narrow_rates_are_small_multiples"

EXCUSES = (
    Excuse(_RATIO, "chips/b300-sxm/fp4_flop_per_s", "S1", _ULTRA),
    Excuse(_RATIO, "chips/gb300-nvl72/fp4_flop_per_s", "S1", _ULTRA),
    Excuse(_RATIO, "chips/b300-sxm/bf16_flop_per_s", "S1", _ULTRA),
    Excuse(_RATIO, "chips/gb300-nvl72/bf16_flop_per_s", "S1", _ULTRA),
    Excuse(_RATIO, "chips/mtia-450/fp4_flop_per_s", "S30", _MX4),
    Excuse(_RATIO, "chips/mtia-500/fp4_flop_per_s", "S30", _MX4),
    Excuse(_RATIO, "chips/trainium3/fp8_flop_per_s", "S7", "AWS quadrupled 8-bit arithmetic and kept 16-bit as it was"),
    Excuse(_RATIO, "chips/groq-lpu-v1/int8_op_per_s", "S19", "188 TFLOP/s FP16 and 750 TOP/s int8: four to one"),
    Excuse(
        _RATIO,
        "chips/qaic100-ultra/int8_op_per_s",
        "https://quic.github.io/cloud-ai-sdk-pages/latest/Getting-Started/Architecture",
        "Qualcomm states 870 TOP/s int8 beside 290 TFLOP/s FP16: three to one",
    ),
    Excuse(_RATIO, "chips/wormhole-n150/fp8_flop_per_s", _TENSTORRENT, "262 TFLOP/s FP8 beside 74 FP16 in its table"),
    Excuse(_RATIO, "chips/wormhole-n300/fp8_flop_per_s", _TENSTORRENT, "466 TFLOP/s FP8 beside 131 FP16 in its table"),
    Excuse(_RATIO, "chips/rtx-3090/int8_op_per_s", "VSPEC", _GEFORCE),
    Excuse(_RATIO, "chips/rtx-4090/int8_op_per_s", "VSPEC", _GEFORCE),
    Excuse(_RATIO, "chips/rtx-5090/int8_op_per_s", "VSPEC", _GEFORCE),
    Excuse(_RATIO, "chips/rtx-5090/fp4_flop_per_s", "VSPEC", _GEFORCE),
    Excuse(_RATIO, "chips/atom-max/int8_op_per_s", "ASCII", "32 TFLOP/s FP16 and 128 TOP/s int8 on each ATOM"),
    Excuse(_RATIO, "chips/corsair/fp4_flop_per_s", "S39", "in-memory multipliers: 2,400 TOP/s MXINT8, 9,600 MXINT4"),
)
