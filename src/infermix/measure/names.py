"""What columns of request logs are called: ours, and those of engines, gateways and benchmarks.

Every quantity is looked for under its names in this order. Times of day may be seconds, milliseconds since 1970, or
dates. How long something took is in seconds; names that end in ``_ms`` are in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from infermix.errors import InputError, near_miss

NAMES: dict[str, tuple[str, ...]] = {
    "t_s": (
        "t_s", "arrival_s", "arrival_time", "arrived_at", "start_time", "startTime", "request_time", "timestamp",
        "received", "created_at", "created",
    ),
    "queued_s": ("queued_s", "queued_ts"),
    "input_tokens": ("input_tokens", "prompt_tokens", "input_toks", "num_prompt_tokens", "input_len"),
    "output_tokens": ("output_tokens", "completion_tokens", "output_toks", "num_generation_tokens", "output_len"),
    "cached_tokens": ("cached_tokens", "num_cached_tokens"),
    "first_s": (
        "first_s", "first_token_ts", "first_token_time", "completionStartTime", "completion_start_time",
    ),
    "last_s": ("last_s", "last_token_ts", "finished_time", "last_token_time", "endTime", "end_time"),
    "ttft_s": ("ttft_s", "ttft", "time_to_first_token"),
    "ttft_ms": ("ttft_ms", "time_to_first_token_ms"),
    "e2e_s": ("e2e_s", "latency_s", "e2e_latency", "api_time_s", "duration_s", "response_time"),
    "e2e_ms": ("e2e_ms", "latency_ms", "duration_ms", "response_time_ms"),
    "tpot_s": ("tpot_s", "tpot"),
    "tpot_ms": ("tpot_ms", "itl_ms"),
    "class": ("class", "tier", "service_tier", "kind", "route"),
    "model": ("model",),
    "status": ("status", "status_code"),
    "error": ("error", "exception", "error_str"),
}  # fmt: skip
"""Our name → names in files."""

NEEDED = ("t_s", "input_tokens", "output_tokens")
TOLD_BY = {
    "the end of requests": ("last_s", "e2e_s", "e2e_ms", "tpot_s", "tpot_ms"),
}


def find_names(have: Sequence[str], stated: Mapping[str, str], where: str) -> dict[str, str]:
    """Our name → the file's, for everything that the file has.

    Raises
    ------
    InputError
        A stated column that is not there, or no column for something that is needed.
    """
    for ours, theirs in stated.items():
        if ours not in NAMES:
            raise InputError(
                "no such quantity", where="--columns", value=ours, allowed=", ".join(NAMES), mend=near_miss(ours, NAMES)
            )
        if theirs not in have:
            raise InputError(
                f"column {theirs} (for {ours}) is missing", where=where, value=list(have), mend=near_miss(theirs, have)
            )
    known = {ours: next((name for name in names if name in have), "") for ours, names in NAMES.items()}
    found = {ours: name for ours, name in known.items() if name} | dict(stated)
    for ours in NEEDED:
        if ours not in found:
            raise _missing(ours, NAMES[ours], have, where)
    for what, any_of in TOLD_BY.items():
        if not any(ours in found for ours in any_of):
            raise _missing(what, [name for ours in any_of for name in NAMES[ours]], have, where)
    return found


def _missing(what: str, names: Sequence[str], have: Sequence[str], where: str) -> InputError:
    return InputError(
        f"no column tells {what}",
        where=where,
        value=list(have),
        allowed=", ".join(names),
        mend=f"name it with --columns {what if what in NAMES else 'e2e_s'}=COLUMN",
    )
