"""How long ``import infermix`` takes: best of five fresh interpreters, at most 0.15 s.

python benchmarks/import_time.py
"""

from __future__ import annotations

import subprocess
import sys
import time

BOUND_S = 0.15
RUNS = 5


def seconds(code: str) -> float:
    """Best wall time of a fresh interpreter that runs ``code``; one run before is not counted."""
    command = [sys.executable, "-c", code]
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> int:
    """Print the figures; 1 when the import is over its bound."""
    start_s, import_s = seconds("pass"), seconds("import infermix")
    print(
        f"import infermix: {import_s:.3f} s with the interpreter's start, bound {BOUND_S} s; "
        f"start alone {start_s:.3f} s, infermix {max(0.0, import_s - start_s):.3f} s"
    )
    return int(import_s > BOUND_S)


if __name__ == "__main__":
    sys.exit(main())
