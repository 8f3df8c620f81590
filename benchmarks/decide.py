"""What a decision over 256 backends takes: every policy plain, then compiled; both must pick alike.

python benchmarks/decide.py

Compiled at most 20 µs each, plain at most 200 µs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

BACKENDS, DECISIONS = 256, 60
COMPILED_US, PLAIN_US = 20.0, 200.0


def measured() -> dict[str, tuple[float, list[int]]]:
    """Policy → (median of the times [µs], picks), on a fleet with load drawn at random."""
    import numpy as np

    from infermix import jit
    from infermix.route.names import POLICIES
    from infermix.serve.config import read_gateway
    from infermix.serve.live import Live
    from infermix.serve.pools import pool_specs
    from infermix.serve.signals import Signals

    draw = np.random.default_rng(1)
    backends = [
        {"url": f"http://127.0.0.1:{9000 + i}", "name": f"b{i}", "pool": f"p{i % 4}", "model": "m",
         "ttft_s": 0.05 * (1 + i % 4), "tpot_s": 0.002 * (1 + i % 4), "usd_per_hour": 4.0 / (1 + i % 4)}
        for i in range(BACKENDS)
    ]  # fmt: skip
    loads = draw.integers(0, 30, (3, BACKENDS)).tolist()
    found = {}
    for name in POLICIES:
        classes = {"c": {"model": "m", "ttft_s": 0.5, "tpot_s": 0.01, "value_of_time_usd_per_hour": 10.0}}
        gateway = {"policy": name, "sticky": False}
        file = read_gateway({"gateway": gateway, "classes": classes, "backends": backends}, "benchmark")
        live = Live(file, pool_specs(file, None))  # type: ignore[arg-type] # no backend has a system
        for j in range(BACKENDS):
            live.view.inflight[j], live.view.queued_tokens[j] = loads[0][j], 100 * loads[1][j]
            live.view.context_tokens[j] = 1000 * loads[2][j]
        signals = Signals("c", -1, 0, "auto", float("inf"), None, None)
        live.mark("m", signals, 1000, 0.0)
        asks = [live.ask(signals._replace(session=k % 7), 0.1 * k, 1000, 0, -1) for k in range(DECISIONS)]
        times, picks = [], []
        for ask in [asks[0], *asks]:
            before_s = time.perf_counter()
            pick = live.choose(ask, -1)
            times.append(time.perf_counter() - before_s)
            picks.append(pick)
        found[name] = (sorted(times[1:])[DECISIONS // 2] * 1e6, picks)
    assert (os.environ.get("INFERMIX_JIT") != "0") == jit.ENABLED
    return found


def main() -> int:
    if "--measure" in sys.argv:
        print(json.dumps(measured()))
        return 0
    sides = {}
    for side, switch in (("plain", "0"), ("compiled", "1")):
        command = [sys.executable, __file__, "--measure"]
        told = subprocess.run(
            command, env={**os.environ, "INFERMIX_JIT": switch}, capture_output=True, text=True, check=True
        )
        sides[side] = json.loads(told.stdout)
    failed = False
    print(f"{'policy':24s} {'plain us':>10s} {'compiled us':>12s}")
    for name, (plain_us, picks) in sides["plain"].items():
        compiled_us, again = sides["compiled"][name]
        over = compiled_us > COMPILED_US or plain_us > PLAIN_US or picks != again
        failed = failed or over
        print(f"{name:24s} {plain_us:10.1f} {compiled_us:12.1f}{'  OVER' if over else ''}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
