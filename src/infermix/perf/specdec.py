"""Speculative decoding: a draft proposes tokens, one pass of the model verifies them.

A verification computes ``width`` tokens for each sequence and keeps ``accepted_per_step`` of them, so the
gain shrinks as batches grow: arithmetic and experts touched follow the width, the tokens kept do not.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from infermix.errors import InputError

Method = Literal["mtp", "eagle", "ngram"]

ACCEPTED = {1: 1.8, 2: 2.3, 3: 2.5}
"""Tokens kept of a step by draft depth: DeepSeek's MTP while thinking, the public figures."""

FORM = "METHOD:DEPTH[:ACCEPTED], such as mtp:2 or eagle:3:2.4; methods mtp, eagle, ngram"


class Speculation(msgspec.Struct, frozen=True):
    """How drafts are made, how deep, and how many tokens a verification keeps on average."""

    method: Method
    depth: int
    """Tokens drafted ahead."""
    accepted_per_step: float
    """Output tokens of one verification, the model's own next token included."""

    @property
    def width(self) -> int:
        """Tokens that a verification computes for each sequence."""
        return self.depth + 1

    @property
    def draft_layers(self) -> int:
        """Layers that drafting runs through: one for each token ahead, none where text itself is the draft."""
        return 0 if self.method == "ngram" else self.depth

    def __str__(self) -> str:
        return f"{self.method}:{self.depth}:{self.accepted_per_step:g}"


def read_speculation(text: str, where: str = "spec") -> Speculation:
    """Speculation from its written form.

    Raises
    ------
    InputError
        The form is another, the depth is not 1 to 16, or more tokens would be kept than are verified.

    >>> read_speculation("mtp:2")
    Speculation(method='mtp', depth=2, accepted_per_step=2.3)
    """
    parts = text.split(":")
    try:
        method, depth = parts[0], int(parts[1])
        accepted = float(parts[2]) if len(parts) == 3 else None
    except (IndexError, ValueError):
        raise InputError("not a form of speculative decoding", where=where, value=text, allowed=FORM) from None
    if method not in ("mtp", "eagle", "ngram") or len(parts) > 3:
        raise InputError("not a form of speculative decoding", where=where, value=text, allowed=FORM)
    if not 1 <= depth <= 16:
        raise InputError("draft depth out of range", where=where, value=depth, allowed="1 to 16")
    if accepted is None:
        accepted = ACCEPTED.get(depth) if method != "ngram" else None
        if accepted is None:
            mend = f"write {method}:{depth}:ACCEPTED with what you measured"
            raise InputError("no public acceptance is known for this draft", where=where, value=text, mend=mend)
    if not 1 <= accepted <= depth + 1:
        raise InputError("accepted tokens out of range", where=where, value=accepted, allowed=f"1 to {depth + 1}")
    return Speculation(method, depth, accepted)  # type: ignore[arg-type]  # checked above


def acceptance(spec: Speculation) -> float:
    """Probability p with which each drafted token is accepted, if all have the same one: 1 + p + .. + p^depth = mean.

    >>> acceptance(Speculation("mtp", 1, 1.8))
    0.8
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if sum(middle**k for k in range(spec.width)) < spec.accepted_per_step:
            low = middle
        else:
            high = middle
    return round(high, 15)


def accepted_variance(spec: Speculation) -> float:
    """Variance of the tokens that one verification keeps.

    Drafted tokens are accepted one after the other, each with probability p, until one is refused: n tokens or more are
    kept with probability p^(n-1), up to n = depth + 1, a truncated geometric number. Hence the mean is the sum over
    k = 0 .. depth of p^k, the mean square that of (2 k + 1) p^k, and the variance the latter less the mean squared.
    """
    p = acceptance(spec)
    mean = sum(p**k for k in range(spec.width))
    return max(0.0, sum((2 * k + 1) * p**k for k in range(spec.width)) - mean * mean)
