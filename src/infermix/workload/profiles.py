"""Profiles: small statistical pictures of recorded traffic, from which requests are drawn.

The packaged ones lie in ``data/profiles``; each was made from its trace by
``infermix.workload.distil``, names its source and licence, and says what was left out.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path

import msgspec

from infermix.errors import InputError, near_miss
from infermix.workload.tables import Joint, Quantiles, Sampler, sampler


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a profile came from: source, licence, date read (YYYY-MM-DD), and what was left out."""

    description: str = ""
    source: str = ""
    licence: str = ""
    read: str = ""
    note: str = ""
    left_out: str = ""


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Statistics of one column of the trace that a profile was made from [tokens]."""

    mean: float
    p50: float
    p90: float
    p99: float


class Sessions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Requests of a session (at least 1) and seconds from one request to the next.

    Where service times were recorded, ``service_s`` is the time to the last token and ``think_s`` the
    pause after that answer: thinking and tools.
    """

    requests: Quantiles
    gap_s: Quantiles
    think_s: Quantiles | None = None
    service_s: Quantiles | None = None


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A profile of traffic.

    Attributes
    ----------
    n
        Requests in the trace behind it.
    recorded_rate_per_s
        Mean rate of the trace [1/s]; 0 when the starts of sessions, or any times, were not recorded.
    cv
        Coefficient of variation of the times between arrivals, slow drift removed; 0 with sessions.
    max_context
        Where the trace was cut off: no request has more input and output together [tokens]; 0 where it was not.
    gap
        Times between arrivals in units of their mean; None with ``sessions``, and in a profile of
        lengths alone, whose arrivals are drawn by a law.
    input_tokens, output_tokens
        Quantile functions [tokens].
    uncached_share
        Quantile function of uncached over input tokens among the requests that had something
        cached; None when none had.
    facts
        Mean and percentiles of input, uncached, output and context (input + output) in the trace.
    """

    name: str
    n: int
    about: About
    facts: dict[str, Facts]
    input_tokens: Quantiles
    output_tokens: Quantiles
    uncached_share: Quantiles | None = None
    joint: Joint
    recorded_rate_per_s: float = 0.0
    cv: float = 0.0
    max_context: int = 0
    gap: Quantiles | None = None
    sessions: Sessions | None = None

    def sampler(self) -> Sampler:
        """The tables expanded for drawing (kept for the next call)."""
        return sampler(self.joint, self.input_tokens, self.uncached_share, self.output_tokens, self.max_context)

    def check(self, where: str) -> None:
        """Raise InputError when tables are malformed or contradict each other."""
        self.joint.check(f"{where}: joint")
        self.input_tokens.check(f"{where}: input_tokens", 1)
        self.output_tokens.check(f"{where}: output_tokens", 1)
        if (self.uncached_share is None) != (not self.joint.share_cuts):
            raise InputError(
                "uncached_share and joint.share_cuts go together", where=where, mend="give both or neither"
            )
        if self.uncached_share is not None:
            self.uncached_share.check(f"{where}: uncached_share", high=1)
        both = self.gap is not None and self.sessions is not None
        if both or (self.recorded_rate_per_s > 0 and self.gap is None and self.sessions is None):
            raise InputError("a profile with times needs gap or sessions", where=where, allowed="exactly one of them")
        if self.gap is not None:
            self.gap.check(f"{where}: gap")
        if self.sessions is not None:
            self.sessions.requests.check(f"{where}: sessions.requests", 1)
            self.sessions.gap_s.check(f"{where}: sessions.gap_s")
            if (self.sessions.think_s is None) != (self.sessions.service_s is None):
                raise InputError("think_s and service_s go together", where=f"{where}: sessions", mend="give both")
            if self.sessions.think_s is not None and self.sessions.service_s is not None:
                self.sessions.think_s.check(f"{where}: sessions.think_s")
                self.sessions.service_s.check(f"{where}: sessions.service_s")


def profile_names() -> tuple[str, ...]:
    """Names of the packaged profiles.

    >>> "agentic-coding" in profile_names()
    True
    """
    files = resources.files("infermix.workload").joinpath("data/profiles").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def load_profile(name: str, *, base_dir: Path = Path(), where: str = "profile") -> Profile:
    """A packaged profile by name, or your own from a ``.toml`` file (relative to ``base_dir``).

    Raises
    ------
    InputError
        If there is no such profile or its file is malformed.
    """
    if name.endswith(".toml"):
        file = base_dir / name
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise InputError("no such profile file", where=where, value=str(file), mend="check the path") from None
        return parse_profile(text, f"{where}: {file}")
    if name not in profile_names():
        raise InputError(
            "unknown profile",
            where=where,
            value=name,
            allowed=", ".join(profile_names()) + ", or the path of a .toml file",
            mend=near_miss(name, profile_names()),
        )
    return _packaged(name)


@lru_cache(maxsize=16)
def _packaged(name: str) -> Profile:
    text = resources.files("infermix.workload").joinpath(f"data/profiles/{name}.toml").read_text(encoding="utf-8")
    return parse_profile(text, name)


def parse_profile(text: str, where: str) -> Profile:
    """Read a profile from TOML text; InputError when it is malformed."""
    try:
        profile = msgspec.toml.decode(text, type=Profile)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError("malformed profile", where=where, value=str(error), mend="make it with distil()") from None
    profile.check(where)
    return profile
