"""Capacities on disk, by content: what was simulated once is read, on the next day, in the next study.

An entry is named by a digest of everything that its value hangs on: the step table, the engine's
settings, the lengths and order of the requests, the promise, the pool size, and the sources of the
simulator and of this search. So entries are never stale; they may be deleted at any time. One
that cannot be read, or that does not carry its own checksum, is found again and written anew.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from dataclasses import fields
from functools import cache as remembered
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from infermix.perf.deployment import Deployment
from infermix.perf.table import StepTable
from infermix.workload.requests import Requests

_SOURCES = ("*.py", "sim/*.py", "route/*.py", "metrics/goodput.py", "plan/capacity.py", "plan/loops.py")


class Store:
    """A folder of figures by digest; with no folder, nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self, key: str) -> float | None:
        """The figure of a key; None where there is none, or none that can be trusted."""
        if self.folder is None:
            return None
        try:
            text = (self.folder / key[:2] / key).read_text(encoding="ascii")
            value, check = text.split()
            figure = float(value)
        except (OSError, ValueError):
            return None
        if check != _check(key, value) or not 0.0 <= figure < math.inf:
            return None
        return figure

    def write(self, key: str, figure: float) -> None:
        """Keep a figure; a disk that refuses is no reason to stop."""
        if self.folder is None:
            return
        value, place = repr(float(figure)), self.folder / key[:2]
        try:
            place.mkdir(parents=True, exist_ok=True)
            handle, written = tempfile.mkstemp(dir=place)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(f"{value} {_check(key, value)}\n")
            Path(written).replace(place / key)
        except OSError:
            return


def user_store() -> Store:
    """The store in ``$XDG_CACHE_HOME/infermix`` (``~/.cache/infermix``)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Store(Path(base) / "infermix" / "capacities")


def digest(*parts: Any) -> str:
    """One name for all parts, the sources that the figure hangs on among them."""
    found = hashlib.sha256(_sources().encode())
    for part in parts:
        found.update(b"|")
        found.update(part if isinstance(part, bytes) else repr(part).encode())
    return found.hexdigest()[:40]


def requests_digest(requests: Requests) -> str:
    """Content of a table of requests."""
    found = hashlib.sha256()
    for field in fields(requests):
        column = getattr(requests, field.name)
        if isinstance(column, np.ndarray):
            found.update(np.ascontiguousarray(column).tobytes())
    return found.hexdigest()[:16]


def engine_digest(deployment: Deployment, table: StepTable) -> str:
    """What the simulator reads of a deployment: its step table and its engine's settings."""
    d = deployment
    settings = (d.max_num_seqs, d.max_batched_tokens, d.role, d.dp, d.pp, d.spec, d.model.max_context, d.is_pipeline)
    rest = (d.kv, msgspec.json.encode(d.model), msgspec.json.encode(d.system.id))
    return digest(table.hash, settings, rest)


@remembered
def _sources() -> str:
    here, found = Path(__file__).parent.parent, hashlib.sha256()
    for pattern in _SOURCES:
        for source in sorted(here.glob(pattern)):
            found.update(source.read_bytes())
    return found.hexdigest()


def _check(key: str, value: str) -> str:
    return hashlib.sha256(f"{key} {value}".encode()).hexdigest()[:16]
