"""What would have happened otherwise: more of the same requests, other chips, another policy, other settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.errors import InputError, near_miss
from infermix.measure.again import simulate_again
from infermix.measure.deployed import on_system
from infermix.measure.engine import Engine
from infermix.measure.steps import OwnSteps, ScaledSteps, Steps
from infermix.measure.timed import simulated
from infermix.metrics.latency import percentiles
from infermix.perf.deployment import MAX_NUM_SEQS
from infermix.rng import u01
from infermix.route.names import POLICIES
from infermix.sim.result import COMPLETED, REFUSED, UNFINISHED, Run
from infermix.workload.requests import Requests, take

COPIES, PLACES = 201, 202
"""Random streams: which requests come again, and when."""
_COUNTS = ("instances", "max_num_seqs", "max_batched_tokens", "kv_tokens")


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """One change; None: as it was."""

    name: str
    traffic: float | None = None
    """Times the requests of the log."""
    system: str | None = None
    policy: str | None = None
    instances: int | None = None
    max_num_seqs: int | None = None
    max_batched_tokens: int | None = None
    kv_tokens: int | None = None


@dataclass(frozen=True)
class Known:
    """What a log, or a calibration, told of a deployment.

    ``model`` is the catalogue's name for the model that was served, where it was said. Where ``memory_fills``, how many
    sequences ran at once says nothing of the engine's limit, so on another system the usual limit holds.
    """

    requests: Requests
    steps: Steps
    engine: Engine
    policy: str
    model: str | None = None
    memory_fills: bool = False


def read_what_if(text: str) -> WhatIf:
    """A change as the command line says it, such as ``traffic=1.3`` or ``instances=2,policy=round_robin``.

    >>> read_what_if("instances=2,policy=round_robin").instances
    2
    """
    keys = [name for name in WhatIf.__struct_fields__ if name != "name"]
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in keys:
            mend = near_miss(key, keys)
            raise InputError("no such change", where="--what-if", value=part, allowed=", ".join(keys), mend=mend)
        found[key] = _value(key, value)
    return WhatIf(name=text.replace(",", ", "), **found)


def _value(key: str, text: str) -> object:
    try:
        value: object = float(text) if key == "traffic" else int(text) if key in _COUNTS else text
    except ValueError:
        raise InputError("not a number", where=f"--what-if {key}", value=text) from None
    if key == "traffic" and not 0.0 < float(text) <= 100.0:
        raise InputError("out of range", where="--what-if traffic", value=text, allowed="above 0, at most 100")
    if key in _COUNTS and int(text) < 1:
        raise InputError("must be 1 or more", where=f"--what-if {key}", value=text)
    if key == "policy" and text not in POLICIES:
        allowed = ", ".join(POLICIES)
        raise InputError(
            "unknown policy", where="--what-if", value=text, allowed=allowed, mend=near_miss(text, POLICIES)
        )
    return value


def answer(known: Known, change: WhatIf) -> dict[str, Any]:
    """Simulate a change; on another system both with the fitted factors carried over and as the catalogue says."""
    engine = _engine(known.engine, change)
    policy = change.policy or known.policy
    if change.policy is not None and engine.instances == 1:
        raise InputError(
            "with one instance every policy is the same",
            where="--what-if",
            value=change.name,
            mend=f"instances=2,policy={change.policy}",
        )
    requests = more(known.requests, change.traffic or 1.0)
    told: dict[str, Any] = {"what": change.name}
    if change.system is None:
        return told | _simulated(requests, known.steps, engine, policy)
    if known.model is None:
        raise InputError(
            "which model was served is not said", where="--what-if", value=change.name, mend="add --model NAME"
        )
    bare_engine = engine if change.kv_tokens else msgspec.structs.replace(engine, kv_tokens=None)
    if known.memory_fills and change.max_num_seqs is None:
        bare_engine = msgspec.structs.replace(bare_engine, max_num_seqs=MAX_NUM_SEQS)
    bare, bare_engine = on_system(change.system, known.model, requests, bare_engine, "--what-if system")
    told |= _simulated(requests, bare, bare_engine, policy)
    if isinstance(known.steps, ScaledSteps):
        carried = msgspec.structs.replace(known.steps, catalogue=bare.catalogue)
        told["carried"] = _simulated(requests, carried, bare_engine, policy)
    return told


def _engine(engine: Engine, change: WhatIf) -> Engine:
    said = {name: value for name in _COUNTS if (value := getattr(change, name)) is not None}
    made = msgspec.structs.replace(engine, **said)
    if made.max_batched_tokens < made.max_num_seqs:
        made = msgspec.structs.replace(made, max_batched_tokens=made.max_num_seqs)
    made.check()
    return made


def more(requests: Requests, factor: float, seed: int = 0) -> Requests:
    """So many times the requests: each comes again, or is left out, by lot.

    A request that comes again does so at a time between its own and that of the next one, so rates by the hour,
    bursts and lengths stay as they were.
    """
    n, whole = len(requests), int(factor)
    row = np.arange(n)
    copies = whole + (u01(seed, COPIES, row) < factor - whole).astype(np.int64)
    of = np.repeat(row, copies)
    again = np.arange(len(of)) - np.repeat(np.cumsum(copies) - copies, copies)
    gap = np.diff(requests.arrival_s, append=requests.arrival_s[-1] + _mean_gap(requests))
    place = u01(seed, PLACES, np.arange(len(of)))
    arrival = requests.arrival_s[of] + np.where(again > 0, place * gap[of], 0.0)
    if not len(of):
        raise InputError("no request is left", where="--what-if traffic", value=factor)
    order = np.argsort(arrival, kind="stable")
    return replace(take(requests, of[order]), arrival_s=arrival[order])


def _mean_gap(requests: Requests) -> float:
    return float(requests.arrival_s[-1] - requests.arrival_s[0]) / max(len(requests) - 1, 1)


def _simulated(requests: Requests, steps: Steps, engine: Engine, policy: str) -> dict[str, Any]:
    """Requests, percentiles of times, output rate, and how busy the engine was."""
    spec = steps.spec(engine, len(requests.class_names))
    run = simulate_again(requests, spec, policy)
    found = simulated(run, steps.overhead_s)
    times: dict[str, Floats] = {"ttft_s": found.ttft_s, "tpot_s": found.tpot_s, "e2e_s": found.e2e_s}
    return {
        "requests": len(requests),
        "completed": int((run.status == COMPLETED).sum()),
        "refused": int((run.status == REFUSED).sum()),
        "unfinished": int((run.status == UNFINISHED).sum()),
        "preemptions": int(run.preemptions.sum()),
        "busy": _busy(run),
        "output_tokens_per_s": _output_rate(run),
        **{name: percentiles(values) for name, values in times.items()},
    }


def _busy(run: Run) -> float:
    """Share of the time that instances were inside steps."""
    return float(run.busy_s.sum() / (len(run.busy_s) * run.simulated_s)) if run.simulated_s > 0 else 0.0


def _output_rate(run: Run) -> float:
    done = run.status == COMPLETED
    return float(run.requests.output_tokens[done].sum() / run.simulated_s) if run.simulated_s > 0 else 0.0


def own_numbers(steps: Steps) -> dict[str, float | bool]:
    """The numbers of step times by their names."""
    told: dict[str, float | bool] = dict(zip(steps.names, steps.numbers().tolist(), strict=True))
    return told | ({"overlap": steps.overlap} if isinstance(steps, OwnSteps) else {})
