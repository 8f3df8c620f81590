"""From a file or a profile to its picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.errors import InputError, near_miss
from infermix.workload.classes import Part, Slo, TrafficClass
from infermix.workload.clients import Clients
from infermix.workload.distil import spread
from infermix.workload.picture import Arriving, Conversing, Picture, arriving, column, conversing, lengths_of, reuse_of
from infermix.workload.profiles import Profile, load_profile, profile_names
from infermix.workload.rows import Rows
from infermix.workload.servegen import ClientPool
from infermix.workload.sources import open_trace, source_of
from infermix.workload.traces import Trace
from infermix.workload.turns import turns_of

DRAWN = 50_000
"""Requests that are drawn where nothing is recorded."""
BUSY_S = 3600.0
"""ServeGen: the stretch at its own rates in which burstiness is measured [s]."""
_NO_PROMISE = Slo(e2e_s=1.0)


def describe(
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    only: Mapping[str, list[str]] | None = None,
    between_s: tuple[float, float] | None = None,
    rate_per_s: float | None = None,
    base_dir: Path = Path(),
) -> Picture:
    """The picture of a trace file, of ServeGen's rates, or of a profile.

    Parameters
    ----------
    name
        A file, or the name of a packaged profile.
    columns, only, between_s
        As in a class of a study.
    rate_per_s
        Show the traffic at this mean rate [1/s]; by default as recorded, or 1 a second where no
        rate was recorded.

    Raises
    ------
    InputError
        No such file or profile, or one that is malformed.
    """
    part = Part(trace=name, weight=1.0, columns=dict(columns or {}), only=dict(only or {}), between_s=between_s)
    part.check("workload")
    if rate_per_s is not None and not 0 < rate_per_s < float("inf"):
        raise InputError("rate must be positive", where="--rate", value=rate_per_s, allowed="requests a second > 0")
    if name.endswith(".toml") or name in profile_names():
        return _of_profile(load_profile(name, base_dir=base_dir, where="workload"), name, rate_per_s, base_dir)
    if not (base_dir / name).exists() and not Path(name).suffix:
        raise InputError(
            "no such file or profile",
            where="workload",
            value=name,
            allowed="a trace file, or " + ", ".join(profile_names()),
            mend=near_miss(name, profile_names()),
        )
    found = open_trace(part, base_dir, "workload")
    if isinstance(found, ClientPool):
        return _of_clients(found, rate_per_s)
    return _of_trace(found, part, rate_per_s, base_dir)


def _drawn(cls: TrafficClass, rate: float, requests: int, base_dir: Path) -> tuple[Rows, float]:
    """(requests in order of time, the horizon) of a class at a rate."""
    source = source_of("shown", msgspec.structs.replace(cls, rate_per_s=rate), base_dir)
    horizon = requests / rate
    rows = source.rows(horizon, 1)
    order = np.argsort(rows.arrival_s, kind="stable")
    return rows._replace(
        arrival_s=rows.arrival_s[order],
        input_tokens=rows.input_tokens[order],
        cached_tokens=rows.cached_tokens[order],
        output_tokens=rows.output_tokens[order],
    ), horizon


def _of_trace(trace: Trace, part: Part, rate: float | None, base_dir: Path) -> Picture:
    recorded = rate is None and trace.timed and not trace.has_sessions
    notes, arrivals, span = [], None, None
    if recorded and trace.t_s[-1] > 0:
        rate, span = trace.rate_per_s, trace.span_s
        arrivals = _recorded(trace.t_s, span)
    elif rate is not None:
        cls = TrafficClass(
            slo=_NO_PROMISE, trace=part.trace, columns=part.columns, only=part.only, between_s=part.between_s
        )
        rows, span = _drawn(cls, rate, max(len(trace), DRAWN), base_dir)
        arrivals = arriving(rows.arrival_s, span)
        notes.append(f"Arrivals are shown at {rate:g} requests a second, not as recorded.")
    if trace.has_sessions:
        notes.append("Times count from the start of each session; when sessions started is not in the trace.")
    elif not trace.timed:
        notes.append("The trace has no times: a class that uses it states rate_per_s.")
    return Picture(
        name=Path(trace.source).name,
        kind="trace",
        format=trace.format,
        source=trace.source,
        requests=len(trace),
        drawn=arrivals is not None and not recorded,
        span_s=span,
        rate_per_s=rate,
        tokens_per_s=_tokens_per_s(rate, trace),
        lengths=lengths_of(trace.input_tokens, trace.cached_tokens, trace.output_tokens),
        arrivals=arrivals,
        reuse=reuse_of(trace.input_tokens, trace.cached_tokens, trace),
        sessions=conversing(trace),
        models=trace.models,
        repairs=trace.repairs | (_turn_repairs(trace) if trace.has_sessions else {}),
        notes=notes,
    )


def _turn_repairs(trace: Trace) -> dict[str, int]:
    """Repairs of pauses and service times, where there are any."""
    known = trace.service_s is not None and np.isfinite(trace.service_s).any()
    return turns_of(trace).repairs if known else {}


def _recorded(t_s: Floats, span_s: float) -> Arriving | None:
    spread_t = spread(t_s)
    step = 0.0 if spread_t is t_s else float(np.median(np.diff(np.unique(t_s))))
    return arriving(np.minimum(spread_t, np.nextafter(span_s, 0.0)), span_s, step)


def _tokens_per_s(rate: float | None, rows: Trace | Rows) -> dict[str, float]:
    if rate is None:
        return {}
    return {
        "input": rate * float(rows.input_tokens.mean()),
        "uncached": rate * float((rows.input_tokens - rows.cached_tokens).mean()),
        "output": rate * float(rows.output_tokens.mean()),
    }


def _of_profile(profile: Profile, name: str, rate: float | None, base_dir: Path) -> Picture:
    shown = rate or profile.recorded_rate_per_s or 1.0
    rows, horizon = _drawn(TrafficClass(slo=_NO_PROMISE, profile=name), shown, DRAWN, base_dir)
    notes = [note for note in (profile.about.note, _left_out(profile)) if note]
    if rate is None and not profile.recorded_rate_per_s:
        notes.append("No rate was recorded: shown at 1 request a second.")
    return Picture(
        name=profile.name,
        kind="profile",
        format=f"made of {profile.n:,} recorded requests",
        description=profile.about.description,
        source=profile.about.source,
        licence=profile.about.licence,
        requests=len(rows.arrival_s),
        drawn=True,
        span_s=horizon,
        rate_per_s=shown,
        tokens_per_s=_tokens_per_s(shown, rows),
        lengths=lengths_of(rows.input_tokens, rows.cached_tokens, rows.output_tokens),
        arrivals=arriving(rows.arrival_s, horizon),
        reuse=reuse_of(rows.input_tokens, rows.cached_tokens),
        sessions=_profile_sessions(profile),
        notes=notes,
    )


def _left_out(profile: Profile) -> str:
    return f"Left out: {profile.about.left_out}." if profile.about.left_out else ""


def _profile_sessions(profile: Profile) -> Conversing | None:
    s = profile.sessions
    if s is None:
        return None
    return Conversing(
        sessions=0,
        turns=column(np.rint(s.requests.expand())),
        think_s=None if s.think_s is None else column(s.think_s.expand()),
        service_s=None if s.service_s is None else column(s.service_s.expand()),
        sub_agent_share=0.0,
    )


def _of_clients(pool: ClientPool, rate: float | None) -> Picture:
    """Rates from the windows themselves, burstiness from the busiest hour, lengths from a sample of all."""
    factor = 1.0 if rate is None else rate / pool.mean_rate_per_s
    shown = pool.mean_rate_per_s * factor
    sample = Clients(pool, 0, min(DRAWN / pool.span_s, shown)).rows(pool.span_s, 1)
    busy = _busiest(pool)
    times = np.sort(Clients(busy, 0, min(busy.mean_rate_per_s * factor, 200.0)).rows(busy.span_s, 1).arrival_s)
    bursts, over_day = arriving(times, busy.span_s), _window_rates(pool, factor)
    arrivals = None
    if bursts is not None:
        peak = max(over_day) / (sum(over_day) / len(over_day))
        window = pool.span_s / len(over_day)
        arrivals = msgspec.structs.replace(bursts, per_s=over_day, window_s=window, peak_to_mean=peak)
    sampled, pace = f"{len(sample.arrival_s):,}", f"{len(times) / busy.span_s:,.3g}"
    note = (
        f"{len(np.unique(pool.client))} clients. Lengths are of a sample of {sampled} requests over all windows; "
        f"burstiness is that of the busiest hour at {pace} requests a second."
    )
    return Picture(
        name=Path(pool.source).name,
        kind="clients",
        format="ServeGen",
        source=pool.source,
        requests=round(shown * pool.span_s),
        drawn=True,
        span_s=pool.span_s,
        rate_per_s=shown,
        tokens_per_s=_tokens_per_s(shown, sample),
        lengths=lengths_of(sample.input_tokens, sample.cached_tokens, sample.output_tokens),
        arrivals=arrivals,
        reuse=reuse_of(sample.input_tokens, sample.cached_tokens),
        sessions=None,
        repairs=pool.repairs,
        notes=[note],
    )


def _window_rates(pool: ClientPool, factor: float) -> list[float]:
    """Mean rate of all clients in each window [1/s]."""
    slots = round(pool.span_s / pool.window_s)
    at = (pool.start_s // pool.window_s).astype(np.int64)
    rates: list[float] = (np.bincount(at, weights=pool.rate_per_s, minlength=slots) * factor).tolist()
    return rates


def _busiest(pool: ClientPool) -> ClientPool:
    """The stretch of about an hour with most requests."""
    each = np.asarray(_window_rates(pool, 1.0))
    n = max(min(round(BUSY_S / pool.window_s), len(each)), 1)
    first = int(np.argmax(np.convolve(each, np.ones(n), mode="valid"))) * pool.window_s
    keep = (pool.start_s >= first) & (pool.start_s < first + n * pool.window_s)
    return replace(
        pool,
        start_s=pool.start_s[keep] - first,
        rate_per_s=pool.rate_per_s[keep],
        weibull=pool.weibull[keep],
        shape=pool.shape[keep],
        lengths=pool.lengths[keep],
        client=pool.client[keep],
        span_s=n * pool.window_s,
    )
