"""Counters, gauges and histograms in Prometheus' text format, without a client library."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
TOKEN_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
TEXT_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


class Value:
    """One counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Count more."""
        self.value += amount

    def set(self, value: float) -> None:
        """Set a gauge."""
        self.value = value


class Histogram:
    """How many observations fell at or below each edge."""

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges, self.counts, self.total = edges, [0] * (len(edges) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value


class Family:
    """A metric with labels: one value or histogram for each combination that occurs."""

    def __init__(self, name: str, kind: str, text: str, labels: tuple[str, ...], edges: tuple[float, ...]) -> None:
        self.name, self.kind, self.text, self.labels, self.edges = name, kind, text, labels, edges
        self.values: dict[tuple[str, ...], Value] = {}
        self.histograms: dict[tuple[str, ...], Histogram] = {}

    def of(self, *labels: str) -> Value:
        """The counter or gauge with these values of the labels."""
        found = self.values.get(labels)
        if found is None:
            found = self.values[labels] = Value()
        return found

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Count more."""
        self.of(*labels).value += amount

    def histogram(self, *labels: str) -> Histogram:
        """The histogram with these values of the labels."""
        found = self.histograms.get(labels)
        if found is None:
            found = self.histograms[labels] = Histogram(self.edges)
        return found

    def observe(self, value: float, *labels: str) -> None:
        """Count one observation."""
        self.histogram(*labels).observe(value)

    def lines(self) -> Iterator[str]:
        """The family in text format."""
        yield f"# HELP {self.name} {self.text}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.values.items():
            yield f"{self.name}{_labelled(self.labels, labels)} {_number(value.value)}"
        for labels, histogram in self.histograms.items():
            yield from self._histogram(labels, histogram)

    def _histogram(self, labels: tuple[str, ...], histogram: Histogram) -> Iterator[str]:
        below = 0
        for edge, count in zip((*histogram.edges, float("inf")), histogram.counts, strict=True):
            below += count
            le = "+Inf" if edge == float("inf") else _number(edge)
            yield f"{self.name}_bucket{_labelled((*self.labels, 'le'), (*labels, le))} {below}"
        yield f"{self.name}_sum{_labelled(self.labels, labels)} {_number(histogram.total)}"
        yield f"{self.name}_count{_labelled(self.labels, labels)} {below}"


class Registry:
    """All metrics of a server."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}
        self.before: list[Callable[[], None]] = []
        """Called before the text is made, to bring gauges up to date."""

    def _family(
        self, name: str, kind: str, text: str, labels: tuple[str, ...], edges: tuple[float, ...] = ()
    ) -> Family:  # fmt: skip
        made = self.families[name] = Family(name, kind, text, labels, edges)
        return made

    def counter(self, name: str, text: str, *labels: str) -> Family:
        """A metric that only grows."""
        return self._family(name, "counter", text, labels)

    def gauge(self, name: str, text: str, *labels: str) -> Family:
        """A metric that goes up and down."""
        return self._family(name, "gauge", text, labels)

    def histogram(self, name: str, text: str, edges: tuple[float, ...], *labels: str) -> Family:
        """A metric of which the distribution is told."""
        return self._family(name, "histogram", text, labels, edges)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        for bring_up_to_date in self.before:
            bring_up_to_date()
        return ("\n".join(line for family in self.families.values() for line in family.lines()) + "\n").encode()


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _labelled(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + inside + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
