"""Fit a deployment to one part of a log, predict the rest, and answer what-ifs on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from infermix.arrays import Bools, Ints
from infermix.errors import InputError
from infermix.measure.again import simulate_again
from infermix.measure.deployed import KV_FACTORS, on_system
from infermix.measure.engine import Engine
from infermix.measure.fit import Fit, best_refined, choices, first_guess, fit, fitted, replay, rough
from infermix.measure.score import compared, errors, loss
from infermix.measure.slices import slices
from infermix.measure.steps import Steps
from infermix.measure.timed import Timed
from infermix.measure.whatif import Known, WhatIf, answer, own_numbers, read_what_if

LEAST_ROWS = 20
"""Requests that a fit needs."""
NEAR = 0.1
"""First step of factors, in logarithms: the catalogue is not far off."""
MOST_FITTED = 3_000
"""Requests that a fit simulates: the first ones."""
DEFAULT_WHAT_IFS = ("traffic=1.3", "instances=2,policy=round_robin", "instances=2,policy=least_wait")
DEFAULT_SYSTEMS = ("h100-x1", "h200-x1", "mi300x-x1")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Choices:
    """What is known of the deployment beside its log; None: found out, or not needed.

    Attributes
    ----------
    share
        Part of the requests, from the first one on, that is fitted.
    system, model
        Names of the catalogue: step times are then the catalogue's with fitted factors.
    steps, engine
        Those of an earlier calibration: nothing is fitted.
    """

    share: float = 0.5
    system: str | None = None
    model: str | None = None
    instances: int = 1
    policy: str = "least_wait"
    max_num_seqs: int | None = None
    max_batched_tokens: int | None = None
    kv_tokens: int | None = None
    steps: Steps | None = None
    engine: Engine | None = None
    what_ifs: tuple[str, ...] | None = None


def backtest(real: Timed, said: Choices, progress: Progress = lambda _: None) -> dict[str, Any]:
    """Fit, predict, and answer what-ifs.

    Raises
    ------
    InputError
        Too few requests, or settings that cannot be.
    """
    changes = _changes(said)
    _check(real, said)
    count = 0 if said.steps is not None else round(said.share * len(real))
    part = np.arange(len(real)) < count
    progress("fitting")
    found = _fit(real, part, said)
    progress("predicting")
    predicted = replay(real, found.steps, found.engine, said.policy)
    rest = ~part
    fills = _memory_fills(real, found, said.policy)
    known = Known(real.requests, found.steps, found.engine, said.policy, said.model, fills)
    told = {
        "log": {
            "source": real.source,
            "format": real.format,
            "requests": len(real),
            "left_out": real.left_out,
            "span_s": float(real.requests.arrival_s[-1]),
            "classes": list(real.requests.class_names),
        },
        "fit": {
            "requests": min(count, MOST_FITTED),
            "kind": "calibration" if said.steps else "factors on the catalogue" if said.system else "own step times",
            "coefficients": int(np.count_nonzero(found.steps.numbers())),
            "loss": found.loss,
            **({"errors": errors(predicted, real, part)} if count else {}),
        },
        "steps": own_numbers(found.steps),
        "engine": msgspec.to_builtins(found.engine) | {"memory_fills": fills},
        "predicted": {
            "requests": int(rest.sum()),
            "unfinished": int(np.isnan(predicted.e2e_s[rest]).sum()),
            "errors": errors(predicted, real, rest),
            "percentiles": compared(predicted, real, rest),
        },
        "by_class": _by(real.requests.class_names, real.requests.class_id.astype(np.int64), predicted, real, rest),
        "by_time": _by(*slices(real.requests.arrival_s, real.began_unix_s), predicted, real, rest),
    }
    progress("what-ifs")
    told["as_it_was"] = answer(known, WhatIf(name="as it was"))
    told["what_if"] = [answer(known, change) for change in changes]
    return told


def _changes(said: Choices) -> list[WhatIf]:
    """Those asked for, else the usual ones."""
    if said.what_ifs is not None:
        return [read_what_if(text) for text in said.what_ifs]
    systems = [name for name in DEFAULT_SYSTEMS if name != said.system] if said.system else []
    return [read_what_if(text) for text in (*DEFAULT_WHAT_IFS, *(f"system={name}" for name in systems))]


def _check(real: Timed, said: Choices) -> None:
    if not 0.0 < said.share < 1.0:
        raise InputError("must be between 0 and 1", where="--fit", value=said.share)
    if said.steps is None and min(said.share, 1.0 - said.share) * len(real) < LEAST_ROWS:
        raise InputError(
            "too few requests to fit one part and predict the rest",
            where=real.source,
            value=len(real),
            allowed=f"{LEAST_ROWS} in each part",
            mend=f"left out: {real.left_out}" if real.left_out else "",
        )
    if said.system is not None and said.model is None:
        raise InputError("which model was served is not said", where="--system", mend="add --model NAME")
    if said.system is not None and said.steps is not None:
        raise InputError("a calibration has step times of its own", where="--system", mend="leave one of them out")


def _fit(real: Timed, part: Bools, said: Choices) -> Fit:
    if said.steps is not None and said.engine is not None:
        every = np.ones(len(real), dtype=np.bool_)
        return Fit(said.steps, said.engine, loss(replay(real, said.steps, said.engine, said.policy), real, every))
    if int(part.sum()) > MOST_FITTED:
        real, part = real.leading(MOST_FITTED), part[:MOST_FITTED]
    settings = {name: getattr(said, name) for name in ("max_num_seqs", "max_batched_tokens", "kv_tokens", "instances")}
    engines = choices(real, part, **settings)
    if said.system is None:
        starts = [first_guess(real, part, overlap=overlap) for overlap in (False, True)]
        return fit(real, part, starts, engines, said.policy)
    assert said.model is not None
    pairs = [on_system(said.system, said.model, real.requests, engine, "--system") for engine in engines]
    fits = [rough(real, part, *pair, said.policy, NEAR) for pair in pairs]
    if said.kv_tokens is None:
        fits = [one for found in fits for one in _with_memory(real, part, found, said.policy)]
    return best_refined(real, part, fits, said.policy)


def _with_memory(real: Timed, part: Bools, found: Fit, policy: str) -> list[Fit]:
    """A fit, where memory fills with several sizes of it: that of the catalogue is computed, not measured."""
    if not _memory_fills(real, found, policy):
        return [found]
    sizes = [int(factor * (found.engine.kv_tokens or 0)) for factor in KV_FACTORS]
    engines = [msgspec.structs.replace(found.engine, kv_tokens=size) for size in sizes]
    return [fitted(real, part, found.steps, engine, policy, 0.1, 0.1) for engine in engines]


def _memory_fills(real: Timed, found: Fit, policy: str) -> bool:
    """Whether KV memory, and not a setting, limits how many run at once."""
    spec = found.steps.spec(found.engine, len(real.requests.class_names))
    run = simulate_again(real.requests, spec, policy)
    return int(run.preemptions.sum()) > 0 or int(run.kv_peak_blocks.max()) >= spec.blocks


def _by(labels: Sequence[str], group: Ints, predicted: Timed, real: Timed, rest: Bools) -> list[dict[str, Any]]:
    """Errors of the part that was predicted, group by group; groups without such requests are left out."""
    told = []
    for code, label in enumerate(labels):
        mine = rest & (group == code)
        if mine.any():
            told.append({"name": label, "requests": int(mine.sum()), "errors": errors(predicted, real, mine)})
    return told
