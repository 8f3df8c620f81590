"""The decision log: for every decision what the policy saw and said, so that it can be asked again.

Lines are of three kinds. The first says what never changes: the gateway file, and the view's columns at the start.
``{"n": ...}`` is a decision: the request as the policy saw it, its home, the pick, and ``d``, the columns that
changed since the line before as ``{column: [[place, value], ...]}``. ``{"done": ...}`` says what became of it.
Infinite and missing numbers are written as text, since JSON has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from infermix.errors import InputError
from infermix.route.view import Ask, FleetView
from infermix.serve.config import GatewayFile
from infermix.serve.journal import Journal

SCHEMA = 1
_CHANGING = (
    "eligible", "inflight", "waiting", "running", "queued_tokens", "context_tokens", "age_s", "prefill_s_per_token",
    "step_s", "step_base_s", "step_per_seq_s", "step_per_kv_s", "slo_ttft_s", "slo_ttft_s_per_token", "slo_tpot_s",
    "slo_e2e_s", "delay_usd_per_s", "refuse_late", "sent", "share",
)  # fmt: skip


class DecisionLog:
    """Writes decisions."""

    def __init__(self, journal: Journal, file: GatewayFile, view: FleetView) -> None:
        self._journal = journal
        self._last = {name: _flat(getattr(view, name)) for name in _CHANGING}
        columns = {name: _told_column(_flat(column)) for name, column in view._asdict().items()}
        self._journal.add({
            "infermix_decisions": SCHEMA, "file": _plain(file), "path": str(Path(file.path).absolute()),
            "columns": columns,
        })  # fmt: skip

    def decided(self, ask: Ask, home: int, pick: int, view: FleetView, at_s: float, class_name: str) -> None:
        """One decision, asked ``at_s`` on the clock of the day."""
        changes = {}
        for name, before in self._last.items():
            now = _flat(getattr(view, name))
            if now != before:
                changes[name] = [
                    [i, _told(b)]
                    for i, (a, b) in enumerate(zip(before, now, strict=True))
                    if a != b and (a == a or b == b)
                ]
                self._last[name] = now
        self._journal.add({
            "n": ask.number, "at": at_s, "class": class_name, "home": home, "pick": pick,
            "ask": [_told(x) for x in ask], "d": changes,
        })  # fmt: skip

    def done(self, number: int, record: dict[str, Any]) -> None:
        """What became of a request."""
        self._journal.add({"done": number} | record)


def _flat(column: Any) -> list[Any]:
    if isinstance(column, list):
        return list(column)
    flat: list[Any] = np.asarray(column).ravel().tolist()
    return flat


def _told(value: Any) -> Any:
    return value if not isinstance(value, float) or isfinite(value) else str(value)


def _told_column(column: list[Any]) -> list[Any]:
    return [_told(x) for x in column]


def _plain(file: GatewayFile) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(file)
    del plain["path"]
    return {name: part for name, part in plain.items() if name != "keys"}


class Decision(msgspec.Struct):
    """A decision as it was logged, and the view that it was made on (valid until the next one is read)."""

    number: int
    at_s: float
    class_name: str
    ask: Ask
    home: int
    pick: int


class DecisionReader:
    """Reads a decision log: its head, then every decision with the view as it was."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            self._lines = Path(path).read_bytes().splitlines()
        except OSError as fault:
            raise InputError(f"cannot be read: {fault.strerror}", where=self.path) from None
        head = self._decoded(0) if self._lines else {}
        if head.get("infermix_decisions") != SCHEMA:
            raise InputError(
                "not a decision log", where=self.path, value=head.get("infermix_decisions"),
                allowed=f"a file of [gateway] decisions, schema {SCHEMA}",
            )  # fmt: skip
        self.file: dict[str, Any] = head["file"]
        self.file_path: str = head["path"]
        classes, pools = len(self.file["classes"]) + 1, len(set(head["columns"]["pool"]))
        self.view = FleetView(**{
            name: _array(column, (classes, pools) if name in ("share", "sent") else None)
            for name, column in head["columns"].items()
        })  # fmt: skip
        self.done: dict[int, dict[str, Any]] = {}

    def __iter__(self) -> Iterator[Decision]:
        """Each decision, ``view`` as it was then; ``done`` fills on the way."""
        columns = {name: np.reshape(column, -1) for name, column in self.view._asdict().items()}
        for place in range(1, len(self._lines)):
            record = self._decoded(place)
            if "done" in record:
                self.done[record["done"]] = record
                continue
            for name, changes in record["d"].items():
                for i, value in changes:
                    columns[name][i] = float(value) if isinstance(value, str) else value
            ask = Ask._make(float(x) if isinstance(x, str) else x for x in record["ask"])
            yield Decision(record["n"], record["at"], record["class"], ask, record["home"], record["pick"])

    def _decoded(self, place: int) -> dict[str, Any]:
        try:
            record: dict[str, Any] = msgspec.json.decode(self._lines[place], type=dict[str, Any])
        except msgspec.DecodeError:
            if place == len(self._lines) - 1 and place:
                return {"done": -1}  # the writer was stopped within its last line
            raise InputError("not a line of a decision log", where=f"{self.path}: line {place + 1}") from None
        return record


def _array(column: list[Any], shape: tuple[int, int] | None) -> Any:
    values = [float(x) if isinstance(x, str) else x for x in column]
    if any(isinstance(x, bool) for x in values):
        return np.array(values, dtype=np.bool_)
    kind = np.float64 if any(isinstance(x, float) for x in values) else np.int64
    array = np.array(values, dtype=kind)
    return array if shape is None else array.reshape(shape)
