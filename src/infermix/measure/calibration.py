"""What a calibration of a running server found, as a file that later questions read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from infermix.errors import InputError
from infermix.measure.engine import Engine
from infermix.measure.fit import choices, first_guess, fit, replay
from infermix.measure.score import compared, errors
from infermix.measure.steps import OwnSteps
from infermix.measure.timed import Timed
from infermix.measure.whatif import own_numbers

CALIBRATION_VERSION = 1
LEAST_ANSWERS = 8
"""Answers that a fit needs."""


def calibrate(
    real: Timed, *, max_num_seqs: int | None = None, max_batched_tokens: int | None = None, kv_tokens: int | None = None
) -> dict[str, Any]:
    """Fit step times to a probe, and hold the simulated closed loops against the measured ones, level by level.

    Raises
    ------
    InputError
        Too few answers.
    """
    names = real.requests.class_names
    check = np.array([name.endswith(", check") for name in names])[real.requests.class_id]
    part = ~check
    if int(part.sum()) < LEAST_ANSWERS:
        raise InputError(
            "too few answers to fit", value=int(part.sum()), allowed=f"{LEAST_ANSWERS} or more", mend=f"{real.left_out}"
        )
    engines = choices(real, part, max_num_seqs=max_num_seqs, max_batched_tokens=max_batched_tokens, kv_tokens=kv_tokens)
    starts = [first_guess(real, part, overlap=overlap) for overlap in (False, True)]
    found = fit(real, part, starts, engines, "least_wait")
    predicted = replay(real, found.steps, found.engine)
    return {
        "version": CALIBRATION_VERSION,
        "requests": len(real),
        "failed": real.left_out,
        "steps": own_numbers(found.steps),
        "engine": msgspec.to_builtins(found.engine),
        "fit": {
            "requests": int(part.sum()),
            "coefficients": int(np.count_nonzero(found.steps.numbers())),
            "loss": found.loss,
            "errors": errors(predicted, real, part),
        },
        "check": {"requests": int(check.sum()), "errors": errors(predicted, real, check)} if check.any() else None,
        "levels": [
            {
                "name": name,
                "requests": int((real.requests.class_id == code).sum()),
                **compared(predicted, real, real.requests.class_id == code),
            }
            for code, name in enumerate(names)
        ],
    }


def read_calibration(path: str | Path) -> tuple[OwnSteps, Engine]:
    """Step times and settings of a calibration that was written as JSON.

    Raises
    ------
    InputError
        No such file, or not a calibration.
    """
    try:
        raw = msgspec.json.decode(Path(path).read_bytes())
        steps = msgspec.convert(raw["steps"], OwnSteps)
        engine = msgspec.convert(raw["engine"], Engine)
    except OSError:
        raise InputError("cannot be read", where=str(path), allowed="what calibrate --endpoint wrote") from None
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, TypeError, UnicodeDecodeError) as fault:
        raise InputError(
            "not a calibration", where=str(path), value=str(fault), allowed="what calibrate --endpoint --json wrote"
        ) from None
    engine.check()
    return steps, engine
