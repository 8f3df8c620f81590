"""Every request of a run as one table, written as Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infermix.errors import InputError
from infermix.sim.result import COMPLETED, REFUSED, UNFINISHED, Run
from infermix.summary.simulation import Simulation, good_requests

if TYPE_CHECKING:
    import polars as pl

STATUS = {UNFINISHED: "unfinished", COMPLETED: "completed", REFUSED: "refused"}


def request_table(found: Simulation) -> pl.DataFrame:
    """One row for each request of the first seed at the first speed, in order of the traffic.

    Times are null where they do not exist; so are pool and instance of requests that no instance took, session
    where there is none, and the arrival of a request whose parent never ended.
    """
    import polars as pl

    run = next(iter(found.runs.values()))
    names = [pool.name for pool in found.fleet.pools]
    requests, codes = run.requests, [STATUS[code] for code in sorted(STATUS)]
    place = run.instance - np.searchsorted(run.pool, run.request_pool)
    times = {
        "arrival_s": requests.arrival_s, "queue_s": run.queue_s, "ttft_s": run.ttft_s, "tpot_s": run.tpot_s,
        "e2e_s": run.e2e_s,
    }  # fmt: skip
    frame = pl.DataFrame(
        {
            "class": _named(requests.class_id, list(requests.class_names)),
            "session": requests.session,
            "pool": _named(run.request_pool, names),
            "instance": place.astype(np.int32),
            **times,
            "input_tokens": requests.input_tokens,
            "cached_tokens": requests.cached_tokens,
            "output_tokens": requests.output_tokens,
            "status": _named(run.status, codes),
            "good": good_requests(found.study, run),
        }
    )
    known = pl.col("pool").is_not_null()
    return frame.with_columns(
        *(pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in times),
        pl.when(pl.col("session") >= 0).then(pl.col("session")).alias("session"),
        pl.when(known).then(pl.col("instance")).alias("instance"),
    )


def _named(codes: np.ndarray, names: list[str]) -> pl.Series:
    """Codes as words; negative codes are null."""
    import polars as pl

    words = pl.Series(names, dtype=pl.Enum(names))
    return words.gather(pl.Series(np.where(codes >= 0, codes, 0).astype(np.uint32))).zip_with(
        pl.Series(codes >= 0), pl.Series([None], dtype=words.dtype).new_from_index(0, len(codes))
    )


def write_requests(found: Simulation, path: str | Path) -> int:
    """Write the table as Parquet; returns the number of rows. InputError when it cannot be written."""
    frame = request_table(found)
    try:
        frame.write_parquet(Path(path))
    except OSError as fault:
        raise InputError(f"cannot be written: {fault.strerror or fault}", where=str(path)) from None
    return len(frame)


def first_run(found: Simulation) -> Run:
    """The run of the first seed at the first speed."""
    return next(iter(found.runs.values()))
