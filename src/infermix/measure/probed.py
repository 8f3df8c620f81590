"""From answers of a running server to requests with measured times: a closed loop at every level."""

from __future__ import annotations

import msgspec
import numpy as np

from infermix.arrays import Bools, Floats, Ints
from infermix.measure.timed import Timed
from infermix.serve.probe import Probe
from infermix.serve.stream import Answer
from infermix.workload.requests import make_requests

APART = 100.0
"""Levels lie so many times the whole probe apart, so that a slow simulation of one does not reach into the next."""


def timed_probe(probe: Probe) -> Timed:
    """The probe as requests of one class a concurrency; levels that were kept from the fit are classes of their own.

    Clients of a level begin at one moment, and all take the same time to ask again: those who are answered together
    ask together, and an engine takes them in together. Times that differ by the luck of threads would part them.
    """
    first_of = {(at, client): answer.sent_s for at, client, answer in reversed(_in_order(probe))}
    rows = sorted(_in_order(probe), key=lambda row: (row[0], row[2].sent_s > first_of[row[:2]], row[2].sent_s))
    level = np.array([row[0] for row in rows])
    answers = [row[2] for row in rows]
    sent, first, last = (np.array([getattr(a, name) for a in answers]) for name in ("sent_s", "first_s", "last_s"))
    inputs, cached, outputs = (
        np.array([getattr(a, name) for a in answers]) for name in ("input_tokens", "cached_tokens", "output_tokens")
    )
    parent = _before([(row[0], row[1]) for row in rows])
    later = parent >= 0
    pause = float(np.median(np.maximum(sent - last[parent], 0.0)[later])) if later.any() else 0.0
    names = tuple(dict.fromkeys(class_of(probe, i) for i in range(len(probe.levels))))
    requests = make_requests(
        names,
        _nominal(sent - probe.began_s, level, later, APART * float(last.max() - probe.began_s)),
        inputs,
        outputs,
        cached_tokens=cached,
        class_id=[names.index(class_of(probe, int(at))) for at in level],
        parent=parent,
        think_s=np.where(later, pause, 0.0),
    )
    return Timed(
        requests,
        first - sent,
        last - sent,
        format="probe",
        left_out=dict(probe.failures),
        began_unix_s=probe.began_unix_s,
        closed=True,
    )


def _nominal(sent_s: Floats, level: Ints, later: Bools, apart_s: float) -> Floats:
    """Times of arrival in order, levels far apart; the first requests of a level come when its first one did."""
    begins = {int(one): float(sent_s[level == one].min()) for one in np.unique(level)}
    start = np.array([begins[int(one)] for one in level])
    return np.asarray(np.where(later, sent_s, start) + level * apart_s)


def _in_order(probe: Probe) -> list[tuple[int, int, Answer]]:
    """(level, client, answer) in the order in which they were asked."""
    return sorted(probe.answers, key=lambda row: row[2].sent_s)


def class_of(probe: Probe, level: int) -> str:
    """The class of a level."""
    found = probe.levels[level]
    what = "1 client" if found.clients == 1 else f"{found.clients} clients"
    return f"{what}, check" if found.check else what


def _before(clients: list[tuple[int, int]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """For every row the last one before it of the same client; -1 where there is none.

    >>> _before([(0, 1), (0, 2), (0, 1)]).tolist()
    [-1, -1, 0]
    """
    latest: dict[tuple[int, int], int] = {}
    found = []
    for row, client in enumerate(clients):
        found.append(latest.get(client, -1))
        latest[client] = row
    return np.array(found, dtype=np.int64)


def probe_lines(probe: Probe) -> bytes:
    """The measured requests as JSON lines that ``backtest`` reads; ``round`` and ``client`` say who asked."""
    lines = []
    for at, client, answer in _in_order(probe):
        row = {
            "t_s": round(probe.began_unix_s + answer.sent_s - probe.began_s, 6),
            "input_tokens": answer.input_tokens,
            "cached_tokens": answer.cached_tokens,
            "output_tokens": answer.output_tokens,
            "ttft_s": round(answer.first_s - answer.sent_s, 6),
            "e2e_s": round(answer.last_s - answer.sent_s, 6),
            "class": class_of(probe, at),
            "round": probe.levels[at].lap,
            "client": client,
        }
        lines.append(msgspec.json.encode(row))
    return b"\n".join(lines) + b"\n"
