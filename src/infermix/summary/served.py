"""Who served how much: counts that can be added up, of one run or of one window after the other."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from infermix.arrays import Bools, Ints
from infermix.sim.result import COMPLETED, Run

Whole = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Served:
    """Requests and tokens by who served them.

    Attributes
    ----------
    requests, completed
        [pool] that were there, for their prompt or for their answer.
    prompts, input_tokens, cached_tokens
        [instance] completed requests whose prompt it read, and those prompts.
    answers, output_tokens
        [instance] completed requests whose answer it ended, and those answers.
    """

    requests: Ints
    completed: Ints
    prompts: Ints
    input_tokens: Ints
    cached_tokens: Ints
    answers: Ints
    output_tokens: Ints

    def __add__(self, other: Served) -> Served:
        return Served(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def served_by(run: Run) -> Served:
    """What the instances of a run served."""
    pools, done = int(run.pool.max()) + 1, run.status == COMPLETED
    reader, there, reads = readers(run), run.request_pool, prompt_pool(run)

    def by_pool(which: Bools) -> Ints:
        twice = np.bincount(there[which & (there >= 0)], minlength=pools)
        return twice + np.bincount(reads[which & (reads >= 0) & (reads != there)], minlength=pools)

    def by_instance(place: Whole, tokens: Whole | None = None) -> Ints:
        inside = done & (place >= 0)
        weights = None if tokens is None else tokens[inside].astype(np.float64)
        return np.bincount(place[inside], weights, minlength=len(run.pool)).astype(np.int64)

    return Served(
        requests=by_pool(np.ones(len(done), dtype=np.bool_)),
        completed=by_pool(done),
        prompts=by_instance(reader),
        input_tokens=by_instance(reader, run.requests.input_tokens),
        cached_tokens=by_instance(reader, run.requests.cached_tokens),
        answers=by_instance(run.instance),
        output_tokens=by_instance(run.instance, run.requests.output_tokens),
    )


def readers(run: Run) -> Ints:
    """Instance that read each request's prompt: where it was prefilled, else the one that has it; -1: none."""
    return np.asarray(np.where(run.prefill_instance >= 0, run.prefill_instance, run.instance))


def prompt_pool(run: Run) -> Ints:
    """Pool of that instance; -1: none."""
    reader = readers(run)
    return np.asarray(np.where(reader >= 0, run.pool[np.maximum(reader, 0)], -1))
