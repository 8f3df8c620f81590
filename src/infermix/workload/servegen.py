"""ServeGen's clients: how often each of them asks in every window of time, by which law, and how long.

Two Parquet tables. Rates: ``category model client window_start_s rate_rps cv pattern arg1 arg2``, one row
for each client and window; ``pattern`` is ``Gamma``, ``Weibull`` or ``Exponential`` and ``arg1`` its shape.
Lengths: ``category model client window_start_s field pdf_json``, the text of a dictionary from value
to probability, for longer windows than the rates.

Xiang et al., "ServeGen: Workload Characterization and Generation of Large Language Model Serving in
Production", NSDI 2026; data under Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infermix.arrays import Bools, Floats, Ints, check_equal_lengths
from infermix.errors import InputError, near_miss

if TYPE_CHECKING:
    import polars as pl

RATES = ("category", "model", "client", "window_start_s", "rate_rps", "cv", "pattern", "arg1", "arg2")
LENGTHS = ("category", "model", "client", "window_start_s", "field", "pdf_json")
SELECT = ("category", "model", "client")
PATTERNS = {"Gamma": False, "Exponential": False, "Weibull": True}
PARTS = ("image", "audio", "video")
"""Parts of a multimodal prompt; each has a count and tokens for every item, beside ``text_tokens``."""


@dataclass(frozen=True)
class Pdf:
    """A distribution over whole numbers: values that climb, and the probability of each or less."""

    values: Ints
    until: Floats

    def at(self, luck: Floats) -> Ints:
        """The value at each rank in (0, 1)."""
        return self.values[np.minimum(np.searchsorted(self.until, luck, side="right"), len(self.values) - 1)]


@dataclass(frozen=True)
class ClientPool:
    """Windows in which some client asked, by time.

    Attributes
    ----------
    start_s
        Start of the window [s], counted from the first one asked for.
    rate_per_s
        Mean rate in it [1/s].
    weibull, shape
        Law of the times between its arrivals: Weibull, else gamma, of this shape.
    lengths
        Index into ``pdfs``.
    window_s, span_s
        Length of a window, and of all of them [s].
    pdfs
        Field → distribution, for each client and stretch of time that occurs.
    """

    start_s: Floats
    rate_per_s: Floats
    weibull: Bools
    shape: Floats
    lengths: Ints
    client: Ints
    window_s: float
    span_s: float
    pdfs: tuple[Mapping[str, Pdf], ...]
    source: str = ""
    repairs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_equal_lengths(self)

    @property
    def mean_rate_per_s(self) -> float:
        """Requests a second of all clients over the whole span [1/s]."""
        return float(self.rate_per_s.sum()) * self.window_s / self.span_s


def is_servegen(have: list[str]) -> bool:
    """Whether these are the columns of ServeGen's rates."""
    return set(RATES) <= set(have)


def read_clients(
    rates: Path,
    lengths: Path | None,
    wanted: Mapping[str, tuple[str, ...]],
    between_s: tuple[float, float] | None,
    where: str,
) -> ClientPool:
    """Read the clients of one model.

    Parameters
    ----------
    rates, lengths
        The two tables; ``lengths`` is by default beside ``rates``, with ``length_pdfs`` in its name
        for ``client_rates``.
    wanted
        ``category``, ``model``, ``client`` → values; together they must leave one model.
    between_s
        Only windows that start in [from, to) [s].

    Raises
    ------
    InputError
        A missing table or column, an unknown pattern or field, several models, or no request.
    """
    beside = lengths or rates.with_name(rates.name.replace("client_rates", "length_pdfs"))
    if beside == rates or not beside.is_file():
        raise InputError(
            "ServeGen's rates need its lengths",
            where=where,
            value=str(beside) if beside != rates else "nothing",
            allowed=f"a Parquet file with the columns {' '.join(LENGTHS)}",
            mend='add lengths = "….parquet"',
        )
    stamps = tuple((p.stat().st_mtime_ns, p.stat().st_size) for p in (rates, beside))
    return _read(rates, beside, tuple(sorted(wanted.items())), between_s, where, stamps)


@lru_cache(maxsize=4)
def _read(
    rates: Path,
    beside: Path,
    wanted: tuple[tuple[str, tuple[str, ...]], ...],
    between_s: tuple[float, float] | None,
    where: str,
    _stamps: tuple[tuple[int, int], ...],
) -> ClientPool:
    import polars as pl

    table = _selected(pl.read_parquet(rates, columns=list(RATES)), dict(wanted), where, str(rates))
    category, model = _one_model(table, f"{where}: {rates}")
    starts = np.unique(table["window_start_s"].to_numpy())
    window = float(np.diff(starts).min()) if len(starts) > 1 else 600.0
    first, last = between_s or (float(starts[0]), float(starts[-1]) + window)
    active = table.filter(
        (pl.col("rate_rps") > 0) & (pl.col("window_start_s") >= first) & (pl.col("window_start_s") < last)
    ).sort("window_start_s", "client")
    if active.height == 0:
        allowed = f"{starts[0]} to {starts[-1] + window:g} s"
        raise InputError("no client asks in this time", where=f"{where}: between_s", value=between_s, allowed=allowed)
    pdfs, index, repairs = _lengths(beside, active, category, model, where)
    weibull, shape = _laws(active, f"{where}: {rates}")
    return ClientPool(
        start_s=active["window_start_s"].to_numpy().astype(np.float64) - first,
        rate_per_s=active["rate_rps"].to_numpy().astype(np.float64),
        weibull=weibull,
        shape=shape,
        lengths=index,
        client=active["client"].to_numpy().astype(np.int64),
        window_s=window,
        span_s=min(last, float(starts[-1]) + window) - first,
        pdfs=pdfs,
        source=str(rates),
        repairs=repairs,
    )


def _one_model(table: pl.DataFrame, where: str) -> tuple[str, str]:
    """The category and model of all rows; InputError where there are several."""
    models = table.select("category", "model").unique().sort("category", "model").rows()
    if len(models) > 1:
        raise InputError(
            "several models",
            where=where,
            value=", ".join(f"{category}/{model}" for category, model in models),
            allowed="one",
            mend=f'add only = {{ category = "{models[0][0]}", model = "{models[0][1]}" }}',
        )
    category, model = models[0]
    return str(category), str(model)


def _selected(table: pl.DataFrame, wanted: Mapping[str, tuple[str, ...]], where: str, file: str) -> pl.DataFrame:
    """The rows with these categories, models and clients."""
    import polars as pl

    for name, values in wanted.items():
        if name not in SELECT:
            raise InputError(
                f"only names {name}, which ServeGen does not have",
                where=f"{where}: only",
                value=name,
                allowed=", ".join(SELECT),
                mend=near_miss(name, SELECT),
            )
        known = [str(x) for x in table[name].unique().sort().to_list()]
        for value in values:
            if value not in known:
                raise InputError(
                    f"no such {name}",
                    where=f"{where}: {file}: only.{name}",
                    value=value,
                    allowed=", ".join(known[:12]) + (", …" if len(known) > 12 else ""),
                    mend=near_miss(value, known),
                )
        table = table.filter(pl.col(name).cast(pl.String).is_in(list(values)))
    return table


def _laws(active: pl.DataFrame, where: str) -> tuple[Bools, Floats]:
    patterns = active["pattern"].to_numpy()
    unknown = sorted({str(p) for p in patterns} - set(PATTERNS))
    if unknown:
        raise InputError("unknown pattern", where=where, value=unknown[0], allowed=", ".join(PATTERNS))
    shape = np.where(patterns == "Exponential", 1.0, active["arg1"].to_numpy().astype(np.float64))
    bad = ~(np.isfinite(shape) & (shape > 0))
    if bad.any():
        row = int(np.argmax(bad))
        value = float(shape[row])
        raise InputError("a shape must be positive", where=f"{where}: arg1", value=value, allowed="more than 0")
    return np.array([PATTERNS[str(p)] for p in patterns]), shape


def _lengths(
    file: Path, active: pl.DataFrame, category: str, model: str, where: str
) -> tuple[tuple[Mapping[str, Pdf], ...], Ints, dict[str, int]]:
    """(distributions, index of those of each window, repairs).

    A window takes the latest distributions of its client that start no later, else the earliest
    ones; a client without any takes those of all the others in turn and is counted.
    """
    import polars as pl

    clients = active["client"].unique().to_list()
    table = (
        pl.scan_parquet(file)
        .filter((pl.col("category") == category) & (pl.col("model") == model) & pl.col("client").is_in(clients))
        .select("client", "window_start_s", "field", "pdf_json")
        .sort("client", "window_start_s")
        .collect()
    )
    if table.height == 0:
        raise InputError("no lengths for this model", where=f"{where}: {file}", value=f"{category}/{model}")
    groups: dict[tuple[int, int], dict[str, str]] = {}
    for client, start, name, text in table.iter_rows():
        groups.setdefault((client, start), {})[name] = text
    keys = list(groups)
    own, start = np.array([k[0] for k in keys]), np.array([k[1] for k in keys])
    index, repairs = _nearest(own, start, active["client"].to_numpy(), active["window_start_s"].to_numpy())
    used, index = np.unique(index, return_inverse=True)
    pdfs = tuple({f: _pdf(t, f"{where}: {file}: {f}") for f, t in groups[keys[g]].items()} for g in used)
    _check_fields(pdfs, f"{where}: {file}")
    return pdfs, index.astype(np.int64), repairs


def _nearest(own: Ints, start: Ints, client: Ints, window: Ints) -> tuple[Ints, dict[str, int]]:
    """Group of each window; groups are sorted by client and start."""
    found = np.empty(len(client), np.int64)
    gap = int(np.diff(np.unique(start)).min()) if len(np.unique(start)) > 1 else 0
    elsewhere = orphans = 0
    for number in np.unique(client).tolist():
        mine = np.flatnonzero(client == number)
        low, high = np.searchsorted(own, [number, number + 1])
        if low == high:
            found[mine] = np.arange(len(mine)) % len(own)
            orphans += len(mine)
            continue
        at = np.maximum(np.searchsorted(start[low:high], window[mine], side="right") - 1, 0)
        found[mine] = low + at
        late = (window[mine] - start[low + at] >= gap) | (window[mine] < start[low + at])
        elsewhere += int(np.count_nonzero(late)) if gap else 0
    counts = {"windows_with_lengths_of_another_time": elsewhere, "windows_with_lengths_of_other_clients": orphans}
    return found, {name: n for name, n in counts.items() if n}


def _pdf(text: str, where: str) -> Pdf:
    """Parse ``{224: 0.1, 225: 0.9}``."""
    try:
        pairs = np.array(text.strip()[1:-1].replace(":", ",").split(","), dtype=np.float64).reshape(-1, 2)
    except ValueError:
        pairs = np.zeros((0, 2))
    if len(pairs) == 0 or pairs.min() < 0 or not np.isfinite(pairs).all() or pairs[:, 1].sum() <= 0:
        raise InputError("not a distribution", where=where, value=text[:60], allowed="{tokens: probability, ...}")
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    until = np.cumsum(pairs[:, 1])
    return Pdf(np.rint(pairs[:, 0]).astype(np.int64), until / until[-1])


def _check_fields(pdfs: tuple[Mapping[str, Pdf], ...], where: str) -> None:
    for fields in pdfs:
        plain = "input_tokens" in fields or "text_tokens" in fields
        if not plain or "output_tokens" not in fields:
            raise InputError(
                "lengths need input and output",
                where=where,
                value=sorted(fields),
                allowed="input_tokens (or text_tokens with image, audio, video) and output_tokens",
            )
