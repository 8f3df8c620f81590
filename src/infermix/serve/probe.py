"""Measure a running server: a few prompts at several concurrencies, each client asking again when it is answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np

from infermix.errors import InputError
from infermix.rng import uniforms
from infermix.serve.endpoint import Endpoint, ask
from infermix.serve.prompts import prompt_of
from infermix.serve.stream import Answer

Progress = Callable[[int, int], None]
WARM_UP = (32, 4)
"""Tokens of the prompt and of the answer that come first, and are not counted."""
_STARTS = 1 << 20
"""Far apart numbers of prompts: another run shares no prompt with this one."""


@dataclass(frozen=True)
class Level:
    """One concurrency.

    Attributes
    ----------
    clients
        Questions that are under way at every moment.
    asks
        (tokens of the prompt, tokens of the answer) of each question, in order.
    check
        Whether it is kept from the fit.
    lap
        Its round; the questions of a concurrency are the same in every round.
    """

    clients: int
    asks: tuple[tuple[int, int], ...]
    check: bool = False
    lap: int = 0


@dataclass(frozen=True)
class Probe:
    """What a probe measured.

    Attributes
    ----------
    answers
        (level, client, answer) of every question that was answered.
    failures
        Reasons → questions that failed.
    began_unix_s
        Date of ``began_s`` on the clock of the answers.
    forced
        Whether the server was made to write answers of full length.
    """

    levels: tuple[Level, ...]
    answers: tuple[tuple[int, int, Answer], ...]
    failures: dict[str, int]
    began_unix_s: float
    began_s: float
    forced: bool


@dataclass(frozen=True)
class Grid:
    """What to measure: every pair of lengths in turn at every concurrency.

    Attributes
    ----------
    prompts, answers
        Lengths [tokens].
    each
        Questions of each client in a round; at least every pair of lengths is asked once.
    rounds
        How often all levels are measured: what slows a machine for a while then slows all of them.
    check
        Whether a level with lengths and clients between the others is measured, too, and kept from the fit.
    """

    clients: tuple[int, ...] = (1, 2, 4, 8)
    prompts: tuple[int, ...] = (64, 256, 1024)
    answers: tuple[int, ...] = (16, 64)
    each: int = 3
    rounds: int = 2
    check: bool = True

    def validate(self) -> None:
        """Raise InputError for lengths and counts that cannot be."""
        for name in ("clients", "prompts", "answers"):
            values = getattr(self, name)
            if not values or min(values) < 1 or len(set(values)) < len(values):
                raise InputError("must be different whole numbers from 1 on", where=f"--{name}", value=values)
        if min(self.answers) < 2:
            raise InputError("an answer needs 2 tokens to have a time per token", where="--answers", value=self.answers)
        for name in ("each", "rounds"):
            if getattr(self, name) < 1:
                raise InputError("must be 1 or more", where=f"--{name}", value=getattr(self, name))


def make_levels(grid: Grid) -> tuple[Level, ...]:
    """Levels in the order in which they are measured.

    >>> [level.clients for level in make_levels(Grid(clients=(1, 4), rounds=1))]
    [1, 4, 3]
    """
    grid.validate()
    pairs = list(product(grid.prompts, grid.answers))
    between = list(product(_between(grid.prompts), _between(grid.answers)))
    levels = []
    for lap in range(grid.rounds):
        levels += [
            Level(n, tuple(_in_turn(pairs, max(n * grid.each, len(pairs)), n)), lap=lap) for n in sorted(grid.clients)
        ]
        if grid.check:
            n = max(max(grid.clients) * 3 // 4, 1)
            levels.append(Level(n, tuple(_in_turn(between, max(n * grid.each, len(between)), n)), True, lap))
    return tuple(levels)


def _between(lengths: Sequence[int]) -> list[int]:
    """Lengths halfway between neighbours.

    >>> _between([64, 256, 1024]), _between([64])
    ([128, 512], [64])
    """
    ordered = sorted(set(lengths))
    if len(ordered) == 1:
        return ordered
    return [round((a * b) ** 0.5) for a, b in pairwise(ordered)]


def _in_turn(pairs: Sequence[tuple[int, int]], count: int, seed: int) -> Iterator[tuple[int, int]]:
    """Pairs in an order drawn by lot, each once before any comes again."""
    for lap in range(-(-count // len(pairs))):
        order = np.argsort(uniforms(seed, 100 + lap, len(pairs)))
        yield from (pairs[int(i)] for i in order[: count - lap * len(pairs)])


def probe(endpoint: Endpoint, model: str, levels: Sequence[Level], progress: Progress | None = None) -> Probe:
    """Ask all questions of all levels, one level after the other.

    Raises
    ------
    InputError
        The server answers no question at all.
    """
    number = int(time.time()) % _STARTS * 1000
    forced = _warm_up(endpoint, model, number)
    began_s, began_unix_s = endpoint.clock(), time.time()
    answers: list[tuple[int, int, Answer]] = []
    failures: Counter[str] = Counter()
    total, done = sum(len(level.asks) for level in levels), 0
    for at, level in enumerate(levels):
        for client, answer in _measure(endpoint, model, level, number + done + 1, forced):
            if answer.failure:
                failures[answer.failure] += 1
            else:
                answers.append((at, client, answer))
        done += len(level.asks)
        if progress is not None:
            progress(done, total)
    if not answers:
        raise InputError(f"no question was answered: {next(iter(failures))}", where=endpoint.name)
    return Probe(tuple(levels), tuple(answers), dict(failures), began_unix_s, began_s, forced)


def _warm_up(endpoint: Endpoint, model: str, number: int) -> bool:
    """Wake the server; whether it can be made to write answers of full length."""
    prompt, tokens = prompt_of(WARM_UP[0], number), WARM_UP[1]
    if not ask(endpoint, model, prompt, tokens, force=True).failure:
        return True
    plain = ask(endpoint, model, prompt, tokens, force=False)
    if plain.failure:
        raise InputError(f"the first question failed: {plain.failure}", where=endpoint.name)
    return False


def _measure(endpoint: Endpoint, model: str, level: Level, number: int, forced: bool) -> list[tuple[int, Answer]]:
    """(client, answer) of every question of a level."""
    found: list[tuple[int, Answer]] = []
    left = iter(enumerate(level.asks))
    lock = threading.Lock()

    def work(client: int) -> None:
        while True:
            with lock:
                item = next(left, None)
            if item is None:
                return
            at, (prompt, tokens) = item
            answer = ask(endpoint, model, prompt_of(prompt, number + at), tokens, force=forced)
            with lock:
                found.append((client, answer))

    clients = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(level.clients)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    return found


def quickest(found: Probe) -> Probe:
    """The probe with only the quickest round of each concurrency: on a machine that others disturb now and then.

    A round in which a question failed is slower than any that is whole.
    """
    took: dict[int, float] = {}
    for at, level in enumerate(found.levels):
        mine = [answer for where, _, answer in found.answers if where == at]
        whole = len(mine) == len(level.asks)
        took[at] = sum(a.last_s - a.sent_s for a in mine) if whole else float("inf")
    best: dict[tuple[int, bool], int] = {}
    for at, level in enumerate(found.levels):
        kind = (level.clients, level.check)
        if kind not in best or took[at] < took[best[kind]]:
            best[kind] = at
    kept = set(best.values())
    return replace(found, answers=tuple(row for row in found.answers if row[0] in kept))
