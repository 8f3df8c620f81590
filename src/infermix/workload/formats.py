"""Trace files: which format a file is in, told by its columns.

=============  =====================================  ============================================
format         needs                                  also used when there
=============  =====================================  ============================================
infermix       input_tokens, output_tokens            t_s [s], session, cached_tokens or
                                                      prefix_tokens, hash_ids, depth,
                                                      api_time_s [s], model, kind
Azure public   TIMESTAMP (date and time),             (AzurePublicDataset, LLM inference traces)
               ContextTokens, GeneratedTokens
Mooncake       timestamp [ms], input_length,          hash_ids (one id per 512-token block)
               output_length
BurstGPT       Timestamp [s], Request tokens,         Model, Log Type, Elapsed time [s]
               Response tokens
LLMServingSim  arrival_time_ns, input_toks,
               output_toks
vLLM engine    arrival_time [s], input_toks,          (times of requests measured in the engine)
               output_toks
Vidur          num_prefill_tokens,                    arrived_at [s]
               num_decode_tokens
=============  =====================================  ============================================

Any other table is read with a stated mapping. Logs (``openai_log``) and benchmark results
(``bench_result``) are no tables; they are recognised by their keys. ServeGen's rates and lengths
are not a trace but a law; see ``servegen``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from infermix.errors import InputError, near_miss

LENGTHS = ("input_tokens", "output_tokens")
REQUIRED = ("t_s", *LENGTHS)
OPTIONAL = ("session", "cached_tokens", "hash_ids", "depth", "api_time_s", "model", "kind")
OURS = {name: name for name in REQUIRED + OPTIONAL}
_ALIASES = {"cached_tokens": "prefix_tokens"}
_TIME_WORDS = ("time", "stamp", "date", "created", "arriv", "received", "when")


@dataclass(frozen=True)
class Format:
    """A kind of table.

    Attributes
    ----------
    columns
        Our column name → the file's.
    seconds
        Length of the unit of its times [s].
    timeless
        Whether times may be missing.
    sorts
        Whether rows may come in another order than that of their times.
    fails
        Whether an answer of no tokens means that the request failed.
    """

    name: str
    columns: Mapping[str, str]
    seconds: float = 1.0
    timeless: bool = False
    sorts: bool = False
    fails: bool = False


OWN = Format("infermix", OURS, timeless=True)
READ = Format("infermix", OURS | {"api_time_s": "service_s"}, timeless=True, sorts=True, fails=True)
"""Columns that ``openai_log`` and ``bench_result`` made."""
FORMATS = (
    OWN,
    Format("Azure", {"t_s": "TIMESTAMP", "input_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"}),
    Format(
        "Mooncake",
        {
            "t_s": "timestamp",
            "input_tokens": "input_length",
            "output_tokens": "output_length",
            "hash_ids": "hash_ids",
        },
        seconds=1e-3,
    ),
    Format(
        "BurstGPT",
        {
            "t_s": "Timestamp",
            "input_tokens": "Request tokens",
            "output_tokens": "Response tokens",
            "api_time_s": "Elapsed time",
            "model": "Model",
            "kind": "Log Type",
        },
        sorts=True,
        fails=True,
    ),
    Format(
        "LLMServingSim",
        {"t_s": "arrival_time_ns", "input_tokens": "input_toks", "output_tokens": "output_toks"},
        seconds=1e-9,
    ),
    Format(
        "vLLM engine",
        {"t_s": "arrival_time", "input_tokens": "input_toks", "output_tokens": "output_toks"},
        sorts=True,
    ),
    Format(
        "Vidur",
        {"t_s": "arrived_at", "input_tokens": "num_prefill_tokens", "output_tokens": "num_decode_tokens"},
        timeless=True,
    ),
)


@dataclass(frozen=True)
class Found:
    """A format as found in a file: which of its columns are there under which names."""

    format: Format
    names: Mapping[str, str] = field(default_factory=dict)


def recognise(have: list[str], mapping: Mapping[str, str], where: str) -> Found:
    """The format of a table with these columns; InputError names what is missing and what is near."""
    if mapping:
        return Found(Format("stated columns", OURS, timeless=True), _mapped(have, mapping, where))
    for known in FORMATS:
        needed = LENGTHS if known.timeless and not _hidden_time(known, have) else REQUIRED
        if all(known.columns[name] in have for name in needed):
            names = {ours: theirs for ours, theirs in known.columns.items() if theirs in have}
            return Found(known, _with_aliases(names, have) if known is OWN else names)
    raise _unknown(have, where)


def _hidden_time(known: Format, have: list[str]) -> bool:
    """Whether a column that the format does not know looks like a time."""
    others = [name.lower() for name in have if name not in known.columns.values()]
    return any(word in name for name in others for word in _TIME_WORDS)


def _unknown(have: list[str], where: str) -> InputError:
    closest = max(FORMATS, key=lambda known: sum(_likeness(known.columns[name], have) for name in REQUIRED))
    missing = [closest.columns[name] for name in REQUIRED if closest.columns[name] not in have]
    hints = " ".join(filter(None, (_hint(name, have) for name in missing)))
    return InputError(
        f"column {', '.join(missing)} is missing",
        where=where,
        value=have,
        allowed="; ".join(" ".join(known.columns[name] for name in REQUIRED) for known in FORMATS),
        mend=hints or 'name the columns with columns = { t_s = "…", input_tokens = "…", … }',
    )


def _likeness(name: str, have: list[str]) -> int:
    if name in have:
        return 3
    return 2 if name.lower() in {other.lower() for other in have} else int(bool(_hint(name, have)))


def _hint(name: str, have: list[str]) -> str:
    by_lower = {other.lower(): other for other in have}
    same = by_lower.get(name.lower())
    close = f"did you mean {same!r}?" if same else near_miss(name, have)
    return f"{name}: {close}" if close else ""


def _with_aliases(names: dict[str, str], have: list[str]) -> dict[str, str]:
    extra = {ours: theirs for ours, theirs in _ALIASES.items() if ours not in names and theirs in have}
    return names | extra


def _mapped(have: list[str], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    for ours, theirs in mapping.items():
        if ours not in OURS:
            raise InputError(
                "columns names a column that infermix does not know",
                where=where,
                value=ours,
                allowed=", ".join(OURS),
                mend=near_miss(ours, OURS),
            )
        if theirs not in have:
            raise InputError(
                f"column {theirs} (for {ours}) is missing",
                where=where,
                value=have,
                allowed="a column of the file",
                mend=near_miss(theirs, have),
            )
    names = _with_aliases({name: name for name in OURS if name in have}, have) | dict(mapping)
    missing = [name for name in LENGTHS if name not in names]
    if missing:
        raise InputError(
            f"column {', '.join(missing)} is missing",
            where=where,
            value=have,
            allowed="columns that name t_s, input_tokens and output_tokens",
            mend=f'add columns = {{ {missing[0]} = "…" }}',
        )
    return names
