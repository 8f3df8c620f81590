"""How far tests look: a usual run tries a third of the random cases, one with ``INFERMIX_NIGHTLY=1`` all of them."""

from __future__ import annotations

import os

NIGHTLY = os.environ.get("INFERMIX_NIGHTLY") == "1"
FEWEST = 10


def examples(nightly: int) -> int:
    """Random cases of a property."""
    return nightly if NIGHTLY else max(FEWEST, nightly // 3)
