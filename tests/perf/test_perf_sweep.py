"""Operating points and the sweep: the same numbers as a lone prediction, whatever was computed once or in parallel."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.perf import sweep as module
from infermix.perf.breakdown import bound_by
from infermix.perf.idle import ttft_s
from infermix.perf.layouts import telling
from infermix.perf.operating import Load, Points, bought_chips, for_groups, points
from infermix.perf.predict import predict
from infermix.perf.specdec import Speculation
from infermix.perf.sweep import (
    Refusal,
    Row,
    Wish,
    a_deployment,
    curves,
    pair,
    sweep,
    sweep_everything,
    systems_by_chip,
    usual_system,
)

CAT = catalog()
SYSTEMS = systems_by_chip(CAT)
LOADS = [Load(1000, 200), Load(20_000, 1000, 15_000), Load(1, 1)]
MODELS = ("llama-3.1-8b", "gpt-oss-120b", "deepseek-v3.2", "gemma-3-27b", "kimi-linear-48b-a3b")
CHIPS = ("h200-sxm", "b200-sxm", "mi300x", "trainium2", "wse3", "groq-lpu-v1", "l4", "gb10")


def found(chip: str, model: str, wish: Wish) -> list[Points]:
    record = CAT.chips[chip]
    told = curves(CAT, record, usual_system(CAT, record, SYSTEMS[chip]), CAT.models[model], wish)
    return [] if isinstance(told, Refusal) else told


@pytest.mark.parametrize("spec", [None, Speculation("eagle", 2, 2.3)], ids=["plain", "drafts"])
@pytest.mark.parametrize("chip", CHIPS)
def test_points_are_what_a_lone_prediction_says(chip: str, spec: Speculation | None) -> None:
    for model in MODELS:
        for load in LOADS:
            if load.input_tokens + load.output_tokens > CAT.models[model].max_context:
                continue
            for curve in found(chip, model, Wish(load=load, spec=spec)):
                _like_predictions(curve, load)


def _like_predictions(curve: Points, load: Load) -> None:
    d = curve.deployment
    lone = msgspec.structs.replace(d, max_num_seqs=256, max_batched_tokens=d.max_batched_tokens // d.dp)
    assert curve.ttft_s == pytest.approx(ttft_s(lone, load.input_tokens, load.cached_tokens))
    for i in {0, len(curve.batch) // 2, len(curve.batch) - 1}:
        batch = int(curve.batch[i])
        now = predict(d, batch=batch, input_tokens=load.input_tokens, output_tokens=load.output_tokens)
        assert now.fits and now.tpot_s == pytest.approx(curve.tpot_s[i])
        assert curve.tokens_per_s[i] == pytest.approx(now.tokens_per_s)
        assert curve.kv_tokens_left == now.kv_tokens_left
        assert curve.bound(i) == now.bound == bound_by(d, batch, load.context)


def test_batches_that_do_not_fit_are_left_out() -> None:
    for curve in found("h200-sxm", "llama-3.3-70b", Wish(load=Load(50_000, 500))):
        last = int(curve.batch[-1])
        assert last * 50_500 <= curve.kv_tokens_left
        assert 2 * last * 50_500 > curve.kv_tokens_left or 2 * last > curve.deployment.max_num_seqs
    d = found("h200-sxm", "llama-3.1-8b", Wish(load=LOADS[0]))[0].deployment
    lone = points(d, LOADS[0], np.array([3.0]))
    assert lone is not None and lone.batch.tolist() == [3.0]
    assert points(d, LOADS[0], np.array([1e6])) is None


def test_chip_time_is_that_of_decoding_and_of_the_prompts() -> None:
    """With hardly a prompt it is chips over throughput; a prompt adds the same whatever the batch."""
    short, long = (found("h200-sxm", "llama-3.1-8b", Wish(load=Load(n, 1000)))[0] for n in (1, 8000))
    decode = bought_chips(short.deployment) * 1e6 / short.tokens_per_s
    beside = short.chip_s_per_mtok - decode
    assert np.all(beside > 0) and np.all(beside < 0.05 * decode.max())
    n = len(long.batch)
    added = long.chip_s_per_mtok - bought_chips(long.deployment) * 1e6 / long.tokens_per_s
    assert n > 3 and np.ptp(added) < 1e-9 * added.max() and added[0] > 3 * beside[0]


def test_chips_that_no_instance_fits_on_are_paid_for() -> None:
    system, model = CAT.systems["gb200-nvl72"], CAT.models["llama-3.3-70b"]
    base = a_deployment(CAT, system, model, Wish(load=LOADS[0]))
    paid = {tp: bought_chips(msgspec.structs.replace(base, tp=tp)) for tp in (1, 8, 16, 32, 64)}
    assert paid == {1: 1.0, 8: 8.0, 16: 18.0, 32: 36.0, 64: 72.0}
    assert bought_chips(msgspec.structs.replace(base, tp=72, pp=2)) == 144.0


def test_room_is_made_for_every_group() -> None:
    base = a_deployment(CAT, CAT.systems["h200-x8"], CAT.models["deepseek-v3.2"], Wish(load=LOADS[0]))
    grown = for_groups(msgspec.structs.replace(base, dp=8, ep=8))
    assert (grown.max_num_seqs, grown.max_batched_tokens) == (2048, 65_536)
    assert for_groups(msgspec.structs.replace(base, max_num_seqs=3000)).max_num_seqs == 3000


def test_the_two_rows_are_the_best_of_all_points() -> None:
    for chip in CHIPS:
        for model in MODELS:
            every = found(chip, model, Wish(load=LOADS[0]))
            record = CAT.chips[chip]
            rows = list(
                pair(CAT, record, usual_system(CAT, record, SYSTEMS[chip]), CAT.models[model], Wish(load=LOADS[0]))
            )
            if not every:
                assert len(rows) == 1 and rows[0].reason
                continue
            told = {r.best_for: r for r in rows}
            assert told["speed"].tpot_s == min(float(c.tpot_s.min()) for c in every)
            assert told["cost"].chip_s_per_mtok_output == min(float(c.chip_s_per_mtok.min()) for c in every)
            assert len(every) == sum(
                d.layout in {c.deployment.layout for c in every} for d in telling(every[0].deployment)
            )


def test_a_least_speed_leaves_only_points_that_are_fast_enough() -> None:
    wish = Wish(load=LOADS[0], least_tokens_per_s_user=150.0)
    rows = list(sweep(CAT, [CAT.chips["h200-sxm"], CAT.chips["l4"]], [CAT.models["llama-3.1-8b"]], wish))
    cost = [r for r in rows if r.best_for == "cost"]
    assert [r.chip for r in cost] == ["h200-sxm"] and (cost[0].tokens_per_s_user or 0) >= 150
    every = found("h200-sxm", "llama-3.1-8b", wish)
    able = [c.chip_s_per_mtok[i] for c in every for i in range(len(c.batch)) if 1 / c.tpot_s[i] >= 150]
    assert cost[0].chip_s_per_mtok_output == min(able)


@pytest.mark.parametrize(
    ("chip", "model", "load", "kind", "said"),
    [
        ("truenorth", "llama-3.1-8b", LOADS[0], "no_speed", "spiking"),
        ("h100-sxm", "gpt2-xl", Load(1000, 200), "context", "1,024 tokens"),
        ("t4", "llama-3.1-405b", LOADS[0], "memory", "does not fit on t4"),
        ("l4", "llama-3.3-70b", Load(100_000, 300), "room", "100,300 tokens exceeds"),
        ("h100-sxm", "llama-3.1-8b", LOADS[0], "input", "multi-token"),
    ],
)
def test_reasons_have_kinds(chip: str, model: str, load: Load, kind: str, said: str) -> None:
    record = CAT.chips[chip]
    spec = Speculation("mtp", 2, 2.3) if kind == "input" else None
    place = usual_system(CAT, record, SYSTEMS.get(chip, []))
    rows = list(pair(CAT, record, place, CAT.models[model], Wish(load=load, spec=spec)))
    assert [(r.reason_kind, said in r.reason, r.tpot_s) for r in rows] == [(kind, True, None)]


def test_a_chip_without_family_or_system_says_so() -> None:
    chip, model, wish = CAT.chips["h100-sxm"], CAT.models["llama-3.1-8b"], Wish(load=LOADS[0])
    for record, kind in ((msgspec.structs.replace(chip, efficiency=""), "figures"), (chip, "no_system")):
        told = curves(CAT, record, None, model, wish)
        assert isinstance(told, Refusal) and told.kind == kind


def test_the_usual_system_has_a_price_and_is_the_largest_of_a_size() -> None:
    for chip in CAT.chips.values():
        mine = SYSTEMS.get(chip.id, [])
        usual = usual_system(CAT, chip, mine)
        assert (usual is None) == (not mine)
        if usual is None or not chip.efficiency:
            continue
        priced = [s for s in mine if s.rent_usd_per_hour or s.capital_usd or s.operator_cost_usd_per_hour] or mine
        small = [s for s in priced if s.chips <= module.MOST_CHIPS] or priced
        pipeline = CAT.efficiencies[chip.efficiency].machine == "pipeline"
        assert usual in small and usual.chips == (min if pipeline else max)(s.chips for s in small), chip.id


def test_processes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chips, models, wish = ["h200-sxm", "wse3", "truenorth"], ["llama-3.1-8b", "gpt-oss-20b"], Wish(load=LOADS[0])
    seen: list[tuple[int, int]] = []
    alone = sweep_everything(chips, models, wish, lambda n, of: seen.append((n, of)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    monkeypatch.setattr(module, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    seen.clear()
    together = sweep_everything(chips, models, wish, lambda n, of: seen.append((n, of)))
    assert together == alone and [n for n, _ in seen] == [1, 2, 3]
    assert [(r.chip, r.model) for r in together] == [(r.chip, r.model) for r in alone]


def test_a_row_leaves_out_what_it_does_not_have() -> None:
    row = Row(chip="a", model="b", reason="c", reason_kind="memory")
    assert msgspec.json.decode(msgspec.json.encode(row)) == {
        "chip": "a", "model": "b", "reason": "c", "reason_kind": "memory"
    }  # fmt: skip
