"""The result file of ``vllm bench serve --save-result --save-detailed`` as a table of requests.

One JSON object holds a list for each column; ``start_times`` is on the clock of the client and is
missing from older versions, whose requests therefore have no times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from infermix.errors import InputError

_LISTS = ("input_lens", "output_lens", "start_times", "ttfts", "itls")


class BenchResult(msgspec.Struct, frozen=True):
    """The lists of a result file that say what was asked and when."""

    input_lens: list[int] | None = None
    output_lens: list[int] | None = None
    start_times: list[float] = []
    ttfts: list[float] = []
    itls: list[list[float]] = []
    model_id: str = ""


def read_bench(file: Path, where: str) -> tuple[dict[str, list[Any]], dict[str, int]]:
    """(columns by our names, repairs) of a result file.

    The service time of a request is its time to first token and its inter-token latencies.

    Raises
    ------
    InputError
        Not such a file, saved without ``--save-detailed``, or lists of different lengths.
    """
    try:
        found = msgspec.json.decode(file.read_bytes(), type=BenchResult)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise InputError(
            "not a benchmark result", where=where, value=str(fault), allowed="the JSON of vllm bench serve"
        ) from None
    if found.input_lens is None or found.output_lens is None:
        raise InputError(
            "no lengths of single requests",
            where=where,
            value="no input_lens and output_lens",
            allowed="the JSON of vllm bench serve",
            mend="save it with --save-result --save-detailed",
        )
    lengths = {name: len(values) for name in _LISTS if (values := getattr(found, name, None))}
    if len(set(lengths.values())) > 1:
        raise InputError("lists differ in length", where=where, value=lengths, allowed="one entry for each request")
    columns: dict[str, list[Any]] = {"input_tokens": found.input_lens, "output_tokens": found.output_lens}
    if found.start_times:
        columns["t_s"] = found.start_times
    if found.ttfts and found.itls:
        columns["service_s"] = [ttft + sum(itl) for ttft, itl in zip(found.ttfts, found.itls, strict=True)]
    if found.model_id:
        columns["model"] = [found.model_id] * len(found.input_lens)
    return columns, {}
