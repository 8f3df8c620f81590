"""Write a stretch of a run for Perfetto."""

from __future__ import annotations

from pathlib import Path

import msgspec

from infermix.errors import InputError
from infermix.sim.trace import trace_events, trace_rows
from infermix.summary.simulation import Simulation
from infermix.summary.table import first_run

MAX_REQUESTS = 200_000
"""More than this in one file is refused: it would take some 200 MB, which viewers open slowly or not at all."""
DEFAULT_S = 60.0
"""Length of the stretch where none is stated [s]."""


def write_trace(found: Simulation, path: str | Path, from_s: float = 0.0, to_s: float | None = None) -> int:
    """Write the requests between two times of the first seed at the first speed; returns how many.

    Raises
    ------
    InputError
        The stretch is empty or too large, or the file cannot be written.
    """
    until = from_s + DEFAULT_S if to_s is None else to_s
    if not 0 <= from_s < until:
        raise InputError(
            "no stretch of time", where="--from, --to", value=(from_s, until), allowed="0 <= from < to, seconds"
        )
    run = first_run(found)
    n = len(trace_rows(run, from_s, until))
    if n == 0:
        raise InputError(
            "no request in this stretch",
            where="--from, --to",
            value=(from_s, until),
            allowed=f"0 to {run.simulated_s:.6g} s",
        )
    if n > MAX_REQUESTS:
        raise InputError(
            "too many requests for one trace",
            where="--from, --to",
            value=n,
            allowed=f"at most {MAX_REQUESTS}",
            mend="say a shorter stretch",
        )
    events = trace_events(run, [pool.name for pool in found.fleet.pools], from_s, until)
    text = msgspec.json.encode({"displayTimeUnit": "ms", "traceEvents": events})
    try:
        Path(path).write_bytes(text)
    except OSError as fault:
        raise InputError(f"cannot be written: {fault.strerror}", where=str(path)) from None
    return n
