"""How long an emulated answer is: what the request asks for, else drawn by lot, the same for the same prompt."""

from __future__ import annotations

import math
import zlib

import msgspec
import numpy as np

from infermix.rng import u01
from infermix.serve.openai import ApiError, Wanted

LONGEST = 1 << 20


class Lengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table ``[answers]``: lengths of answers where a request does not say ``ignore_eos``."""

    median_tokens: float = 200.0
    spread: float = 0.8
    """Of the logarithm: about two thirds lie within a factor e^spread of the median."""
    seed: int = 0


class Asked(msgspec.Struct):
    """What engines take beyond what gateways look at."""

    min_tokens: int | None = None
    emulate_output_tokens: int | None = None
    """Tokens that the model would say if it was not cut off; known to emulated engines only."""
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None


_READ = msgspec.json.Decoder(Asked)


def read_asked(body: bytes) -> Asked:
    """The rest of a request.

    Raises
    ------
    ApiError
        400: a field that cannot be, or that an emulated engine does not know.
    """
    try:
        asked = _READ.decode(body)
    except msgspec.ValidationError as fault:
        raise ApiError(400, str(fault), code="invalid_value") from None
    for name in ("logprobs", "top_logprobs", "echo", "suffix"):
        if getattr(asked, name):
            raise ApiError(400, f"{name} is not emulated", param=name, code="unsupported_parameter")
    if (asked.best_of or 1) > 1:
        raise ApiError(400, "best_of is not emulated", param="best_of", code="unsupported_parameter")
    return asked


def answer_tokens(lengths: Lengths, wanted: Wanted, asked: Asked, prompt: bytes, choice: int) -> tuple[int, bool]:
    """Length of an answer, and whether the model came to its own end."""
    most = wanted.most_tokens or LONGEST
    if wanted.ignore_eos:
        return (most, False) if most < LONGEST else (max(1, round(lengths.median_tokens)), True)
    own = asked.emulate_output_tokens or _drawn(lengths, prompt, choice)
    own = max(own, asked.min_tokens or 1, 1)
    return min(own, most), own <= most


def _drawn(lengths: Lengths, prompt: bytes, choice: int) -> int:
    first, second = u01(lengths.seed, choice, np.array([2, 3], dtype=np.int64) * zlib.crc32(prompt))
    normal = math.sqrt(-2.0 * math.log(float(first))) * math.cos(2.0 * math.pi * float(second))
    return max(1, round(lengths.median_tokens * math.exp(lengths.spread * normal)))


def normal_of(seed: int, prompt: bytes, choice: int) -> float:
    """The normal number of a request: how lucky its drafts are."""
    first, second = u01(seed + 1, choice, np.array([5, 7], dtype=np.int64) * zlib.crc32(prompt))
    return math.sqrt(-2.0 * math.log(float(first))) * math.cos(2.0 * math.pi * float(second))
