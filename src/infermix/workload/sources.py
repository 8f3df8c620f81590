"""From a class to the source of its requests."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

from infermix.errors import InputError
from infermix.workload.classes import Part, TrafficClass
from infermix.workload.clients import Clients
from infermix.workload.closed import ClosedLoop, profile_stretches
from infermix.workload.columns import columns_of
from infermix.workload.laws import Arrivals
from infermix.workload.mix import Mix
from infermix.workload.profiles import load_profile
from infermix.workload.replay import Replay, Reshuffle
from infermix.workload.rows import Source
from infermix.workload.servegen import ClientPool, is_servegen, read_clients
from infermix.workload.shape import Shaped, by_hour
from infermix.workload.synth import Synthesis
from infermix.workload.traces import Trace, read_trace
from infermix.workload.turns import Stretches, stretches

POISSON = Arrivals()


def source_of(
    name: str, cls: TrafficClass, base_dir: Path, *, start_hour: float = 0.0, hold_hour: bool = False
) -> Source:
    """The source of a class.

    Parameters
    ----------
    name
        Of the class; its random streams hang on it.
    start_hour, hold_hour
        Hour of the day at time 0, and whether the rate stays as in that hour; of no effect without
        a shape.

    Raises
    ------
    InputError
        As ``TrafficClass.check``, a faulty file, or a rate that is missing.
    """
    where = f"traffic.{name}"
    cls.check(where)
    hourly = by_hour(cls.shape)
    factor = float(hourly[int(start_hour) % len(hourly)]) if hold_hour else 1.0
    rate = None if cls.rate_per_s is None else cls.rate_per_s * factor
    if rate == 0:
        raise InputError(
            "no request comes in the hour that is planned",
            where=f"{where}.shape",
            value=int(start_hour),
            mend="raise it",
        )
    source = _unshaped(name, cls, rate, base_dir, where)
    if cls.shape is None or hold_hour:
        return source
    return Shaped(source, tuple(hourly.tolist()), start_hour)


def _unshaped(name: str, cls: TrafficClass, rate: float | None, base_dir: Path, where: str) -> Source:
    if not cls.mix:
        part = Part(
            profile=cls.profile,
            trace=cls.trace,
            weight=1.0,
            columns=cls.columns,
            only=cls.only,
            between_s=cls.between_s,
            lengths=cls.lengths,
        )
        return _one(part, _key(name), cls, rate, cls.sessions, base_dir, where)
    total = sum(part.weight for part in cls.mix)
    if cls.sessions is None and rate is None:
        raise InputError("a mix needs rate_per_s", where=where, mend="add rate_per_s")
    counts = _apportioned(cls.sessions, [part.weight / total for part in cls.mix])
    parts = []
    for i, part in enumerate(cls.mix):
        own = None if rate is None else rate * part.weight / total
        if counts is None or counts[i]:
            sessions = None if counts is None else counts[i]
            parts.append(_one(part, _key(f"{name}/{i}"), cls, own, sessions, base_dir, f"{where}.mix[{i}]"))
    return Mix(tuple(parts))


def _key(name: str) -> int:
    return zlib.crc32(name.encode()) * 16


def _apportioned(sessions: int | None, shares: list[float]) -> list[int] | None:
    """Whole sessions for each share, the largest remainders first.

    >>> _apportioned(10, [0.55, 0.3, 0.15])
    [6, 3, 1]
    """
    if sessions is None:
        return None
    exact = [sessions * share for share in shares]
    whole = [int(x) for x in exact]
    order = sorted(range(len(shares)), key=lambda i: whole[i] - exact[i])
    for i in order[: sessions - sum(whole)]:
        whole[i] += 1
    return whole


def _one(
    part: Part, key: int, cls: TrafficClass, rate: float | None, sessions: int | None, base_dir: Path, where: str
) -> Source:
    """The source of a class that is not a mix, or of a part of one."""
    if sessions is not None:
        return ClosedLoop(_work(part, cls.leave_after_s, base_dir, where), sessions, key)
    if part.profile is not None:
        return _synthesis(part.profile, key, rate, cls.arrivals, base_dir, where)
    found = open_trace(part, base_dir, where)
    if isinstance(found, ClientPool):
        if cls.arrivals is not None:
            raise InputError(
                "ServeGen's clients have laws of their own", where=f"{where}.arrivals", mend="leave it out"
            )
        return Clients(found, key, rate)
    return _replay(found, key, rate, cls.arrivals, where)


def _synthesis(name: str, key: int, rate: float | None, law: Arrivals | None, base_dir: Path, where: str) -> Source:
    profile = load_profile(name, base_dir=base_dir, where=where)
    if rate is None:
        hint = f"; recorded were {profile.recorded_rate_per_s}" if profile.recorded_rate_per_s else ""
        raise InputError("a class with a profile needs rate_per_s", where=where, mend=f"add rate_per_s{hint}")
    if law is not None and profile.sessions is not None:
        raise InputError("arrivals does not go with a profile of sessions", where=f"{where}.arrivals", value=name)
    return Synthesis(profile, key, rate, law or (None if profile.gap is not None else POISSON))


def _replay(trace: Trace, key: int, rate: float | None, law: Arrivals | None, where: str) -> Source:
    if rate is None and (trace.has_sessions or not trace.timed or law is not None):
        why = (
            "when sessions started is not in the trace, so the class needs rate_per_s"
            if trace.has_sessions
            else "the trace has no times, so the class needs rate_per_s"
            if not trace.timed
            else "a law of arrivals needs rate_per_s"
        )
        raise InputError(
            why, where=where, value=trace.source, mend="add rate_per_s, the mean number of requests a second"
        )
    if trace.has_sessions:
        if law is not None:
            raise InputError("arrivals does not go with a trace of sessions", where=f"{where}.arrivals", value=law.law)
        return Replay(trace, key, rate)
    if law is None and trace.timed:
        return Replay(trace, key, rate)
    assert rate is not None
    return Reshuffle(trace, key, rate, law or POISSON)


def open_trace(part: Part, base_dir: Path, where: str) -> Trace | ClientPool:
    """A recorded trace, or ServeGen's clients."""
    file = base_dir / (part.trace or "")
    wanted = _wanted(part.only)
    if file.suffix == ".parquet" and file.is_file() and is_servegen(columns_of(file, f"{where}: {file}")):
        lengths = None if part.lengths is None else base_dir / part.lengths
        return read_clients(file, lengths, wanted, part.between_s, where)
    if part.lengths is not None:
        raise InputError(
            "lengths is for ServeGen's rates", where=f"{where}.lengths", value=part.lengths, mend="leave it out"
        )
    return read_trace(file, part.columns, where, only=wanted, between_s=part.between_s)


def _wanted(only: Mapping[str, str | list[str]]) -> dict[str, tuple[str, ...]]:
    return {name: (value,) if isinstance(value, str) else tuple(value) for name, value in only.items()}


def _work(part: Part, leave_after_s: float, base_dir: Path, where: str) -> Stretches:
    if part.profile is not None:
        profile = load_profile(part.profile, base_dir=base_dir, where=where)
        if profile.sessions is None or profile.sessions.think_s is None:
            raise InputError(
                "sessions needs a profile of sessions that tells pauses from service times",
                where=f"{where}.sessions",
                value=part.profile,
                allowed="agentic-coding, or your own",
                mend="say rate_per_s instead",
            )
        return profile_stretches(profile, leave_after_s)
    found = open_trace(part, base_dir, where)
    if isinstance(found, ClientPool):
        raise InputError("ServeGen has no sessions", where=f"{where}.sessions", mend="say rate_per_s instead")
    return stretches(found, leave_after_s)
