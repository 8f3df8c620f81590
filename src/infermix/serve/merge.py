"""Metrics of several workers as one: each leaves its own in a file, and whoever is asked adds them up."""

from __future__ import annotations

from pathlib import Path

import msgspec

from infermix.serve.prometheus import Family, Registry

SUMMED_GAUGES = frozenset({"infermix_inflight_requests", "infermix_queue_depth"})


class Snapshot(msgspec.Struct):
    """A worker's metrics: family → labels → value, and → (counts, total)."""

    values: dict[str, list[tuple[tuple[str, ...], float]]]
    histograms: dict[str, list[tuple[tuple[str, ...], list[int], float]]]


def snapshot_of(registry: Registry) -> Snapshot:
    """What a registry holds."""
    return Snapshot(
        {name: [(labels, v.value) for labels, v in f.values.items()] for name, f in registry.families.items()},
        {
            name: [(labels, h.counts, h.total) for labels, h in f.histograms.items()]
            for name, f in registry.families.items()
        },
    )


def add(family: Family, found: Snapshot) -> None:
    """Add another worker's part to a family; of most gauges the largest counts."""
    sums = family.kind == "counter" or family.name in SUMMED_GAUGES
    for labels, amount in found.values.get(family.name, ()):
        value = family.of(*labels)
        value.value = value.value + amount if sums else max(value.value, amount)
    for labels, counts, total in found.histograms.get(family.name, ()):
        family.observe(0.0, *labels)
        mine = family.histograms[tuple(labels)]
        mine.counts[0] -= 1
        mine.counts = [a + b for a, b in zip(mine.counts, counts, strict=True)]
        mine.total += total


class Snapshots:
    """The folder in which workers leave their metrics."""

    def __init__(self, folder: Path, worker: int) -> None:
        self._folder, self._worker = folder, worker

    def leave(self, registry: Registry) -> None:
        """Write this worker's metrics."""
        path = self._folder / str(self._worker)
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.msgpack.encode(snapshot_of(registry)))
        part.replace(path)

    def merged(self, registry: Registry) -> bytes:
        """All workers' metrics as text."""
        whole = Registry()
        mine = snapshot_of(registry)
        parts = [mine]
        others = [p for p in self._folder.iterdir() if p.name.isdigit() and int(p.name) != self._worker]
        parts += [msgspec.msgpack.decode(path.read_bytes(), type=Snapshot) for path in others]
        for name, family in registry.families.items():
            same = whole.families[name] = Family(name, family.kind, family.text, family.labels, family.edges)
            for part in parts:
                add(same, part)
        return whole.text()
