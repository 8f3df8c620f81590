"""Load that several workers see of each other: all instances at once as one by one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.serve.config import GatewayFile, load_gateway
from infermix.serve.live import Live
from infermix.serve.pools import pool_specs
from infermix.serve.shared import Shared
from infermix.serve.signals import Signals

SIGNALS = Signals("default", -1, 0, "auto", float("inf"), None, None)
SEEN = ("inflight", "waiting", "running", "queued_tokens", "context_tokens")


def a_file(folder: Path, backends: int) -> GatewayFile:
    rows = [
        f'[[backends]]\nurl = "http://127.0.0.1:{9000 + j}"\nname = "b{j}"\nmodel = "m"\nttft_s = 0.01\ntpot_s = 0.01\n'
        for j in range(backends)
    ]
    file = folder / "gateway.toml"
    file.write_text('[gateway]\npolicy = "least_wait"\n' + "".join(rows))
    return load_gateway(file)


@pytest.mark.parametrize("compiled", ["1", "0"])
def test_workers_see_the_sum_of_all_and_load_from_elsewhere(tmp_path: Path, compiled: str) -> None:
    told = "from tests.serve.test_serve_live import check; check({!r}, 3); check({!r}, 40)"
    command = [sys.executable, "-c", told.format(str(tmp_path), str(tmp_path))]
    subprocess.run(
        command, check=True, env={**os.environ, "INFERMIX_JIT": compiled, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def check(folder: str, backends: int) -> None:
    """Three workers place requests; what one of them sees is held against a plain sum over all that are under way."""
    file = a_file(Path(folder), backends)
    draw, shared, specs = random.Random(1), Shared(3, backends), pool_specs(file, catalog())
    workers = [Live(file, specs) for _ in range(3)]
    for number, live in enumerate(workers):
        live.share(shared, number)
    signals = SIGNALS._replace(class_name=next(iter(file.classes)))
    most, under_way = int(np.asarray(workers[0].view.max_num_seqs)[0]), []
    for turn in range(300):
        live = draw.choice(workers)
        if under_way and draw.random() < 0.3:
            owner, placed = under_way.pop(draw.randrange(len(under_way)))
            owner.left(placed)
        live.mark("m", signals, 100, float(turn))
        ask = live.ask(signals, float(turn), draw.randrange(1, 500), 0, -1)
        under_way.append((live, live.placed(draw.randrange(backends), ask, -1, signals.class_name)))
    live = workers[0]
    live.mark("m", signals, 100, 300.0)
    live.scraped(1, 5_000, 0, 0.1, 300.0)
    live.scraped(1, 5_000, 0, 0.1, 300.0)
    live.mark("m", signals, 100, 300.0)
    seen = {name: np.asarray(getattr(live.view, name)).tolist() for name in SEEN}
    for j in range(backends):
        mine = [placed.ask for _, placed in under_way if placed.instance == j]
        inflight = len(mine)
        if j == 1:
            inflight = 5_000  # as the instance says itself
        waiting = max(0, inflight - most)
        wanted = [inflight, waiting, inflight - waiting]
        wanted += [sum(ask.input_tokens for ask in mine)] * 2
        assert [seen[name][j] for name in SEEN] == wanted, j
