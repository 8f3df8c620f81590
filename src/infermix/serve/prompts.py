"""Prompts of about so many tokens, no two with the same beginning, so that no prefix cache can help."""

from __future__ import annotations

from infermix.rng import uniforms

WORDS = (
    """
apple bread chair dance earth field glass house island jungle kitchen letter market number orange paper queen river
stone table under valley water yellow animal bridge cloud doctor engine forest garden hotel light music night ocean
people question road school train uncle village window world young book city door family
"""
    """Everyday words, most of them one token each."""
)


def prompt_of(tokens: int, number: int) -> str:
    """A text of about so many tokens; ``number`` makes it unlike any other.

    >>> a, b = prompt_of(20, 1), prompt_of(20, 2)
    >>> len(a.split()), a.split()[0] != b.split()[0]
    (20, True)
    """
    words = WORDS.split()
    luck = uniforms(number, 1, max(tokens - 1, 0))
    return " ".join([str(1000 + number), *(words[int(u * len(words))] for u in luck)])
