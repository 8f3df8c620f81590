"""Candidates: nothing that is pruned could have made a fleet cheaper, and lines lie below what they bound."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.errors import InputError
from infermix.perf.memory import kv_tokens_left, kv_tokens_left_at
from infermix.plan import candidates, model
from infermix.plan.candidates import ALL, BATCH_CAPS, CHUNKS, open_bases, seconds_at, survey, undominated
from infermix.plan.model import Column, build, make_table
from infermix.plan.options import Kept, Option, _kept, able, queue_free_capacity, refuse
from infermix.plan.question import Question, ask
from infermix.plan.queue_free import TOKENS, lines_of, pace, seconds_by_row, steps_of, work_of
from infermix.plan.worth import speed_of
from tests.nightly import examples
from tests.plan.questions import CHAT, offer, option, study

CODE: dict[str, Any] = {
    "profile": "azure-code-2023",
    "rate_per_s": 5.0,
    "slo": {"ttft_s": 3.0, "tpot_s": 0.03, "attainment": 0.9},
}
MARKET = {"systems": ["h100-x2", "l40s-x1", "cs3"], "spec": ["eagle:2"], "weights": ["fp8"], "prices": {"cs3": 60.0}}
BOTH = {"chat": CHAT, "code": CODE}


@pytest.fixture(scope="module")
def asked() -> Question:
    return ask(study(traffic=BOTH, market=MARKET))


def bound(question: Question, kept: list[Kept]) -> float:
    columns = [Column(k.option, 0, 1000, k.capacity, k.rows) for k in kept]
    found = model.solve(build(question, make_table(question, columns)), gap=0.0, tie_break=0.0)
    assert found is not None
    return found.usd_per_hour


@given(
    chat=st.floats(1.0, 60.0),
    code=st.floats(0.5, 20.0),
    tpot=st.sampled_from((0.01, 0.03, 0.1)),
    systems=st.sampled_from((["h100-x2"], ["l40s-x1", "cs3"], ["h100-x2", "l40s-x1"])),
)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_pruning_loses_no_optimum(chat: float, code: float, tpot: float, systems: list[str]) -> None:
    """The relaxation over what is kept costs as much as that over every candidate."""
    with pytest.MonkeyPatch.context() as patch:
        few = candidates.Point(np.array([8.0, 64.0, 256.0]), np.array([1024.0, 8192.0]))
        patch.setattr(candidates, "BATCH_CAPS", (8, 64, 256))
        patch.setattr(candidates, "CHUNKS", (1024, 8192))
        patch.setattr(candidates, "ALL", few)
        patch.setattr("infermix.plan.options.BATCH_CAPS", (8, 64, 256))
        patch.setattr("infermix.plan.options.CHUNKS", (1024, 8192))
        slow = {**CHAT, "rate_per_s": chat, "slo": {**CHAT["slo"], "tpot_s": tpot}}
        prices = {"cs3": 60.0} if "cs3" in systems else {}
        traffic = {"chat": slow, "code": {**CODE, "rate_per_s": code}}
        question = ask(study(traffic=traffic, market={**MARKET, "systems": systems, "prices": prices}))
        bases = open_bases(question)
        every, some = (survey(question, bases, prune=prune) for prune in (False, True))
        assert len(some.kept) < len(every.kept) <= bases.candidates
        whole, pruned = ([_kept(question, *row) for row in found.kept] for found in (every, some))
        if not all(any(name in k.capacity for k in whole) for name in question.class_names):
            return
        assert bound(question, pruned) == pytest.approx(bound(question, whole), rel=1e-6)


seconds = st.floats(0.1, 10.0)


@given(rows=st.lists(st.tuples(seconds, seconds, seconds, seconds), min_size=1, max_size=12))
@settings(max_examples=examples(200), deadline=None, derandomize=True)
def test_what_is_pruned_is_matched_by_what_stays(rows: list[tuple[float, ...]]) -> None:
    """Whatever mix a candidate holds by its rows, one that stays holds by its rows as well."""
    outer = np.array(rows).reshape(-1, 2, 2)
    inner = outer.max(axis=1)
    kept = undominated(inner, outer)
    assert kept.any()
    for share in np.linspace(0.0, 1.0, 11):
        mix = np.array([share, 1.0 - share])
        needed = (outer @ mix).max(axis=1)
        assert needed[kept].min() <= needed.min() * (1 + 1e-12)


def test_equals_leave_one() -> None:
    outer = np.ones((4, 2, 2))
    assert undominated(outer.max(axis=1), outer).sum() == 1


def test_lines_lie_below_every_step(asked: Question) -> None:
    """Dense: over every number of tokens, not only those of the grid."""
    for base in open_bases(asked).found[::5]:
        dense = np.arange(1.0, CHUNKS[-1] + 1)
        deployment = msgspec.structs.replace(base.deployment, spec=None)
        steps = steps_of(deployment, asked.speed)
        lines = lines_of(steps, ALL.caps, ALL.chunks)
        exact = Option(base.offer, deployment, asked.speed)
        big = msgspec.structs.replace(deployment, max_num_seqs=BATCH_CAPS[-1], max_batched_tokens=CHUNKS[-1])
        table = Option(exact.offer, big, asked.speed).table
        for c, cap in enumerate(BATCH_CAPS):
            line = lines.a[:, None] + lines.slope[:, c, None] * dense[:cap]
            assert (line <= table.decode_s[1 : cap + 1] * (1 + 1e-9)).all()
        for c, chunk in enumerate(CHUNKS):
            line = lines.prompt_a[:, c, None] + lines.prompt_b[:, c, None] * dense[:chunk]
            assert (line <= table.mixed_s[1 : chunk + 1] * (1 + 1e-9)).all(), base.deployment.name
        assert (lines.prompt_a >= lines.a[:, None]).all()


def test_base_times_never_fall_with_tokens(asked: Question) -> None:
    """What the grid's points stand for hangs on it."""
    for base in open_bases(asked).found:
        assert (np.diff(base.steps.decode_s) >= -1e-12).all() and (np.diff(base.steps.mixed_s) >= -1e-12).all()


def test_room_at_settings_is_that_of_a_deployment(asked: Question) -> None:
    for base in open_bases(asked).found[::7]:
        for c, cap in enumerate(BATCH_CAPS[::5]):
            settings_ = msgspec.structs.replace(base.deployment, max_num_seqs=cap, max_batched_tokens=2048)
            assert base.kv_tokens[5 * c, CHUNKS.index(2048)] == pytest.approx(kv_tokens_left(settings_), abs=1.0)
    assert kv_tokens_left_at(base.deployment, np.array([4.0]), np.array([512.0])).shape == (1,)


def test_a_candidate_is_worth_what_its_option_is(asked: Question) -> None:
    """Judged one by one or all at once: the same seconds, the same ability."""
    found = survey(asked, open_bases(asked))
    for row in found.kept[::6]:
        kept = _kept(asked, *row)
        for demand in asked.demands:
            mine = kept.capacity.get(demand.name)
            assert able(kept.option, demand) == (mine is not None)
            if mine is not None:
                assert queue_free_capacity(kept.option, demand) >= mine * (1 - 1e-9)
                assert refuse(kept.option, demand) is None or mine > 0


def test_a_tighter_promise_never_raises_it(asked: Question) -> None:
    base = open_bases(asked).found[0]
    found = []
    for tpot in (0.2, 0.05, 0.02, 0.012):
        row = {**CHAT, "slo": {**CHAT["slo"], "tpot_s": tpot}}
        demand = ask(study(traffic={"chat": row})).demands[0]
        found.append(seconds_at(base, demand, ALL).max(axis=0))
    for loose, tight in zip(found, found[1:], strict=False):  # noqa: RUF007
        assert (tight >= loose * (1 - 1e-12)).all()
    assert (found[-1] > found[0] * 1.05).any()


def test_prefill_and_decode_take_together_no_more_than_both(asked: Question) -> None:
    base, demand = open_bases(asked).found[0], asked.demands[0]
    both, prefill, decode = (
        seconds_by_row(base.steps, base.lines, demand, ALL.caps, ALL.chunks, base.kv_tokens, role)
        for role in ("both", "prefill", "decode")
    )
    assert (prefill.max(axis=(0, 1)) < both.max(axis=(0, 1))).all()
    assert (decode.max(axis=(0, 1)) < both.max(axis=(0, 1)) * (1 + 1e-9)).all()


def test_late_requests_are_left_out_where_they_matter_most() -> None:
    demand = ask(study()).demands[0]
    work = work_of(demand)
    assert 0 < work.good_steps < work.steps * demand.cls.slo.attainment
    assert work.bare_reads <= work.reads and work_of(demand, 2.0).steps == pytest.approx(work.steps / 2)


def test_the_grid_is_dense_where_batches_are() -> None:
    assert TOKENS[0] == 1 and TOKENS[-1] == CHUNKS[-1] and (np.diff(TOKENS[: BATCH_CAPS[-1]]) == 1).all()
    assert all(chunk in TOKENS for chunk in CHUNKS)


def test_narrower_weights_only_where_the_study_says_so_and_the_chip_can() -> None:
    plain = open_bases(ask(study(market={"systems": ["tpu-v6e-x8"]})))
    wider = open_bases(ask(study(market={"systems": ["tpu-v6e-x8"], "weights": ["fp8", "nvfp4"]})))
    assert {base.deployment.weights for base in plain.found} == {"bf16"}
    assert {base.deployment.weights for base in wider.found} == {"bf16", "fp8"}


def test_an_option_of_another_model_serves_no_class() -> None:
    of = option(offer("h100-x1", 1.0))
    two = ask(study(traffic={"chat": {**CHAT, "model": "gpt-oss-20b"}}))
    assert not able(of, two.demands[0])


@pytest.mark.parametrize(
    ("market", "must"),
    [({"weights": ["fp7"]}, r"market\.weights.*'fp7'.*mxfp4"), ({"spec": ["eagle:99"]}, r"market\.spec.*99")],
)
def test_unknown_dtypes_and_speculation_are_named(market: dict[str, Any], must: str) -> None:
    with pytest.raises(InputError, match=must):
        study(market={"systems": ["h100-x1"], **market})


def test_where_speed_is_worth_money_faster_candidates_stay() -> None:
    """Of those that stay, none is beaten by another one of its group that is as fast."""
    raw = {"market": {"systems": ["h100-x2"]}, "traffic": {"chat": {**CHAT, "value_of_time_usd_per_hour": 30.0}}}
    least, most = ask(study(**raw)), ask(study(**raw, objective={"maximise": "profit_usd_per_hour"}))
    few, many = survey(least, open_bases(least)).kept, survey(most, open_bases(most)).kept

    def fastest(kept: list[Any]) -> float:
        options = [_kept(least, *row).option for row in kept]
        return max(speed_of(of, least.demands[0]).tokens_per_s for of in options)

    assert len(many) > len(few) and fastest(many) > fastest(few)


def test_sessions_that_wait_longer_send_less_and_never_more_than_recorded() -> None:
    def of(**slo: float) -> float:
        row = {"profile": "agentic-coding", "sessions": 30, "slo": {"attainment": 0.9, **slo}}
        return pace(ask(study(traffic={"agents": row})).demands[0])

    slow, middle, fast = of(ttft_s=20.0, tpot_s=0.2), of(ttft_s=10.0, tpot_s=0.1), of(ttft_s=0.5, tpot_s=0.001)
    assert 0.0 < slow < middle < fast == 1.0
    assert of(ttft_s=5.0) < middle, "nothing is promised on the other tokens"
    assert pace(ask(study()).demands[0]) == 1.0


def test_drafts_make_no_line_flat() -> None:
    """Steps that verify drafts take longer than those with a prompt alone: lines lie below both, and rise."""
    for base in open_bases(ask(study(market={"systems": ["h100-x2"], "spec": ["eagle:3"]}))).found:
        assert (base.lines.prompt_b > 0.0).all() and (base.lines.slope > 0.0).all(), base.deployment.name
