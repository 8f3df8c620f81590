"""The emulator's scheduler against the simulator's kernel: the same arrivals, the same time of every token."""

from __future__ import annotations

import heapq
import math
from itertools import combinations

import pytest

from infermix.serve.emulator.engine import accept, can_finish, end_step, give_up, start_step
from infermix.serve.emulator.memory import Memory, claim, take
from infermix.serve.emulator.state import Engine, Sequence, make_engines
from infermix.sim.state import PoolSpec
from tests.laws.engines import _spec, kernel_engine
from tests.laws.feature_cases import FeatureCase, random_case
from tests.naive.paths import paths_of
from tests.naive.policies import least_wait
from tests.naive.sim import NaiveResult, normal_number

FEATURES = ("priority", "sessions", "ids", "tiers", "retention", "speculation", "ranks", "closed")
"""Those that an instance sees; the others belong to fleets."""
PAIRS = [frozenset(pair) for pair in combinations(FEATURES, 2)]
CASES = 4 * len(PAIRS)
ENDS, ARRIVES = 0, 1


def replayed(case: FeatureCase, told: NaiveResult, seed: int) -> tuple[list[Sequence | None], list[Engine]]:
    """Every request goes where the simulator sent it, when it came there."""
    engines = [one for pool in case.pools for one in make_engines(_spec(pool, len(case.requests.class_names)))]
    paths, rows = paths_of(case.requests), []
    for row, j in enumerate(told.instance):
        if j < 0:
            rows.append(None)
            continue
        size = engines[j].spec.block_tokens
        prompt, output = int(case.requests.input_tokens[row]), int(case.requests.output_tokens[row])
        assert can_finish(engines[j].spec, prompt, output)
        cached, urgency = int(case.requests.cached_tokens[row]), int(case.requests.priority[row])
        keys = paths[row].keys(size)
        rows.append(Sequence(prompt, output, cached, keys, urgency, normal_number(seed, row)))
    Player(case, told, engines, rows).play()
    return rows, engines


class Player:
    """Steps that end, then arrivals, then steps that start: the order of the contract."""

    def __init__(
        self, case: FeatureCase, told: NaiveResult, engines: list[Engine], rows: list[Sequence | None]
    ) -> None:
        self.told, self.engines, self.rows = told, engines, rows
        self.parent, self.think_s = case.requests.parent.tolist(), case.requests.think_s.tolist()
        self.row_of = {id(seq): row for row, seq in enumerate(rows)}
        follows = [row for row, above in enumerate(self.parent) if above >= 0 and rows[above] is not None]
        first = [row for row, seq in enumerate(rows) if seq is not None and row not in set(follows)]
        self.events = [(told.arrival_s[row], ARRIVES, row) for row in first]

    def play(self) -> None:
        heapq.heapify(self.events)
        while self.events:
            now_s = self.events[0][0]
            while self.events and self.events[0][0] == now_s:
                _, kind, number = heapq.heappop(self.events)
                if kind == ENDS:
                    self.end_step(self.engines[number], now_s)
                else:
                    seq = self.rows[number]
                    assert seq is not None
                    accept(self.engines[self.told.instance[number]], seq, now_s)
            for number, engine in enumerate(self.engines):
                if not engine.in_step and start_step(engine, now_s):
                    heapq.heappush(self.events, (now_s + engine.step_s, ENDS, number))
                assert 0 <= engine.memory.taken <= engine.memory.blocks - len(engine.memory.held)

    def end_step(self, engine: Engine, now_s: float) -> None:
        """Whoever goes on from what has ended comes when he has thought."""
        for seq in end_step(engine):
            if seq.ended:
                for row, above in enumerate(self.parent):
                    if above == self.row_of[id(seq)] and self.rows[row] is not None:
                        heapq.heappush(self.events, (now_s + self.think_s[row], ARRIVES, row))


def assert_same(case: FeatureCase, told: NaiveResult, seed: int) -> None:
    rows, engines = replayed(case, told, seed)
    late = max([t for t in told.last_s if t == t], default=0.0)
    for name in ("admit_s", "first_s", "last_s"):
        mine = [math.nan if seq is None else getattr(seq, name) for seq in rows]
        assert mine == pytest.approx(getattr(told, name), rel=1e-9, abs=1e-9 * late, nan_ok=True), name
    for name in ("steps", "prompt_tokens", "decode_tokens", "preemptions"):
        assert [getattr(engine.totals, name) for engine in engines] == getattr(told, name), name
    assert [engine.totals.busy_s for engine in engines] == pytest.approx(told.busy_s, rel=1e-9)
    for name in ("hit_tokens", "loaded_tokens"):
        assert [0 if seq is None else getattr(seq, name) for seq in rows] == getattr(told, name), name
    for engine in engines:
        assert not engine.running and not engine.waiting and engine.memory.taken == 0 and not engine.memory.held


@pytest.mark.parametrize("part", range(4))
def test_every_token_comes_when_the_simulator_says(part: int) -> None:
    met = {"preemptions": 0, "hit_tokens": 0, "loaded_tokens": 0}
    for number in range(part, CASES, 4):
        case = random_case(number, PAIRS[number % len(PAIRS)])
        told = case.run(kernel_engine, least_wait, seed=number)
        assert_same(case, told, number)
        for name in met:
            met[name] += sum(getattr(told, name))
    assert all(met.values()), f"cases in which nothing happens prove nothing: {met}"


def test_plain_batches() -> None:
    for number in range(1000, 1040):
        case = random_case(number, frozenset())
        assert_same(case, case.run(kernel_engine, least_wait, seed=number), number)


def a_spec(**changes: object) -> PoolSpec:
    case = random_case(1, frozenset())
    return _spec(case.pools[0], len(case.requests.class_names))


def test_whoever_gives_up_frees_the_place_and_the_blocks() -> None:
    engine = make_engines(a_spec())[0]
    one, two = Sequence(3, 5), Sequence(3, 5)
    accept(engine, one, 0.0)
    accept(engine, two, 0.0)
    give_up(engine, two, 0.0)
    assert engine.waiting == [one] and two.ended
    assert start_step(engine, 0.0)
    give_up(engine, one, 0.1)
    assert engine.running == [one] and not one.ended, "a step that is under way computes it to its end"
    end_step(engine)
    assert one.ended and not engine.running and engine.memory.taken == 0
    give_up(engine, one, 0.2)
    assert not start_step(engine, 1.0)


def test_the_block_released_longest_ago_gives_way() -> None:
    memory = Memory(3, loose={"old": 1.0, "mid": 2.0, "new": 3.0})
    take(memory, 1)
    assert set(memory.loose) == {"mid", "new"}
    claim(memory, ["mid"], 4.0)
    take(memory, 1)
    assert (memory.held, memory.loose, memory.free) == ({"mid"}, {}, 0)
