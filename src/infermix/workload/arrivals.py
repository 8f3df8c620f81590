"""The traffic of a study as one table of requests, drawn from profiles and traces over one horizon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infermix.errors import InputError
from infermix.workload.classes import TrafficClass
from infermix.workload.requests import Requests, make_requests
from infermix.workload.rows import Rows, Source, in_order, joined
from infermix.workload.sources import source_of
from infermix.workload.traces import MOONCAKE_BLOCK_TOKENS

MAX_REQUESTS = 200_000_000
"""More than this is refused rather than drawn (it would take some 6 GB)."""
_SPARE = 1.02
Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Drawn:
    """Offered traffic.

    Attributes
    ----------
    requests
        All classes in order of arrival; ``class_names`` in the order of the study. Prefix block
        ids are carried where every class comes from traces that have them; copies of a trace
        (at higher rates, or played again) and classes have ids of their own.
    horizon_s
        Arrivals lie in [0, horizon) [s], the same for every class.
    rates_per_s
        Mean rate of each class [1/s].
    clipped, over_context
        Requests of each class longer than the model's context: shortened to fit (class says
        ``clip``), or left for the fleet to refuse (``refuse``).
    repairs
        What was repaired in each class's trace, in rows of the trace.
    """

    requests: Requests
    horizon_s: float
    rates_per_s: dict[str, float]
    clipped: dict[str, int]
    over_context: dict[str, int]
    repairs: dict[str, dict[str, int]]


def draw(
    classes: Mapping[str, TrafficClass],
    *,
    seed: int,
    requests: int | None = None,
    horizon_s: float | None = None,
    min_per_class: int = 0,
    max_context: int | Mapping[str, int] | None = None,
    base_dir: Path = Path(),
    start_hour: float = 0.0,
    hold_hour: bool = False,
) -> Drawn:
    """Draw the offered traffic of all classes over one horizon.

    Parameters
    ----------
    classes
        Name → class; each is drawn from random streams of its own (by name), so that over the
        same horizon adding a class leaves the others' requests as they are.
    seed
        Same seed, same traffic.
    requests
        Exactly so many requests in all, the first in order of time; not with ``horizon_s``.
    horizon_s
        Length of the study [s].
    min_per_class
        The horizon is at least so long that every class expects 1.02 times this number, and that a
        trace is offered whole; this may lengthen what ``requests`` or ``horizon_s`` ask for, and
        then all requests in the horizon are returned. With none of the three every trace is
        offered whole.
    max_context
        Longest input + output that the model takes [tokens], or that of each class; longer requests are shortened where
        their class says ``clip``: the output to at most half of it, then the input, of which the
        uncached part is kept as far as it fits.
    base_dir
        Folder that paths in the classes are relative to.
    start_hour
        Hour of the day at time 0, for classes with a shape.
    hold_hour
        Every class keeps the rate that it has in that hour.

    Raises
    ------
    InputError
        For a class without exactly one of profile, trace and mix, a rate that is missing or not
        positive, a faulty trace or profile, or a horizon that cannot be told.
    """
    _check_size(requests, horizon_s, min_per_class, max_context)
    sources = {
        name: source_of(name, cls, base_dir, start_hour=start_hour, hold_hour=hold_hour)
        for name, cls in classes.items()
    }
    if not sources:
        raise InputError("no traffic class", where="traffic", mend="add [traffic.NAME]")
    rates = {name: source.rate_per_s for name, source in sources.items()}
    horizon, exact = _horizon(sources, requests, horizon_s, min_per_class)
    if sum(rates.values()) * horizon > MAX_REQUESTS:
        raise InputError(
            "too many requests",
            where="traffic",
            value=round(sum(rates.values()) * horizon),
            allowed=f"at most {MAX_REQUESTS}",
            mend="shorten the horizon, or say between_s to take a stretch of a long trace",
        )
    parts, horizon = _parts(sources, horizon, seed, exact)
    table = _merge(parts)
    table = _with_priorities(table, classes)
    if exact is not None:
        table, horizon = _first(table, exact, horizon)
    table, clipped, over = _fit(table, classes, max_context)
    repairs = {name: dict(source.repairs) for name, source in sources.items()}
    return Drawn(table, horizon, rates, clipped, over, repairs)


def shorten(
    inputs: Tokens, cached: Tokens, outputs: Tokens, max_context: int | Tokens
) -> tuple[Tokens, Tokens, Tokens]:
    """Input, cached and output tokens of requests made to fit ``max_context`` tokens in all.

    >>> [int(c[0]) for c in shorten(np.array([900]), np.array([700]), np.array([300]), 1000)]
    [700, 500, 300]
    """
    long = inputs.astype(np.int64) + outputs > max_context
    kept = np.where(long, np.minimum(outputs, max_context // 2), outputs)
    fits = np.where(long, np.minimum(inputs, max_context - kept), inputs)
    return fits, fits - np.minimum(inputs - cached, fits), kept


def _fit(
    table: Requests, classes: Mapping[str, TrafficClass], max_context: int | Mapping[str, int] | None
) -> tuple[Requests, dict[str, int], dict[str, int]]:
    """Shorten what is too long for the model where its class allows it; count both kinds by class."""
    none = dict.fromkeys(classes, 0)
    if max_context is None:
        return table, none, dict(none)
    each = np.array([max_context if isinstance(max_context, int) else max_context[name] for name in classes])
    most = each[table.class_id]
    long = np.flatnonzero(table.input_tokens.astype(np.int64) + table.output_tokens > most)
    counts = np.bincount(table.class_id[long], minlength=len(classes))
    clips = np.array([cls.context == "clip" for cls in classes.values()])
    clipped = {name: int(k) for name, k in zip(classes, np.where(clips, counts, 0), strict=True)}
    over = {name: int(k) for name, k in zip(classes, np.where(clips, 0, counts), strict=True)}
    row = long[clips[table.class_id[long]]]
    inputs, cached, outputs = table.input_tokens.copy(), table.cached_tokens.copy(), table.output_tokens.copy()
    inputs[row], cached[row], outputs[row] = shorten(inputs[row], cached[row], outputs[row], most[row])
    table = replace(table, input_tokens=inputs, cached_tokens=cached, output_tokens=outputs)
    return table, clipped, over


def _check_size(
    requests: int | None, horizon_s: float | None, min_per_class: int, max_context: int | Mapping[str, int] | None
) -> None:
    if requests is not None and horizon_s is not None:
        raise InputError("both requests and horizon_s are given", value=(requests, horizon_s), mend="give one")
    if requests is not None and requests < 1:
        raise InputError("requests must be positive", value=requests, allowed="at least 1")
    if horizon_s is not None and not 0 < horizon_s < float("inf"):
        raise InputError("horizon_s must be positive", value=horizon_s, allowed="seconds > 0")
    if min_per_class < 0:
        raise InputError("min_per_class is negative", value=min_per_class, allowed="at least 0")
    least = max_context if max_context is None or isinstance(max_context, int) else min(max_context.values())
    if least is not None and least < 2:
        raise InputError("max_context is too short", value=least, allowed="at least 2 tokens")


def _horizon(
    sources: Mapping[str, Source], requests: int | None, horizon_s: float | None, min_per_class: int
) -> tuple[float, int | None]:
    """The horizon [s], and the exact number of requests where that rules."""
    once = max(source.once_s for source in sources.values())
    least = 0.0
    if min_per_class:
        least = max(once, _SPARE * min_per_class / min(source.rate_per_s for source in sources.values()))
    if requests is not None:
        expected = requests / sum(source.rate_per_s for source in sources.values())
        return (expected, requests) if expected >= least else (least, None)
    if horizon_s is None and not min_per_class:
        least = once
    horizon = max(horizon_s or 0.0, least)
    if not horizon:
        raise InputError(
            "how much traffic to draw is not said", where="traffic", mend="give requests, horizon_s or min_per_class"
        )
    return horizon, None


def _parts(
    sources: Mapping[str, Source], horizon_s: float, seed: int, exact: int | None
) -> tuple[dict[str, Rows], float]:
    """Rows of each class; with ``exact``, over a horizon that holds at least so many in all."""
    if exact is not None:
        spread = max(source.dispersion for source in sources.values())
        horizon_s *= 1.0 + 4.0 * spread / exact**0.5
    while True:
        parts = {name: source.rows(horizon_s, seed) for name, source in sources.items()}
        total = sum(len(part.arrival_s) for part in parts.values())
        if exact is None or total >= exact:
            return parts, horizon_s
        horizon_s *= min(max(1.02 * exact / max(total, 1), 1.05), 4.0)


def _merge(parts: Mapping[str, Rows]) -> Requests:
    """All classes in order of time; sessions and parents are numbered on from class to class."""
    sizes = [len(part.arrival_s) for part in parts.values()]
    rows = joined(list(parts.values()))
    order = np.argsort(rows.arrival_s, kind="stable")
    assert rows.parent is not None and rows.think_s is not None
    table = make_requests(
        tuple(parts),
        rows.arrival_s[order],
        rows.input_tokens[order],
        rows.output_tokens[order],
        cached_tokens=rows.cached_tokens[order],
        class_id=np.repeat(np.arange(len(parts), dtype=np.int16), sizes)[order],
        session=rows.session[order],
        parent=in_order(rows.parent, order),
        think_s=rows.think_s[order],
    )
    if rows.blocks is None:
        return table
    blocks = rows.blocks.take(order)
    return replace(
        table, block_start=(blocks.start,), block_ids=(blocks.ids,), block_id_tokens=MOONCAKE_BLOCK_TOKENS
    )  # fmt: skip


def _with_priorities(table: Requests, classes: Mapping[str, TrafficClass]) -> Requests:
    """The column of priorities; nothing to do where every class has the same, which takes no memory."""
    priorities = np.array([cls.priority for cls in classes.values()], dtype=np.int8)
    if not priorities.any():
        return table
    return replace(table, priority=priorities[table.class_id])


def _first(table: Requests, n: int, horizon_s: float) -> tuple[Requests, float]:
    """The first n requests; the horizon then ends where the next would have arrived."""
    if len(table) > n:
        horizon_s = float(table.arrival_s[n])
    columns: dict[str, Any] = {k: column[:n] for k, column in vars(table).items() if isinstance(column, np.ndarray)}
    if table.block_ids:
        start = table.block_start[0][: min(n, len(table)) + 1]
        columns |= {"block_start": (start,), "block_ids": (table.block_ids[0][: start[-1]],)}
    return replace(table, **columns), horizon_s
