"""Sentences and numbers about a simulated run, the same in the terminal and on its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infermix.report import words

RUN_TIMES = {
    "ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E", "itl_s": "ITL", "queue_s": "queue", "session_s": "session",
}  # fmt: skip
"""Times of a class that are shown, in this order; those of turns are those of requests where all have a session."""
REASONS = {
    "no_pool": "no pool serves the class",
    "prompt_too_long": "prompt too long for every pool",
    "answer_too_long": "too long with its answer",
    "policy": "by the policy",
    "gateway": "by the policy, a limit of the class, or with nobody up",
}


def came(summary: Mapping[str, Any]) -> str:
    """How far an interrupted run got.

    >>> came({"arrived": 400_000, "requests": 1_000_000})
    '400,000 of 1,000,000 requests had arrived; only those are judged.'
    """
    return f"{summary['arrived']:,} of {summary['requests']:,} requests had arrived; only those are judged."


def refusals(classes: Mapping[str, Any]) -> list[str]:
    """Why requests were refused, or shortened, class by class.

    >>> refusals({"chat": {"refused_by": {"policy": 3}}})
    ['Refused of chat: 3 by the policy.']
    """
    found = []
    for name, c in classes.items():
        said = [f"{n:,} {REASONS[reason]}" for reason, n in c.get("refused_by", {}).items()]
        if said:
            found.append(f"Refused of {name}: {words.joined(said)}.")
    return found


ENGINE_COLUMNS = {
    "cache_hit_share": "cache hits", "loaded_share": "loaded", "link_busy": "link busy", "restarts": "sent back",
    "on_hours": "hours on",
}  # fmt: skip
"""Columns of pools that use what engines and fleets can do beside plain serving."""


def engine_pools(pools: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Pools of which there is more to tell than of plain ones: caches, links, requests sent back, instances down.

    >>> list(engine_pools({"a": {"restarts": 0, "cache_hit_share": 0.5}, "b": {"restarts": 0}}))
    ['a']
    """
    telling = ("cache_hit_share", "loaded_share", "link_busy")
    return {
        name: p
        for name, p in pools.items()
        if p.get("restarts") or p.get("share_on", 1.0) < 1.0 or any(p.get(key) is not None for key in telling)
    }


def pairs(summary: Mapping[str, Any]) -> list[str]:
    """How ready each pair of a prefill and a decode pool is.

    >>> pairs({"pairs": [{"prefill": "a", "decode": "b", "readiness": "hypothetical", "source": "none known"}]})
    ['Prefill on a, decode on b: hypothetical (none known).']
    """
    return [
        f"Prefill on {p['prefill']}, decode on {p['decode']}: {p['readiness']} ({p['source']})."
        for p in summary.get("pairs", ())
    ]


def between(low: float, high: float) -> str:
    r"""An interval of shares.

    >>> ascii(between(0.9312, 0.9488))
    "'93.1\\u201394.8%'"
    """
    return f"{words.attained(low).removesuffix('%')}\u2013{words.attained(round(high, 9))}"


def span(low: float | None, high: float | None) -> str:
    r"""An interval of times in the unit of its upper end; open where the sample is too small.

    >>> ascii(span(0.01, 0.0125)), span(1.0, None), span(None, None)
    ("'10\\u201312.5 ms'", 'over 1 s', '')
    """
    if low is None and high is None:
        return ""
    if low is None or high is None:
        return f"under {words.seconds(high)}" if low is None else f"over {words.seconds(low)}"
    scale, unit = (1.0, "s") if high >= 0.1 else (1e3, "ms") if high >= 1e-4 else (1e6, "µs")
    return f"{words.digits(low * scale)}\u2013{words.digits(high * scale)} {unit}"
