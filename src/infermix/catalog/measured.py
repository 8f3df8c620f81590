"""Step times of one deployment that ``infermix calibrate --endpoint`` measured, in place of the modelled ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from infermix.errors import InputError

LEAST_DOUBT = 0.05
"""In ln: half of the interval of speed is at least this."""
OF_MEDIAN = 2.44
"""A normal error's 95th percentile over the median of its size."""


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``t = base(T) + seq_s (D + P) + kv_s K + pair_s Q`` of a model on one layout of a system.

    ``base(T)`` is ``step_s + token_s T``, or with ``overlap`` the longer of the two.
    """

    model: str
    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    stages: int = 0
    step_s: float
    token_s: float
    seq_s: float = 0.0
    kv_s: float = 0.0
    pair_s: float = 0.0
    overlap: bool = False
    max_num_seqs: int
    """Most sequences at once that the engine takes."""
    max_batched_tokens: int
    kv_tokens: int | None = None
    """None: not known, so what the catalogue's memory leaves."""
    low: float
    """Slow end of a 90 % interval of speed, as a factor."""
    high: float


class CalibrationFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A ``[calibration.NAME]`` of a study: which file is true of which deployments."""

    file: str
    system: str
    model: str | None = None
    """The study's where none is named."""
    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    stages: int = 0


def read_measured(path: Path, asked: CalibrationFile, model: str) -> Measured:
    """What a file of ``infermix calibrate --endpoint URL --json FILE`` tells of a deployment.

    Raises
    ------
    InputError
        No such file, or not a calibration.
    """
    try:
        raw = msgspec.json.decode(path.read_bytes())
        doubt = max(LEAST_DOUBT, OF_MEDIAN * _median_error(raw))
        steps = {name: value for name, value in raw["steps"].items() if name != "overhead_s"}
        engine = {name: raw["engine"][name] for name in ("max_num_seqs", "max_batched_tokens", "kv_tokens")}
        layout = {name: getattr(asked, name) for name in ("tp", "pp", "dp", "ep", "stages")}
        told = {**steps, **engine, **layout, "model": model, "low": math.exp(-doubt), "high": math.exp(doubt)}
        found = msgspec.convert(told, Measured)
    except OSError:
        raise InputError("cannot be read", where=str(path), allowed="what calibrate --endpoint wrote") from None
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, TypeError, AttributeError) as fault:
        raise InputError(
            "not a calibration", where=str(path), value=str(fault), allowed="what calibrate --endpoint --json wrote"
        ) from None
    times = (found.step_s, found.token_s, found.seq_s, found.kv_s, found.pair_s)
    if min(times) < 0 or not found.step_s + found.token_s > 0 or not math.isfinite(sum(times)):
        raise InputError("step times must be 0 or more, and not all 0", where=str(path), value=str(times))
    if found.max_num_seqs < 1 or found.max_batched_tokens < 1:
        raise InputError("must be 1 or more", where=f"{path}: engine", value=found.max_num_seqs)
    return found


def _median_error(raw: dict[str, Any]) -> float:
    """Of TPOT and E2E: of answers kept from the fit where there are any."""
    held_out = raw["check"] or raw["fit"]
    return max(float(held_out["errors"][name]["median_abs_log_error"]) for name in ("tpot_s", "e2e_s"))
