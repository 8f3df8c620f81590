"""Known step times are found again from the times that follow from them."""

from __future__ import annotations

import numpy as np
import pytest

from infermix.errors import InputError
from infermix.measure.again import simulate_again
from infermix.measure.calibration import calibrate
from infermix.measure.engine import Engine
from infermix.measure.fit import choices, most_at_once, replay
from infermix.measure.score import errors
from infermix.measure.steps import OwnSteps
from infermix.measure.timed import Timed
from infermix.rng import uniforms
from infermix.sim.run import simulate_pools
from infermix.workload.requests import Requests, make_requests

TRUE = OwnSteps(step_s=0.02, token_s=0.0008, seq_s=0.002, kv_s=1e-5, overhead_s=0.03)
FOUR = Engine(max_num_seqs=4, max_batched_tokens=2048)
LEVELS = (1, 2, 6, 3)


def closed_loops(levels: tuple[int, ...] = LEVELS, turns: int = 6) -> Requests:
    """Clients that ask again when they are answered, one level after the other; the last one is for the check."""
    level, client, turn = (
        np.array(x)
        for x in zip(*((k, c, t) for k, n in enumerate(levels) for t in range(turns) for c in range(n)), strict=True)
    )
    n = len(level)
    parent = np.array([np.flatnonzero((level == k) & (client == c) & (turn == t - 1))[0] if t else -1
                       for k, c, t in zip(level, client, turn, strict=True)])  # fmt: skip
    names = (*(f"{n} clients" for n in levels[:-1]), f"{levels[-1]} clients, check")
    luck = uniforms(1, 1, n), uniforms(1, 2, n)
    return make_requests(
        names,
        level * 1e4 + turn,
        (40 + 400 * luck[0]).astype(int),
        (8 + 40 * luck[1]).astype(int),
        class_id=level,
        parent=parent,
        think_s=0.001,
    )


def measured(steps: OwnSteps = TRUE, engine: Engine = FOUR) -> Timed:
    requests = closed_loops()
    unknown = np.full(len(requests), np.nan)
    real = replay(Timed(requests, unknown, unknown, closed=True), steps, engine)
    return Timed(real.requests, real.ttft_s, real.e2e_s, closed=True)


def test_known_step_times_are_found_again() -> None:
    found = calibrate(measured())
    steps = found["steps"]
    assert found["engine"]["max_num_seqs"] == 4
    assert steps["token_s"] == pytest.approx(TRUE.token_s, rel=0.1)  # seq_s can stand in for some of it
    for part in ("fit", "check"):
        assert all(error["median_abs_log_error"] < 0.03 for error in found[part]["errors"].values()), found[part]


def test_what_the_measurements_do_not_show_stays_nought() -> None:
    found = calibrate(measured(OwnSteps(step_s=0.02, token_s=0.0008)))
    assert found["fit"]["coefficients"] == 2
    assert found["steps"]["token_s"] == pytest.approx(0.0008, rel=0.01)
    assert found["steps"]["step_s"] == pytest.approx(0.02, rel=0.01)


def test_the_check_does_not_enter_the_fit() -> None:
    real = measured()
    check = real.requests.class_id == len(LEVELS) - 1
    slower = Timed(real.requests, np.where(check, 3.0, 1.0) * real.ttft_s, np.where(check, 3.0, 1.0) * real.e2e_s,
                   closed=True)  # fmt: skip
    a, b = calibrate(real, max_num_seqs=4), calibrate(slower, max_num_seqs=4)
    assert a["steps"] == b["steps"]
    assert b["check"]["errors"]["ttft_s"]["bias"] < -1.0


def test_as_many_at_once_as_were_seen_is_tried_as_a_limit() -> None:
    real = measured()
    every = np.ones(len(real), dtype=np.bool_)
    assert most_at_once(real, every) == 4
    assert {engine.max_num_seqs for engine in choices(real, every)} == {4, 256}


def test_unfinished_requests_of_a_simulation_count_as_misses() -> None:
    real = measured()
    lost = Timed(real.requests, np.full(len(real), np.nan), np.full(len(real), np.nan), closed=True)
    assert errors(lost, real, np.ones(len(real), dtype=np.bool_))["e2e_s"]["median_abs_log_error"] == 3.0


def test_too_few_answers_are_refused() -> None:
    requests = make_requests(("1 client",), [0.0, 1.0], [9, 9], [2, 2], parent=[-1, 0])
    with pytest.raises(InputError, match="too few answers"):
        calibrate(Timed(requests, np.ones(2), np.ones(2) * 2.0, closed=True))


def test_simulating_again_is_simulating() -> None:
    requests, spec = closed_loops(), TRUE.spec(FOUR, len(LEVELS))
    ours, theirs = simulate_again(requests, spec, "least_wait"), simulate_pools(requests, [spec], "least_wait")
    assert ours.first_s.tolist() == theirs.first_s.tolist() and ours.last_s.tolist() == theirs.last_s.tolist()
