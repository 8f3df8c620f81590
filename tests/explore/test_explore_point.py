"""One model on one system: layouts, names, costs, figures."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from infermix.catalog.load import UnknownName, catalog
from infermix.catalog.query import figure
from infermix.catalog.records import Chip, Figure, System
from infermix.cost.rent import Terms
from infermix.errors import InputError, NoAnswer
from infermix.explore.apart import prefill_on, split_with
from infermix.explore.point import Ask, answer, choose, find_place, other_layouts, record, speed
from infermix.explore.prices import NoPrice, Price, price_of
from infermix.explore.roofline import roofline
from infermix.perf import figures
from infermix.perf.deployment import Deployment
from infermix.perf.layouts import telling
from infermix.perf.operating import Load, bought_chips, points
from infermix.perf.predict import predict
from infermix.perf.specdec import Speculation

CAT = catalog()
SHORT = Load(1000, 200)


def chosen(model: str, system: str, **options: Any) -> tuple[Deployment, list[str]]:
    return choose(CAT, CAT.systems[system], CAT.models[model], Ask(load=SHORT, **options))


@pytest.mark.parametrize("system", ["h200-x8", "gb200-nvl72", "trn2-x64", "h100-x1"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt-oss-120b", "deepseek-v3.2"])
@pytest.mark.parametrize("batch", [1, 64])
def test_the_layout_is_the_one_with_least_time_per_token(model: str, system: str, batch: int) -> None:
    ask = Ask(load=SHORT, batch=batch)
    d, compared = choose(CAT, CAT.systems[system], CAT.models[model], ask)
    if not compared:
        assert not speed(d, ask).fits
        return
    times = {x.layout: told.tpot_s for x in telling(d) if (told := speed(x, ask)).fits}
    assert set(compared) == set(times) and times[d.layout] == min(times.values())


def test_another_batch_may_want_another_layout() -> None:
    assert {chosen("deepseek-v3.2", "gb200-nvl72", batch=b)[0].layout for b in (1, 512)} == {"tp64", "dp64 ep64"}


def test_sram_machines_take_the_fewest_in_line_that_hold_the_batch() -> None:
    few, compared = chosen("llama-3.3-70b", "cs3")
    more, _ = chosen("llama-3.3-70b", "cs3", batch=256)
    assert few.stages == min(int(layout[1:]) for layout in compared) and more.stages >= few.stages
    shorter = msgspec.structs.replace(few, stages=few.stages - 1)
    assert predict(shorter, batch=1, input_tokens=16_384, output_tokens=0).fits is False


def test_a_stated_degree_is_kept_and_the_others_follow() -> None:
    d, compared = chosen("gpt-oss-120b", "h200-x8", dp=2)
    assert (d.tp, d.dp, d.pp, compared) == (4, 2, 1, [])
    assert chosen("llama-3.1-8b", "h200-x8", tp=1)[0].chips == 1
    with pytest.raises(InputError, match="tp must divide"):
        answer(CAT, "h200-x8", CAT.models["llama-3.1-8b"], Ask(load=SHORT, tp=3))


def test_a_chip_stands_for_its_usual_system() -> None:
    system, note = find_place(CAT, "h200-sxm")
    assert system.id == "h200-x8" and "h200-sxm is a chip" in note and system.id in note
    assert find_place(CAT, "h200-x8") == (CAT.systems["h200-x8"], "")
    for name in ("truenorth", "rain-npu"):
        with pytest.raises(NoAnswer, match=name):
            find_place(CAT, name)
    with pytest.raises(UnknownName, match="did you mean 'h200-x8'"):
        find_place(CAT, "h200x8")


def test_every_chip_without_a_speed_says_why() -> None:
    for chip in CAT.chips.values():
        if chip.no_speed:
            with pytest.raises(NoAnswer) as refused:
                answer(CAT, chip.id, CAT.models["llama-3.1-8b"], Ask(load=SHORT))
            assert chip.no_speed in str(refused.value)


def test_points_agree_with_the_prediction_and_with_the_cost() -> None:
    for model, system, batch in (("llama-3.3-70b", "h200-x8", 12), ("deepseek-v3.2", "gb200-nvl72", 512)):
        ask = Ask(load=SHORT, batch=batch)
        found = answer(CAT, system, CAT.models[model], ask)
        mine = next(p for p in found.points if p.batch == batch)
        assert mine.tpot_s == pytest.approx(found.prediction.tpot_s)
        assert found.cost is not None
        rent = CAT.systems[system].rent_usd_per_hour
        assert rent is not None
        share = bought_chips(found.deployment) / CAT.systems[system].chips
        assert found.cost.usd_per_hour == pytest.approx(rent.value * share)
        assert found.cost.usd_per_mtok_output == pytest.approx(
            mine.chip_s_per_mtok_output * rent.value / CAT.systems[system].chips / 3600
        )
        assert found.cost.usd_per_mtok == pytest.approx(found.cost.usd_per_mtok_output * 200 / 1200)
        assert found.cost.low["usd_per_mtok"] > found.cost.usd_per_mtok > found.cost.high["usd_per_mtok"]


def test_the_first_token_of_groups_is_that_of_the_sweep() -> None:
    ask = Ask(load=Load(40_000, 200), batch=32, dp=8, ep=8)
    d, _ = choose(CAT, CAT.systems["h200-x8"], CAT.models["deepseek-v3.2"], ask)
    curve = points(d, ask.load)
    now = speed(d, ask)
    assert curve is not None and now.ttft_s == pytest.approx(curve.ttft_s)
    assert now.low["ttft_s"] > now.ttft_s > now.high["ttft_s"]


def test_decoding_alone_costs_what_the_price_and_the_speed_say() -> None:
    """With a prompt of one token nothing but decoding is paid for."""
    found = answer(CAT, "h200-x8", CAT.models["llama-3.1-8b"], Ask(load=Load(1, 2000), batch=8))
    assert found.cost is not None
    assert found.cost.usd_per_mtok_output == pytest.approx(28 / 3600 / found.prediction.tokens_per_s * 1e6, rel=0.02)


@pytest.mark.parametrize(
    ("system", "basis", "terms", "said"),
    [
        ("cs3", "rent", Terms(), "only what it costs its operator"),
        ("gaudi3-x8", "rent", Terms(), "only a purchase price"),
        ("gaudi3-x8", "rent", Terms(life_years=5, usd_per_kwh=0.1), "only a purchase price"),
        ("l40-x8", "own", Terms(), "only a rent"),
        ("corsair-x8", "rent", Terms(gross_margin=0.4, life_years=5, usd_per_kwh=0.1), "no price is known"),
    ],
)
def test_a_price_is_never_converted_without_terms(system: str, basis: Any, terms: Terms, said: str) -> None:
    found = price_of(CAT, CAT.systems[system], basis, terms)
    assert isinstance(found, NoPrice) and said in found.reason


@pytest.mark.parametrize(
    ("system", "basis", "terms"),
    [
        ("cs3", "rent", Terms(gross_margin=0.4)),
        ("cs3", "own", Terms()),
        ("gaudi3-x8", "rent", Terms(gross_margin=0.4, life_years=5, usd_per_kwh=0.1)),
        ("l40-x8", "own", Terms(gross_margin=0.4)),
    ],
)
def test_a_price_is_converted_with_them(system: str, basis: Any, terms: Terms) -> None:
    found = price_of(CAT, CAT.systems[system], basis, terms)
    assert isinstance(found, Price) and found.usd_per_hour > 0
    assert found.figures and found.read == max(figure(CAT, id_).read for id_ in found.figures)


def test_the_mend_named_is_enough() -> None:
    values = {"--gross-margin": 0.4, "--life-years": 5.0, "--usd-per-kwh": 0.1}
    for system in CAT.systems.values():
        for basis in ("rent", "own"):
            found = price_of(CAT, system, basis)  # type: ignore[arg-type]
            if isinstance(found, NoPrice) and found.mend:
                terms = Terms(**{name[2:].replace("-", "_"): values[name] for name in found.mend.split()})
                assert isinstance(price_of(CAT, system, basis, terms), Price), (system.id, basis)  # type: ignore[arg-type]


def test_money_is_spent_on_whole_systems() -> None:
    price = Price(system="x", usd_per_hour=80.0, basis="rent", read="", chips=8, figures=())
    assert [price.of_instance(n) for n in (1, 2, 3, 8, 16, 12)] == [10.0, 20.0, 40.0, 80.0, 160.0, 160.0]
    assert price.usd_per_chip_s == pytest.approx(10 / 3600)


CASES = [
    ("llama-3.3-70b", "h200-x8", {"batch": 16}),
    ("deepseek-v3.2", "h200-x8", {"batch": 8, "dp": 8, "ep": 8}),
    ("gpt-oss-120b", "cs3", {}),
    ("kimi-k2", "h100-x8", {"tp": 8, "pp": 4, "batch": 32}),
    ("gpt-oss-20b", "mi300x-x8", {"tp": 2}),
]


@pytest.mark.parametrize(("model", "system", "options"), CASES)
def test_a_figure_that_is_not_named_does_not_matter(model: str, system: str, options: dict[str, Any]) -> None:
    """Every chip and system figure is changed in turn; only those named may change the answer."""
    ask = Ask(load=SHORT, **options)
    found = answer(CAT, system, CAT.models[model], ask)
    d = choose(CAT, CAT.systems[system], CAT.models[model], ask)[0]
    before = _numbers(d, ask)
    for part, owner in (("chips", d.chip), ("systems", d.system)):
        for name in owner.__struct_fields__:
            old = getattr(owner, name)
            if not isinstance(old, Figure) or f"{part}/{owner.id}/{name}" in found.figures:
                continue
            assert _numbers(_changed(d, owner, name, old), ask) == before, name


@pytest.mark.parametrize(("model", "system", "options"), CASES)
def test_a_figure_that_is_named_may_matter(model: str, system: str, options: dict[str, Any]) -> None:
    """Halved or multiplied one by one, all chip figures that are named change the answer at some batch or prompt."""
    ask = Ask(load=SHORT, **options)
    d = choose(CAT, CAT.systems[system], CAT.models[model], ask)[0]
    named = [id_.split("/")[2] for id_ in figures.of_deployment(d) if id_.startswith("chips/")]
    asks = [ask, msgspec.structs.replace(ask, load=Load(8000, 100), batch=128), msgspec.structs.replace(ask, batch=64)]
    idle = [
        name
        for name in named
        if all(
            _numbers(_changed(d, d.chip, name, getattr(d.chip, name), by), a) == _numbers(d, a)
            for a in asks
            for by in (0.5, 64.0)
        )
    ]
    assert idle == []


def _changed(d: Deployment, owner: Chip | System, name: str, old: Figure, by: float = 0.5) -> Deployment:
    other = msgspec.structs.replace(old, value=by * old.value, low=None, high=None)
    new = msgspec.structs.replace(owner, **{name: other})
    return msgspec.structs.replace(d, **{"chip" if isinstance(owner, Chip) else "system": new})


def _numbers(d: Deployment, ask: Ask) -> tuple[float, ...]:
    now = speed(d, ask)
    return (now.ttft_s, now.tpot_s, now.kv_tokens_left) if now.fits else (now.kv_tokens_left,)


@pytest.mark.parametrize(("model", "system", "options"), CASES)
def test_every_figure_named_is_in_the_catalogue(model: str, system: str, options: dict[str, Any]) -> None:
    found = answer(CAT, system, CAT.models[model], Ask(load=SHORT, **options))
    assert len(found.figures) == len(set(found.figures)) > 10
    assert all(math.isfinite(figure(CAT, id_).value) for id_ in found.figures)
    if found.cost is not None:
        assert f"systems/{system}/rent_usd_per_hour" in found.figures
    assert f"models/{model}/params" in found.figures
    assert set(figures.unverified(CAT, found.figures)) <= set(found.figures)


def test_the_record_is_plain_and_names_the_layout() -> None:
    ask = Ask(load=Load(1000, 200, 400), batch=4, spec=Speculation("eagle", 2, 2.3))
    told = record(answer(CAT, "cs3", CAT.models["llama-3.3-70b"], ask), ask)
    assert told["stages"] >= 1 and "tp" not in told and told["layout"] == f"x{told['stages']}"
    assert told["no_price"] and "cost" not in told and told["spec"] == "eagle:2:2.3" and told["cached_tokens"] == 400
    assert msgspec.json.decode(msgspec.json.encode(told))["parts_s"]
    told = record(answer(CAT, "h200-x8", CAT.models["llama-3.3-70b"], ask), ask)
    assert told["cost"]["usd_per_mtok_output"] > 0 and "no_price" not in told and told["tp"] == 8


def test_too_long_a_request_and_too_large_a_batch() -> None:
    with pytest.raises(NoAnswer, match="exceeds the 131,072"):
        answer(CAT, "h200-x8", CAT.models["llama-3.1-8b"], Ask(load=Load(131_000, 200)))
    found = answer(CAT, "h100-x8", CAT.models["llama-3.3-70b"], Ask(load=Load(100_000, 200), batch=512))
    assert not found.prediction.fits and "KV tokens left" in found.prediction.reason and found.points == []


def test_other_layouts_have_points_of_their_own() -> None:
    ask = Ask(load=SHORT)
    d, compared = chosen("gpt-oss-120b", "h200-x8")
    others = other_layouts(d, ask)
    assert {x.layout for x, _ in others} == set(compared) - {d.layout}
    assert all(pts[0].batch == 1 for _, pts in others)


@pytest.mark.parametrize(("model", "system", "options"), CASES)
def test_no_spot_lies_above_the_roof(model: str, system: str, options: dict[str, Any]) -> None:
    d = choose(CAT, CAT.systems[system], CAT.models[model], Ask(load=SHORT, **options))[0]
    line = roofline(d, SHORT, [1, 8, 64])
    peak = max(c.peak for c in line.ceilings)
    assert line.reached_bytes_per_s <= line.bytes_per_s and sum(c.used for c in line.ceilings) == 1
    assert [s.batch for s in line.spots] == [1, 8, 64, 0]
    for spot in line.spots:
        assert 0 < spot.flop_per_s <= min(peak, line.bytes_per_s * spot.intensity) * (1 + 1e-9), spot.name
    assert all(c.reached <= c.peak for c in line.ceilings)
    steps = [s.intensity for s in line.spots if s.batch]
    assert np.all(np.diff(steps) > 0), "larger batches share the weights"


def test_prompts_read_elsewhere_take_reading_and_sending() -> None:
    ask = Ask(load=Load(8000, 200), batch=4)
    d = choose(CAT, CAT.systems["cs3"], CAT.models["llama-3.3-70b"], ask)[0]
    found = prefill_on(CAT, "h100-sxm", d, ask)
    assert found.system == "h100-x8" and "is a chip" in found.note
    assert found.ttft_s == found.prompt_s + found.transfer.seconds
    assert found.transfer.bytes == 8000 * CAT.models["llama-3.3-70b"].kv_elements_per_token.value * 2
    alone = answer(CAT, "h100-x8", CAT.models["llama-3.3-70b"], ask).prediction
    assert found.prompt_s <= alone.ttft_s * (1 + 1e-9), "the layout that is soonest done"
    assert all(math.isfinite(figure(CAT, id_).value) for id_ in found.figures)
    with pytest.raises(NoAnswer, match="does not fit"):
        prefill_on(CAT, "h100-x1", choose(CAT, CAT.systems["cs3"], CAT.models["llama-3.1-405b"], ask)[0], ask)


def test_a_split_takes_the_fastest_pair_of_layouts() -> None:
    ask = Ask(load=Load(4000, 200), batch=8)
    model = CAT.models["deepseek-v3.2"]
    found = split_with(CAT, "groq3-lpu", CAT.systems["h200-x8"], model, ask)
    small = split_with(CAT, "groq3-lpu", CAT.systems["h200-x8"], model, msgspec.structs.replace(ask, tp=1))
    assert (found.attention_layout, small.attention_layout) == ("tp8", "tp1")
    assert found.speed.tpot_s < small.speed.tpot_s and found.speed.hypothetical
    assert all(math.isfinite(figure(CAT, id_).value) for id_ in found.figures)
    with pytest.raises(InputError, match="attention on an SRAM machine"):
        split_with(CAT, "h200-x8", CAT.systems["cs3"], CAT.models["llama-3.1-8b"], ask)
