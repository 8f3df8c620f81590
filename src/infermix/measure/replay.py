"""A gateway's decision log played again: the same picks from the same views, and the same requests in the simulator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infermix import jit
from infermix.arrays import Floats, Ints
from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.route.registry import find_policy
from infermix.route.view import Ask, FleetView
from infermix.serve.choose import choose, make_chooser
from infermix.serve.config import GatewayFile, read_gateway
from infermix.serve.decisions import DecisionReader
from infermix.serve.pools import pool_specs
from infermix.sim.result import COMPLETED, Run
from infermix.sim.run import simulate_pools
from infermix.workload.requests import Requests, make_requests

SHOWN = 5
"""Decisions that differ, of which the answer tells."""
OK = 200


@dataclass(frozen=True)
class Live:
    """Requests that were answered, in order of arrival, with what was measured.

    Attributes
    ----------
    began_s, first_s, last_s
        On the clock of the day [s].
    instance
        Who answered.
    left_out
        Requests that were logged and have no complete answer with times.
    """

    requests: Requests
    began_s: Floats
    first_s: Floats
    last_s: Floats
    instance: Ints
    left_out: int


def replay(path: str | Path) -> dict[str, Any]:
    """Play a decision log again; keys are explained in ``docs/serve.md``.

    Raises
    ------
    InputError
        Not a decision log, or nothing in it.
    """
    reader = DecisionReader(path)
    file = read_gateway(reader.file, str(path))
    decisions, differ = _ask_again(reader, file)
    if not decisions:
        raise InputError("no decision in it", where=str(path))
    found: dict[str, Any] = {
        "decisions": decisions,
        "identical": decisions - len(differ),
        "different": differ[:SHOWN],
        "policy": file.gateway.policy,
    }
    live = _live(reader, file)
    if len(live.requests):
        run = simulate_logged(live, file)
        found |= {"requests": len(live.requests), "left_out": live.left_out, "classes": _compared(live, run)}
    return found


def _ask_again(reader: DecisionReader, file: GatewayFile) -> tuple[int, list[dict[str, Any]]]:
    """(decisions, those that come out otherwise): the policy, compiled, on every view as it was."""
    folder = Path(reader.file_path).parent
    policy = find_policy(file.gateway.policy, f"{reader.path}: gateway.policy", folder)
    example = Ask(0, 0, 0, -1, 0.0, 1, 0, 1.0, 0, np.inf, 0.5, -1)
    chooser = make_chooser(policy, reader.view, example, sticky=file.gateway.sticky)
    count, differ = 0, []
    for decision in reader:
        pick = choose(chooser, reader.view, decision.ask, decision.home)
        count += 1
        if pick != decision.pick:
            differ.append({"number": decision.number, "logged": decision.pick, "again": pick})
    return count, differ


def _live(reader: DecisionReader, file: GatewayFile) -> Live:
    """What the log says became of the requests (``reader`` has been read to its end)."""
    asked = [row for row in reader.done.values() if "began" in row]
    rows = [r for r in asked if r["status"] == OK and r["first"] is not None and r.get("completion_tokens", 0) > 0]
    rows.sort(key=lambda row: row["began"])
    names = tuple(file.classes)
    began = np.array([row["began"] for row in rows], dtype=np.float64)
    requests = make_requests(
        names,
        began - (began[0] if len(began) else 0.0),
        [row["prompt_tokens"] for row in rows],
        [row["completion_tokens"] for row in rows],
        cached_tokens=[min(row["cached_tokens"], row["prompt_tokens"] - 1) for row in rows],
        class_id=[names.index(row["class"]) for row in rows],
    )
    return Live(
        requests=requests,
        began_s=began,
        first_s=np.array([row["first"] for row in rows], dtype=np.float64),
        last_s=np.array([row["last"] for row in rows], dtype=np.float64),
        instance=np.array([row["instance"] for row in rows], dtype=np.int64),
        left_out=len(asked) - len(rows),
    )


def simulate_logged(live: Live, file: GatewayFile) -> Run:
    """The same requests on the modelled fleet, each on the instance that answered it."""
    picks = live.instance

    def logged(view: FleetView, ask: Ask) -> int:  # noqa: ARG001 - a policy's signature
        return int(picks[ask.number])

    return simulate_pools(live.requests, pool_specs(file, catalog()), jit.kernel(logged, cache=False))


def _compared(live: Live, run: Run) -> dict[str, Any]:
    """Class → live and simulated times side by side."""
    done = run.status == COMPLETED
    ours = _times(live.began_s, live.first_s, live.last_s, live.requests.output_tokens)
    theirs = _times(run.requests.arrival_s, run.first_s, run.last_s, run.requests.output_tokens)
    groups = {name: live.requests.class_id == c for c, name in enumerate(live.requests.class_names)}
    groups["all"] = np.ones(len(done), dtype=np.bool_)
    found = {}
    for name, members in groups.items():
        mine = members & done
        if not mine.any():
            continue
        row: dict[str, Any] = {"requests": int(members.sum())}
        for what in ("ttft_s", "tpot_s"):
            real, model = _quantiles(ours[what][mine]), _quantiles(theirs[what][mine])
            row[what] = {"live": real, "simulated": model, "ratio": {q: real[q] / model[q] for q in real}}
        found[name] = row
    return found


def _times(began_s: Floats, first_s: Floats, last_s: Floats, tokens: Any) -> dict[str, Floats]:
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = np.where(tokens > 1, (last_s - first_s) / (tokens - 1), np.nan)
    return {"ttft_s": first_s - began_s, "tpot_s": tpot}


def _quantiles(values: Floats) -> dict[str, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return {}
    return {name: float(np.quantile(known, share)) for name, share in (("p50", 0.5), ("p99", 0.99))}
