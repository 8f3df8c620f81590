"""Tokens that a chip gives: as stated, or by ``perf`` for a model on a catalogued chip; chips for a training run."""

from __future__ import annotations

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.catalog.load import Catalog
from infermix.catalog.query import find_chip, find_model
from infermix.errors import InputError, NoAnswer
from infermix.perf.figures import of_deployment, with_roots
from infermix.perf.operating import Load
from infermix.perf.sweep import Refusal, Wish, curves, systems_by_chip, usual_system
from infermix.units import SECONDS_PER_DAY, TOKENS_PER_MTOK

FLOP_PER_PARAMETER_AND_TOKEN = 6
"""Of training: two forward, four backward."""


class Serve(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a demand for tokens is served."""

    tokens_per_s_per_chip: float | None = None
    model: str = ""
    input_tokens: int | None = None
    cached_tokens: int = 0
    output_tokens: int | None = None
    tokens_per_s_user: float = 0
    """Each user's least speed."""
    load: float = 1
    """Mean over peak demand."""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Output tokens a second of one chip at its cheapest point, and how that is reached."""

    tokens_per_s_per_chip: float
    how: str
    figures: tuple[str, ...] = ()
    """Of the catalogue, that it hangs on."""


def rate(serve: Serve, chip: str, facts: Catalog, where: str) -> Rate:
    """What one chip gives, prompts read beside. Raises NoAnswer where the model cannot be served so."""
    if serve.tokens_per_s_per_chip is not None:
        if not serve.tokens_per_s_per_chip > 0:
            raise InputError(
                "must be above 0", where=f"{where}.tokens_per_s_per_chip", value=serve.tokens_per_s_per_chip
            )
        return Rate(tokens_per_s_per_chip=serve.tokens_per_s_per_chip, how="as stated")
    if not serve.model:
        raise InputError("no speed", where=where, mend="state tokens_per_s_per_chip, or a model of the catalogue")
    if serve.input_tokens is None or serve.output_tokens is None:
        raise InputError("how long are requests?", where=where, mend="state input_tokens and output_tokens")
    model, record = find_model(serve.model, facts), find_chip(chip, facts)
    wish = Wish(load=Load(serve.input_tokens, serve.output_tokens, serve.cached_tokens))
    standing = usual_system(facts, record, systems_by_chip(facts).get(record.id, []))
    found = curves(facts, record, standing, model, wish)
    if isinstance(found, Refusal):
        raise NoAnswer(f"{model.id} on {record.id}: {found.text}")
    able = [
        (float(curve.chip_s_per_mtok[i]), curve.deployment.layout, int(curve.batch[i]), 1 / float(curve.tpot_s[i]), n)
        for n, curve in enumerate(found)
        for i in range(len(curve.batch))
        if 1 / curve.tpot_s[i] >= serve.tokens_per_s_user
    ]
    if not able:
        raise NoAnswer(f"{model.id} on {record.id}: no point gives each user {serve.tokens_per_s_user:g} tokens/s")
    chip_s, layout, batch, user, best = min(able)
    said = f"{model.id} on {record.id}, {layout}, batch {batch}, {user:.0f} tokens/s a user, prompts read beside"
    figures = tuple(with_roots(facts, of_deployment(found[best].deployment)))
    return Rate(tokens_per_s_per_chip=TOKENS_PER_MTOK / chip_s, how=said, figures=figures)


def training_chips(parameters: float, tokens: float, mfu: float, days: float, flop_per_s: Floats) -> Floats:
    """Chips that train so many parameters on so many tokens in so many days.

    >>> round(float(training_chips(280e9, 13e12, np.float64(34) / 100, 95, np.float64(312e12))))
    25083
    """
    flop = FLOP_PER_PARAMETER_AND_TOKEN * parameters * tokens
    return np.asarray(flop / (flop_per_s * mfu * days * SECONDS_PER_DAY))


def training_days(parameters: float, tokens: float, mfu: float, chips: Floats, flop_per_s: Floats) -> Floats:
    """Days that so many chips take for a training run."""
    return training_chips(parameters, tokens, mfu, 1, flop_per_s) / chips
