"""Live streams through the gateway to emulated chips, then the same in the simulator: same picks, same times.

python benchmarks/replay.py [--requests N]

Every pick must be the same again; over all requests, p50 and p99 of TTFT and TPOT may differ by a tenth.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent / "within"))
import open_loop

from infermix.measure.replay import replay

EXAMPLE = Path(__file__).parents[1] / "examples" / "serve" / "gateway.toml"
FIRST_PORT, GATEWAY_PORT = 19751, 19780
PER_S, TOLERANCE = 20.0, 0.10


def on_ports_of_ones_own(folder: str) -> Path:
    file = Path(folder) / "gateway.toml"
    text = EXAMPLE.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{GATEWAY_PORT}")
    for place in range(3):
        text = text.replace(f"127.0.0.1:{9101 + place}", f"127.0.0.1:{FIRST_PORT + place}")
    file.write_text(text)
    return file


def main() -> int:
    requests = int(sys.argv[sys.argv.index("--requests") + 1]) if "--requests" in sys.argv else 1000
    with tempfile.TemporaryDirectory() as folder:
        file, log = on_ports_of_ones_own(folder), Path(folder) / "decisions.jsonl"
        infermix = [sys.executable, "-m", "infermix"]
        emulator = subprocess.Popen([*infermix, "emulate", str(file)], stderr=subprocess.DEVNULL)
        time.sleep(6.0)
        gateway = subprocess.Popen([*infermix, "serve", str(file), "--decisions", str(log)], stderr=subprocess.DEVNULL)
        time.sleep(4.0)
        try:
            whole = uvloop.run(open_loop.offered(GATEWAY_PORT, requests, PER_S))
        finally:
            for process in (gateway, emulator):
                process.terminate()
                process.wait()
        found = replay(log)
    print(f"{whole:,} of {requests:,} streams whole; {found['identical']:,} of {found['decisions']:,} picks the same")
    failed = whole < requests or found["identical"] < found["decisions"]
    for name, row in found["classes"].items():
        for what in ("ttft_s", "tpot_s"):
            told = "  ".join(
                f"{q} {row[what]['live'][q] * 1e3:8.2f} live {row[what]['simulated'][q] * 1e3:8.2f} simulated [ms]"
                for q in ("p50", "p99")
            )
            over = name == "all" and any(abs(r - 1.0) > TOLERANCE for r in row[what]["ratio"].values())
            failed = failed or over
            print(f"{name:7s} {what[:4].upper()}  {told}{'  OVER' if over else ''}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
