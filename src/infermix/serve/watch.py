"""What a running gateway's metrics say of the time between two readings: pools, classes, money."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping

import msgspec

from infermix.errors import InputError

_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
Labels = frozenset[tuple[str, str]]


class Reading(msgspec.Struct, frozen=True):
    """All samples of one reading."""

    at_s: float
    samples: dict[str, dict[Labels, float]]

    def of(self, name: str, **labels: str) -> dict[Labels, float]:
        """Samples of a metric that have these labels."""
        wanted = set(labels.items())
        return {key: value for key, value in self.samples.get(name, {}).items() if wanted <= key}

    def total(self, name: str, **labels: str) -> float:
        """Their sum."""
        return sum(self.of(name, **labels).values())

    def values_of(self, name: str, label: str) -> list[str]:
        """Values of a label, in order of first mention."""
        found = (dict(key).get(label) for key in self.samples.get(name, {}))
        return [value for value in dict.fromkeys(found) if value is not None]


class PoolNow(msgspec.Struct, frozen=True):
    """A pool in the time between two readings."""

    pool: str
    chip: str
    instances: int
    up: int
    inflight: int
    output_tokens_per_s: float
    input_tokens_per_s: float
    cached_share: float
    """Of the input tokens; NaN: there were none."""
    usd_per_hour: float


class ClassNow(msgspec.Struct, frozen=True):
    """A class: what came in the time between, and its promises since the gateway began."""

    name: str
    offered_per_s: float
    ended: int
    """Requests that were answered, with an error or without."""
    kept: int
    ttft_s: tuple[float, float]
    """Median and 99th percentile; NaN: no answers. So with the next."""
    tpot_s: tuple[float, float]
    served_by: dict[str, float]
    """Chip → share of the answers since the gateway began."""

    @property
    def attainment(self) -> float:
        """Share of the requests that have ended and kept every promise; NaN before there are any."""
        return self.kept / self.ended if self.ended else float("nan")


class Now(msgspec.Struct, frozen=True):
    """Everything."""

    span_s: float
    pools: tuple[PoolNow, ...]
    classes: tuple[ClassNow, ...]
    queued: int
    shed: int
    retries: int
    usd_per_hour: float


def fetch(url: str, timeout_s: float = 5.0) -> str:
    """The metrics of a gateway as text.

    Raises
    ------
    InputError
        Nobody answers there, or not with metrics.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError("not the URL of a gateway", value=url, allowed="http://HOST:PORT")
    address = url.rstrip("/") + "/metrics"
    try:
        with urllib.request.urlopen(address, timeout=timeout_s) as answer:
            return str(answer.read().decode("utf-8", "replace"))
    except (OSError, urllib.error.URLError, ValueError) as fault:
        raise InputError(f"no metrics there: {fault}", where=address, mend="start one with infermix serve") from None


def read_metrics(text: str, at_s: float) -> Reading:
    r"""Samples in Prometheus' text format.

    >>> read_metrics('# HELP a b\na{x="1",y="2"} 3\na{x="2",y="2"} 4\n', 0.0).total("a", y="2")
    7.0
    """
    samples: dict[str, dict[Labels, float]] = {}
    for line in text.splitlines():
        found = None if line.startswith("#") else _LINE.match(line)
        if found:
            labels = frozenset((name, _plain(value)) for name, value in _LABEL.findall(found[2] or ""))
            samples.setdefault(found[1], {})[labels] = float(found[3])
    return Reading(at_s, samples)


def _plain(value: str) -> str:
    return value.replace(r"\"", '"').replace(r"\n", "\n").replace("\\\\", "\\")


def now(before: Reading, after: Reading) -> Now:
    """What happened between two readings of one gateway."""
    span_s = max(after.at_s - before.at_s, 1e-9)
    pools = tuple(_pool(before, after, pool, span_s) for pool in after.values_of("infermix_inflight_requests", "pool"))
    names = after.values_of("infermix_offered_total", "class")
    return Now(
        span_s=span_s,
        pools=pools,
        classes=tuple(_class(before, after, name, span_s) for name in names),
        queued=int(after.total("infermix_queue_depth")),
        shed=int(after.total("infermix_shed_total")),
        retries=int(after.total("infermix_retries_total")),
        usd_per_hour=sum(pool.usd_per_hour for pool in pools),
    )


def _pool(before: Reading, after: Reading, pool: str, span_s: float) -> PoolNow:
    inflight = after.of("infermix_inflight_requests", pool=pool)
    backends = [dict(key)["backend"] for key in inflight]
    chips = [dict(key).get("chip", "") for key in inflight]

    def tokens(**labels: str) -> float:
        name = "infermix_tokens_total"
        return after.total(name, pool=pool, **labels) - before.total(name, pool=pool, **labels)

    read, cached = tokens(direction="input"), tokens(direction="input", cached="true")
    return PoolNow(
        pool=pool,
        chip=chips[0] if chips else "",
        instances=len(backends),
        up=int(sum(after.total("infermix_backend_up", backend=backend) for backend in backends)),
        inflight=int(sum(inflight.values())),
        output_tokens_per_s=tokens(direction="output") / span_s,
        input_tokens_per_s=read / span_s,
        cached_share=cached / read if read else float("nan"),
        usd_per_hour=after.total("infermix_usd_per_hour", pool=pool),
    )


def _class(before: Reading, after: Reading, name: str, span_s: float) -> ClassNow:
    offered = after.total("infermix_offered_total", **{"class": name})
    chips = after.values_of("infermix_request_duration_seconds_count", "chip")
    answers = {
        chip: after.total("infermix_request_duration_seconds_count", **{"class": name, "chip": chip}) for chip in chips
    }
    whole = sum(answers.values())
    return ClassNow(
        name=name,
        offered_per_s=(offered - before.total("infermix_offered_total", **{"class": name})) / span_s,
        ended=int(after.total("infermix_requests_total", **{"class": name})),
        kept=int(after.total("infermix_promises_kept_total", **{"class": name})),
        ttft_s=_quantiles(before, after, "infermix_time_to_first_token_seconds", name),
        tpot_s=_quantiles(before, after, "infermix_time_per_output_token_seconds", name),
        served_by={chip: count / whole for chip, count in answers.items() if count},
    )


def _quantiles(before: Reading, after: Reading, metric: str, class_name: str) -> tuple[float, float]:
    """Median and 99th percentile of what a histogram counted between two readings."""
    edges: dict[float, float] = {}
    for reading, sign in ((after, 1.0), (before, -1.0)):
        for key, count in reading.of(f"{metric}_bucket", **{"class": class_name}).items():
            edge = float(dict(key)["le"])
            edges[edge] = edges.get(edge, 0.0) + sign * count
    return quantile(edges, 0.5), quantile(edges, 0.99)


def quantile(below: Mapping[float, float], share: float) -> float:
    """A quantile from counts at or below edges, evenly spread inside a bin; NaN where nothing was counted.

    >>> quantile({1.0: 0.0, 2.0: 10.0, float("inf"): 10.0}, 0.5)
    1.5
    """
    edges: Iterable[float] = sorted(below)
    whole = max(below.values(), default=0.0)
    last_edge, last_count = 0.0, 0.0
    if whole <= 0.0:
        return float("nan")
    for edge in edges:
        if below[edge] >= share * whole:
            if edge == float("inf"):
                return last_edge
            inside = (share * whole - last_count) / (below[edge] - last_count)
            return last_edge + inside * (edge - last_edge)
        last_edge, last_count = edge, below[edge]
    return last_edge
