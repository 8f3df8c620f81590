"""Published parameter sets, frozen, so that papers can be computed again: as published, and as corrected."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.resources import files

from infermix.catalog.parse import toml
from infermix.errors import InputError, near_miss
from infermix.silicon.constants import Constant, constant

AS_PUBLISHED, CORRECTED = "as_published", "corrected"


@functools.cache
def papers() -> Mapping[str, Mapping[str, Mapping[str, Constant]]]:
    """Paper, edition, name: every constant of every published set."""
    file = files("infermix.silicon") / "data" / "papers.toml"
    raw = toml(file.read_text(encoding="utf-8"), str(file))
    return {
        paper: {
            edition: {
                name: constant(f"papers/{paper}/{edition}/{name}", item, str(file)) for name, item in rows.items()
            }
            for edition, rows in editions.items()
        }
        for paper, editions in raw.items()
    }


def published(paper: str, *editions: str) -> dict[str, float]:
    """Values of a published set; each further edition overrides what it states.

    >>> published("llmcompass")["ddr5_usd"] * 10**9, published("llmcompass", "corrected")["ddr5_usd"] * 10**9
    (0.3, 2.4)
    """
    if paper not in papers():
        raise InputError("unknown paper", value=paper, mend=near_miss(paper, papers()))
    values = {name: item.value for name, item in papers()[paper][AS_PUBLISHED].items()}
    for edition in editions:
        if edition not in papers()[paper]:
            raise InputError("unknown edition", where=paper, value=edition, allowed=", ".join(papers()[paper]))
        values.update({name: item.value for name, item in papers()[paper][edition].items()})
    return values
