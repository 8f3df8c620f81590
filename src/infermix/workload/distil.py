"""Distil a trace into a profile of a few kilobytes, so that no trace has to be shipped.

Run ``python -m infermix.workload.distil FOLDER`` to remake the packaged profiles from the traces
in FOLDER. To make a profile of your own traffic::

    Path("mine.toml").write_text(to_toml(distil(read_trace("mine.parquet"), "mine")))
"""

from __future__ import annotations

import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats, Ints
from infermix.errors import InputError
from infermix.rng import uniforms
from infermix.workload.profiles import About, Facts, Profile, Sessions
from infermix.workload.tables import Joint, Quantiles
from infermix.workload.traces import Trace, read_trace
from infermix.workload.turns import turns_of

DRIFT_WINDOW_S = 300.0
"""Changes of the rate slower than this are drift, faster ones burstiness [s]."""
_PLAIN_CUTS = (0.0, 0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98, 1.0)
_PLAIN_SHARE_CUTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_CUT_OFF_INPUT_CUTS = (0.0, 0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, *_PLAIN_CUTS[2:])
_CUT_OFF_OUTPUT_CUTS = (*_PLAIN_CUTS[:-2], 0.93, 0.95, 0.97, 0.98, 0.985, 0.99, 0.994, 0.997, 1.0)
"""Where a limit on the context ties long answers to short prompts, cells are fine at these ends."""
_SESSION_INPUT_CUTS = (0.0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0)
_SESSION_SHARE_CUTS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.97, 0.985, 0.995, 1.0)
_SESSION_OUTPUT_CUTS = (0.0, 0.3, 0.7, 0.93, 1.0)
_TURNS = (0, 1, 3, 8, 24, 64, 128)


def distil(trace: Trace, name: str, *, about: About | None = None) -> Profile:
    """Make a profile of a trace.

    Kept: the distributions of input, uncached and output tokens (means within 2 %, percentiles
    within 10 %), their dependence in coarse cells, and arrivals: without sessions the
    distribution of the times between arrivals after the drift of the rate over windows of
    ``DRIFT_WINDOW_S`` is divided out; with sessions requests per session, times between them,
    pauses and service times where these were recorded, and the lengths by position in the session.
    A trace without times keeps its lengths; arrivals are then drawn by a law.

    Not kept: the drift, what time of day it was, the order of gaps, repeated content.

    Raises
    ------
    InputError
        If the trace has fewer than 100 requests.
    """
    if len(trace) < 100:
        raise InputError(
            "too few requests to make a profile", where=trace.source, value=len(trace), allowed="at least 100"
        )
    inputs, outputs = trace.input_tokens.astype(np.int64), trace.output_tokens.astype(np.int64)
    uncached = inputs - trace.cached_tokens
    warm = trace.cached_tokens > 0
    arrivals = trace.timed and not trace.has_sessions
    gap, cv = _gaps(trace.t_s) if arrivals else (None, 0.0)
    return Profile(
        name=name,
        n=len(trace),
        about=about or About(source=trace.source),
        facts={
            "input_tokens": _facts(inputs),
            "uncached_tokens": _facts(uncached),
            "output_tokens": _facts(outputs),
            "context_tokens": _facts(inputs + outputs),
        },
        input_tokens=quantiles(inputs),
        uncached_share=quantiles((uncached / inputs)[warm], floor=1e-5) if warm.any() else None,
        output_tokens=quantiles(outputs),
        joint=_joint(trace, inputs, uncached / inputs, outputs),
        recorded_rate_per_s=_short(trace.rate_per_s) if arrivals else 0.0,
        cv=cv,
        max_context=_cut_off(inputs + outputs),
        gap=gap,
        sessions=_session_tables(trace) if trace.has_sessions else None,
    )


def quantiles(values: npt.ArrayLike, *, tolerance: float = 0.03, floor: float = 0.5, limit: int = 120) -> Quantiles:
    """A quantile function with as few knots as keep every quantile and the mean.

    Knots are added where the line between two of them is furthest from the data until all
    quantiles are within ``tolerance`` (relative) or ``floor`` (absolute, in the unit of the data),
    then where a segment's share of the mean is wrong by more than 0.1 % of the mean.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    n = len(x)
    rank = (np.arange(n) + 0.5) / n
    knots = sorted({0, n // 2, n - 1})
    allowed = max(abs(float(x.mean())), 1e-300) * n * 1e-3
    while len(knots) < limit:
        worst = [_worst(x, rank, a, b, tolerance, floor, allowed) for a, b in pairwise(knots)]
        error, at = max(worst, default=(0.0, 0))
        if error <= 1.0:
            break
        knots = sorted({*knots, at})
    levels = (0.0, *(_short(rank[k], 6) for k in knots), 1.0)
    ends = [0, *knots, n - 1]
    return Quantiles(levels=levels, values=tuple(_short(x[k]) for k in ends))


def _worst(
    x: Floats, rank: Floats, a: int, b: int, tolerance: float, floor: float, allowed: float
) -> tuple[float, int]:
    """Largest error of the line from knot a to b in units of what is allowed, and the row to split at."""
    if b - a < 2:
        return 0.0, a
    line = np.interp(rank[a : b + 1], (rank[a], rank[b]), (x[a], x[b]))
    off = line - x[a : b + 1]
    error = np.abs(off) / (tolerance * np.abs(x[a : b + 1]) + floor)
    at = int(np.argmax(error[1:-1])) + 1
    return max(float(error[at]), abs(float(off.sum())) / allowed), a + at


def _cut_off(context: Ints) -> int:
    """The longest context where many come close to it, so that there was a limit; else 0."""
    longest = int(context.max())
    return longest if np.quantile(context, 0.99) > 0.99 * longest else 0


def _facts(values: Ints) -> Facts:
    p50, p90, p99 = np.quantile(values, (0.5, 0.9, 0.99))
    return Facts(mean=_short(values.mean(), 6), p50=_short(p50, 6), p90=_short(p90, 6), p99=_short(p99, 6))


def spread(t: Floats) -> Floats:
    """Times of a coarse clock, each spread by lot over its step; finer clocks are left as they are.

    A clock is coarse when most requests share their time with another one; its step is the median
    distance of the times.
    """
    ticks, of = np.unique(t, return_inverse=True)
    if len(ticks) * 2 > len(t) or len(ticks) < 3:
        return t
    return np.sort(ticks[of] + float(np.median(np.diff(ticks))) * uniforms(0, 0, len(t)))


def _gaps(t: Floats) -> tuple[Quantiles, float]:
    """Times between arrivals, drift divided out, in units of their mean; and their CV."""
    t = spread(t)
    t = t - t[0]
    windows = max(int(t[-1] // DRIFT_WINDOW_S), 1)
    edges = np.linspace(0.0, t[-1], windows + 1)
    counts = np.histogram(t, edges)[0]
    gaps = np.diff(np.interp(t, edges, np.concatenate(([0.0], np.cumsum(counts)))))
    gaps /= gaps.mean()
    return quantiles(gaps, tolerance=0.05, floor=0.002), _short(gaps.std(), 4)


def _session_tables(trace: Trace) -> Sessions:
    inside = np.diff(trace.session) == 0
    think = service = None
    if trace.service_s is not None and np.isfinite(trace.service_s).any():
        turns = turns_of(trace)
        think = quantiles(turns.think_s[turns.parent >= 0], tolerance=0.05)
        service = quantiles(turns.service_s, tolerance=0.05, floor=0.05)
    return Sessions(
        requests=quantiles(np.bincount(trace.session)),
        gap_s=quantiles(np.diff(trace.t_s)[inside], tolerance=0.05),
        think_s=think,
        service_s=service,
    )


def _joint(trace: Trace, inputs: Ints, share: Floats, outputs: Ints) -> Joint:
    plain, warm = not trace.has_sessions, share < 1
    turn = np.zeros(len(trace), np.int64)
    if not plain:
        starts = np.flatnonzero(np.diff(trace.session, prepend=-1))
        turn = np.arange(len(trace)) - starts[trace.session]
    turns = tuple(edge for edge in _TURNS if edge <= turn.max())
    input_cuts: tuple[float, ...] = _PLAIN_CUTS if plain else _SESSION_INPUT_CUTS
    output_cuts: tuple[float, ...] = _PLAIN_CUTS if plain else _SESSION_OUTPUT_CUTS
    if plain and _cut_off(inputs + outputs):
        input_cuts, output_cuts = _CUT_OFF_INPUT_CUTS, _CUT_OFF_OUTPUT_CUTS
    share_cuts = (_PLAIN_SHARE_CUTS if plain else _SESSION_SHARE_CUTS) if warm.any() else ()
    state = np.full(len(trace), max(len(share_cuts) - 1, 0))
    if warm.any():
        state[warm] = _bin(share[warm], share_cuts)
    cell = (np.searchsorted(turns, turn, side="right") - 1, _bin(inputs, input_cuts), state, _bin(outputs, output_cuts))
    joint = Joint(turns=turns, input_cuts=input_cuts, share_cuts=share_cuts, output_cuts=output_cuts, counts=())
    counts = np.bincount(np.ravel_multi_index(cell, joint.shape), minlength=int(np.prod(joint.shape)))
    return Joint(
        turns=turns,
        input_cuts=input_cuts,
        share_cuts=share_cuts,
        output_cuts=output_cuts,
        counts=tuple(int(c) for c in counts),
    )


def _bin(values: Ints | Floats, cuts: tuple[float, ...]) -> Ints:
    """Cell of ranks that each value falls in; equal values are ranked in order of time."""
    rank = np.empty(len(values))
    rank[np.argsort(values, kind="stable")] = (np.arange(len(values)) + 0.5) / len(values)
    return np.searchsorted(cuts, rank, side="right") - 1


def _short(value: float, digits: int = 5) -> float:
    return float(f"{float(value):.{digits}g}")


def to_toml(profile: Profile) -> str:
    """The profile as TOML text that ``load_profile`` reads."""
    lines = [
        f"name = {_text(profile.name)}",
        f"n = {profile.n}",
        f"recorded_rate_per_s = {_number(profile.recorded_rate_per_s)}",
        f"cv = {_number(profile.cv)}",
    ]
    lines += [f"max_context = {profile.max_context}"] if profile.max_context else []
    lines += ["", "[about]"]
    lines += [f"{key} = {_text(getattr(profile.about, key))}" for key in About.__struct_fields__]
    lines += ["", "[facts]"]
    for name, facts in profile.facts.items():
        pairs = ", ".join(f"{key} = {_number(getattr(facts, key))}" for key in Facts.__struct_fields__)
        lines.append(f"{name} = {{ {pairs} }}")
    tables = {
        "input_tokens": profile.input_tokens,
        "uncached_share": profile.uncached_share,
        "output_tokens": profile.output_tokens,
        "gap": profile.gap,
    }
    if profile.sessions is not None:
        tables |= {f"sessions.{key}": getattr(profile.sessions, key) for key in Sessions.__struct_fields__}
    for name, table in tables.items():
        if table is not None:
            lines += ["", f"[{name}]", *_array("levels", table.levels), *_array("values", table.values)]
    lines += ["", "[joint]"]
    for key in Joint.__struct_fields__:
        lines += _array(key, getattr(profile.joint, key))
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _array(key: str, values: tuple[float, ...]) -> list[str]:
    body = ",".join(_number(v) for v in values)
    if len(body) < 100:
        return [f"{key} = [{body}]"]
    wrapped = textwrap.wrap(body.replace(",", ", "), 118)
    return [f"{key} = [", *(line.replace(", ", ",") for line in wrapped), "]"]


_AZURE = "https://github.com/Azure/AzurePublicDataset AzureLLMInferenceDataset2023; Patel et al., Splitwise, ISCA 2024"
_AZURE_LEFT = (
    "what was in the prompts and whether prefixes repeat (the trace has no ids: everything counts as "
    "uncached); which user or session asked; the order of gaps; "
)
PACKAGED: dict[str, tuple[str, About]] = {
    "agentic-coding": (
        "agentic_coding.parquet",
        About(
            description="Coding agents: 692 anonymised Claude Code sessions, long contexts that are nearly all cached",
            source="https://github.com/callanjfox/kv-cache-tester traces of real Claude Code sessions",
            licence="Apache-2.0",
            read="2026-11-22",
            note="Cached = the longest prefix shared with an earlier request of the session, so an ideal cache of the "
            "session. Lengths depend on the position in the session and a session keeps the rank of its context; "
            "given both, uncached and output tokens are drawn independently from turn to turn. Gaps "
            "between requests contain the service time of the day and are drawn independently. Pauses after an answer "
            "(thinking and tools) and service times are kept apart too, for closed loops.",
            left_out="when sessions started; the fall of the context when it is compacted; models; prefixes shared "
            "between sessions; that long answers take longer; sub-agents are requests of their session",
        ),
    ),
    "arxiv-summarisation": (
        "arxiv_summarization.parquet",
        About(
            description="Summaries of papers: long prompts, answers of a paragraph; lengths only",
            source="https://github.com/microsoft/vidur data/processed_traces/arxiv_summarization_stats_llama2_"
            "tokenizer_filtered_v2.csv; lengths of ccdv/arxiv-summarization in Llama 2 tokens; Agrawal et al., Vidur, "
            "MLSys 2024",
            licence="MIT",
            read="2026-11-22",
            note="The trace has lengths and no times: arrivals are Poisson unless the class states a law. Lengths were "
            "filtered to 4,096 tokens in all by those who published them.",
            left_out="when requests came; what was in the prompts (everything counts as uncached)",
        ),
    ),
    "azure-code-2023": (
        "azure2023_code.parquet",
        About(
            description="Code completion as one types (autocomplete): short answers in bursts",
            source=_AZURE,
            licence="CC-BY-4.0",
            read="2026-11-22",
            note="One hour of 2023-11-16. This is autocomplete, not agents: median answer 13 tokens. The recorded "
            "distribution of gaps is drawn, in which bursts of many requests part silences of minutes; a gamma law of "
            "the same coefficient of variation would make each burst a single instant. It is stretched in time to the "
            "rate asked for, so the burstiness stays that of one such service.",
            left_out=_AZURE_LEFT + "drift of the rate over 5 minutes and more (0.04 to 1.6 times the mean)",
        ),
    ),
    "azure-conv-2023": (
        "azure2023_conv.parquet",
        About(
            description="Chat: conversation with a hosted assistant",
            source=_AZURE,
            licence="CC-BY-4.0",
            read="2026-11-22",
            note="One hour of 2023-11-16. Gaps are close to exponential once the drift is divided out. They are "
            "stretched in time to the rate asked for.",
            left_out=_AZURE_LEFT + "drift of the rate over 5 minutes and more (0.8 to 1.4 times the mean)",
        ),
    ),
    "mooncake-conversation": (
        "mooncake_conversation.parquet",
        About(
            description="Chat with long contexts and prefixes that repeat: an hour of Mooncake",
            source="https://github.com/kvcache-ai/Mooncake FAST25-release/traces/conversation_trace.jsonl; Qin et al., "
            "Mooncake, FAST 2025",
            licence="Apache-2.0",
            read="2026-11-22",
            note="Cached = the leading 512-token blocks of a prompt that an earlier request of the hour had, so an "
            "ideal cache of infinite size for all users, cold at the start. Times were published in steps of 3 s; "
            "requests of a step are spread over it by lot.",
            left_out="which prefixes are shared by which requests (their share is kept, not their identity); "
            + _AZURE_LEFT.partition("; ")[2]
            + "drift of the rate over 5 minutes and more",
        ),
    ),
}
"""Packaged profile → file of its trace, and where it came from."""


def distil_packaged(folder: Path, name: str) -> str:
    """TOML of one packaged profile, made anew from its trace in ``folder``."""
    file, about = PACKAGED[name]
    return to_toml(distil(read_trace(folder / file), name, about=about))


def main(folder: str) -> None:
    """Remake the packaged profiles from the traces in a folder."""
    target = Path(__file__).parent / "data" / "profiles"
    target.mkdir(parents=True, exist_ok=True)
    for name in PACKAGED:
        text = distil_packaged(Path(folder), name)
        (target / f"{name}.toml").write_text(text, encoding="utf-8")
        print(f"{name}: {len(text)} bytes", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
