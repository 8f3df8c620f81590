"""Run inside the environment that holds Dynamo: replay one trace, print one JSON object, write times of requests.

    python dynamo_replay.py '{"trace": ..., "workers": 4, "router": "round_robin", "engine": {...}, "times": ...}'

``times`` is a file for ``COLUMNS`` of every request, as 64-bit floats row by row, or null: then nothing is kept per
request. Needs the standard library and Dynamo only.
"""

from __future__ import annotations

import importlib
import json
import math
import resource
import sys
import time
from array import array
from pathlib import Path
from typing import Any

COLUMNS = (
    "arrival_time_ms", "first_token_ms", "last_token_ms", "input_length", "output_length", "decode_worker_idx",
    "readmission_count",
)  # fmt: skip
TRACE_BLOCK_TOKENS = 512


def replay(job: dict[str, Any]) -> dict[str, Any]:
    """Replay ``job["trace"]``; seconds are those of the call, reading the trace included."""
    dynamo = importlib.import_module("dynamo._core")

    config = json.dumps({"engine": job["engine"], "num_gpu_blocks_is_explicit": True})
    clock = time.perf_counter()
    result = dynamo.run_mocker_trace_replay(
        [job["trace"]],
        extra_engine_args=dynamo._normalize_mocker_config(config),
        num_workers=job["workers"],
        router_mode=job["router"],
        trace_block_size=TRACE_BLOCK_TOKENS,
        capture_per_request=job["times"] is not None,
        capture_planner_details=False,
    )
    seconds = time.perf_counter() - clock
    if job["times"] is not None:
        _write(Path(job["times"]), result.per_request)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"call_s": seconds, "peak_rss_bytes": peak_bytes, "summary": dict(result.summary)}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Columns of all requests; NaN where a request has no such time."""
    values = array("d")
    for row in rows:
        values.extend(math.nan if row[name] is None else float(row[name]) for name in COLUMNS)
    path.write_bytes(values.tobytes())


if __name__ == "__main__":
    print(json.dumps(replay(json.loads(sys.argv[1]))))
