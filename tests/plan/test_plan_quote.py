"""Offers against traffic: money by the day, odds where they are known, files that cannot be."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infermix.arrays import Floats
from infermix.errors import InputError, NoAnswer
from infermix.plan.problem import Study, parse_study
from infermix.plan.quote import draws as drawing
from infermix.plan.quote import run
from infermix.plan.quote.draws import latin
from infermix.plan.quote.instead import price_for, what_to_ask_for
from infermix.plan.quote.offer import VendorOffer, ends, parse_offer
from infermix.plan.quote.result import Quote
from infermix.plan.quote.run import quote
from infermix.plan.quote.stand import Stand
from infermix.plan.quote.worth import HOURS_PER_YEAR, Terms, Worlds
from tests.naive.quote import best_gain_usd, gain_usd
from tests.nightly import examples
from tests.plan.questions import CHAT, RAW

PLAIN = Terms(years=1.0, discount_rate=0.0, refund=0.0, deposit_usd=0.0, refundable=False)
shares = st.floats(0.0, 0.9)


def worlds(n: int, **changes: Any) -> Worlds:
    zero = np.zeros(n)
    plain: dict[str, Any] = {
        "delivery_years": zero, "delivered": zero == 0, "falls": zero, "equity_usd": zero, "kept": zero == 0,
    }  # fmt: skip
    return Worlds(**{**plain, **changes})


def stand(savings: Floats, **changes: Any) -> Stand:
    """An offer of one system (or of what ``most`` says) that saves so much in each draw; the first is nominal."""
    saving = np.atleast_2d(savings)
    plain: dict[str, Any] = {
        "most": np.array([0.0, 1.0]), "saving": np.vstack([np.zeros(saving.shape[1]), saving]),
        "used": np.vstack([np.zeros(saving.shape[1]), np.ones_like(saving)]), "count": 1.0,
        "take_or_pay": 1.0, "worlds": worlds(saving.shape[1]), "terms": PLAIN,
    }  # fmt: skip
    return Stand(**{**plain, **changes})


@settings(max_examples=examples(40), deadline=None)
@example(0.0, 1.0, 0.0, 1.5, 5e-324, 0.0, True, 0.0, 0.0, False, 0.0, False)  # a rate too small to divide by
@given(
    saving=st.floats(0.0, 100.0), price=st.floats(0.1, 100.0), start=st.floats(0.0, 2.0), years=st.floats(0.2, 5.0),
    rate=st.floats(0.0, 0.3), falls=st.floats(0.0, 0.6), delivered=st.booleans(), equity=st.floats(0.0, 1e6),
    deposit=st.floats(0.0, 1e6), refundable=st.booleans(), refund=shares, kept=st.booleans(),
)  # fmt: skip
def test_gains_are_those_of_every_day(
    saving: float, price: float, start: float, years: float, rate: float, falls: float, delivered: bool,
    equity: float, deposit: float, refundable: bool, refund: float, kept: bool,
) -> None:  # fmt: skip
    one = np.ones(2)
    found = stand(
        np.full(2, saving),
        worlds=Worlds(one * start, one == float(delivered), one * falls, one * equity, one == float(kept)),
        terms=Terms(years, rate, refund, deposit, refundable),
    )
    slow = gain_usd(
        saving_usd_per_hour=saving, usd_per_hour=price, start_years=start, years=years, discount_rate=rate,
        falls_per_year=falls, delivered=delivered, equity_usd=equity, deposit_usd=deposit, refundable=refundable,
        refund=0.0 if kept else refund,
    )  # fmt: skip
    scale = (saving + price) * years * HOURS_PER_YEAR + equity + deposit
    idle = gain_usd(
        saving_usd_per_hour=0.0, usd_per_hour=price, start_years=start, years=years, discount_rate=rate,
        falls_per_year=falls, delivered=delivered, equity_usd=equity, deposit_usd=deposit, refundable=refundable,
        refund=0.0 if kept else refund,
    )  # fmt: skip
    assert found.gains_usd(price)[0] == pytest.approx(max(slow, idle), abs=1e-6 * scale + 1e-6)
    even = float(found.break_even()[0])
    if np.isfinite(even) and even > 0 and (delivered and (kept or refund < 0.89)):
        assert found.gains_usd(even)[0] == pytest.approx(0.0, abs=1e-6 * (scale + even * years * HOURS_PER_YEAR))


@settings(max_examples=examples(60), deadline=None)
@given(st.data())
def test_the_best_number_of_systems_is_used(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 4))
    savings = data.draw(st.lists(st.floats(0.0, 50.0), min_size=rows, max_size=rows))
    used = sorted(data.draw(st.lists(st.sampled_from([0.0, 0.5, 2.0, 5.0, 8.0]), min_size=rows, max_size=rows)))
    price, share = data.draw(st.floats(0.1, 20.0)), data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    pair = np.array(savings)[:, None] * np.ones(2), np.array(used)[:, None] * np.ones(2)
    zero = np.zeros((1, 2))
    found = stand(
        pair[0], used=np.vstack([zero, pair[1]]), count=8.0, take_or_pay=share,
        most=np.array([0.0, *np.linspace(8.0 / rows, 8.0, rows)]),
    )  # fmt: skip
    slow = best_gain_usd([0.0, *savings], [0.0, *used], price, share * 8.0, HOURS_PER_YEAR, 0.0)
    assert found.gains_usd(price)[0] == pytest.approx(slow, abs=1e-6 * (1 + abs(slow)))
    even = float(found.break_even()[0])
    if np.isfinite(even):
        assert found.gains_usd(even * 1.001 + 1e-9)[0] <= 1e-6 * HOURS_PER_YEAR * (1 + even)
        assert found.gains_usd(max(0.0, even * 0.999 - 1e-9))[0] >= -1e-6 * HOURS_PER_YEAR


def test_a_price_in_the_middle_of_what_it_saves_is_right_in_half_of_the_draws() -> None:
    savings = np.array([50.0, *np.linspace(0.0, 100.0, 201)])
    found = stand(savings)
    assert found.probability(50.0) == pytest.approx(0.5, abs=0.01)
    assert found.probability(20.0) == pytest.approx(0.8, abs=0.01)
    assert price_for(found, 0.8) == pytest.approx(20.0, abs=0.6)


def test_every_thing_to_ask_for_does_what_it_says() -> None:
    rng = np.random.default_rng(1)
    savings = np.array([50.0, *rng.uniform(20.0, 80.0, 400)])
    late = np.where(rng.random(401) < 0.3, 0.5, 0.0)
    falling = worlds(401, falls=np.full(401, 0.3), delivery_years=late, delivered=rng.random(401) < 0.9)
    terms = Terms(years=3.0, discount_rate=0.05, refund=0.0, deposit_usd=1e5, refundable=False)
    found = stand(savings, worlds=falling, terms=terms)
    asked = what_to_ask_for(found, 40.0, 0.8)
    assert {"price", "equity_usd"} <= {ask.what for ask in asked}
    assert all(ask.probability >= 0.8 for ask in asked)
    price = next(ask for ask in asked if ask.what == "price")
    assert found.probability(price.ask * 1.01) < 0.8 <= found.probability(price.ask)


def test_a_deal_with_shares_is_cheaper_by_what_they_are_worth() -> None:
    """Equity for chips: USD 87,660 over 8,766 hours of one system are 10 USD an hour."""
    plain = stand(np.full(3, 50.0))
    shared = plain.with_worlds(equity_usd=np.full(3, 10.0 * HOURS_PER_YEAR))
    assert plain.effective_price(40.0) == pytest.approx(40.0)
    assert shared.effective_price(40.0) == pytest.approx(30.0)
    assert shared.break_even()[0] == pytest.approx(60.0)


def test_a_pre_order_that_never_comes_costs_its_deposit() -> None:
    lost = stand(np.full(3, 50.0), worlds=worlds(3, delivered=np.zeros(3) == 1), terms=Terms(1.0, 0.1, 0.0, 1e6, False))
    assert lost.gains_usd(40.0).tolist() == [-1e6] * 3
    assert lost.probability(40.0) == 0.0
    back = lost.with_terms(refundable=True, discount_rate=0.0)
    assert back.gains_usd(40.0).tolist() == [0.0] * 3


@pytest.mark.parametrize("n", [16, 64])
def test_every_stratum_is_met_once(n: int) -> None:
    cube = latin(3, 5, n)
    middle = (np.arange(n) + 0.5) / n
    assert all(np.array_equal(np.sort(cube[:, d]), middle) for d in range(5))
    assert abs(np.corrcoef(cube.T)[np.triu_indices(5, 1)]).max() < 3 / np.sqrt(n)


def small(**changes: Any) -> Study:
    raw = copy.deepcopy(RAW)
    raw["traffic"] = {"chat": {**CHAT, "rate_per_s": 60.0}}
    raw["market"] = {"systems": ["h100-x1"], "prices": {"h100-x1": 3.0}}
    return parse_study({**raw, **changes}, "s.toml")


def asked(tmp_path: Path, text: str, study: Study | None = None) -> Quote:
    (tmp_path / "o.toml").write_text(text)
    return quote(study or small(), tmp_path / "o.toml")


TWO = 'system = "h100-x1"\nsystems = 2\ndraws = 16\n'


@pytest.mark.compiled_only
def test_the_market_s_own_systems_are_worth_the_market_s_price(tmp_path: Path) -> None:
    cheap = asked(tmp_path, TWO + "usd_per_hour = 2.9\n")
    assert cheap.answer == "take" and cheap.probability == 1.0 and cheap.used == 2.0
    assert cheap.break_even.nominal == pytest.approx(3.0, rel=1e-4)
    assert cheap.saving_usd_per_hour.nominal == pytest.approx(6.0, rel=1e-4)
    dear = asked(tmp_path, TWO + "usd_per_hour = 3.1\n")
    assert dear.answer == "ask" and dear.probability == 0.0 and dear.loss_if_wrong_usd is not None
    assert dear.instead[0].what == "price" and dear.instead[0].ask == pytest.approx(3.0, rel=1e-4)


@pytest.mark.compiled_only
def test_an_offer_at_the_marginal_cost_is_right_in_half_of_the_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = {"h100-x1": (0.7, 1.0, 1.3)}
    monkeypatch.setattr(drawing, "price_ranges", lambda _: ranges)
    monkeypatch.setattr(run, "price_ranges", lambda _: ranges)
    found = asked(tmp_path, TWO.replace("16", "32") + "usd_per_hour = 3.0\n")
    assert found.probability == pytest.approx(0.5, abs=1 / 32)
    assert found.turns[0].unknown == "price/h100-x1"
    assert (found.turns[0].right_low, found.turns[0].right_high) == pytest.approx((0.0, 1.0), abs=1 / 16)


@pytest.mark.compiled_only
def test_systems_beyond_what_traffic_takes_are_worth_nothing(tmp_path: Path) -> None:
    """A few serve all traffic: of a hundred most stand idle, and the break-even is the fleet's cost over them."""
    found = asked(tmp_path, 'system = "h100-x1"\nsystems = 100\ndraws = 16\nusd_per_hour = 2.9\n')
    assert found.with_usd_per_hour == pytest.approx(0.0, abs=1e-6)
    assert found.used < 100 and found.answer == "ask"
    assert found.break_even.nominal == pytest.approx(found.without_usd_per_hour / 100, rel=1e-6)
    as_used = next(ask for ask in found.instead if ask.what == "take_or_pay")
    assert as_used.ask < 0.5


@pytest.mark.compiled_only
def test_tokens_break_even_where_they_cost_what_the_fleet_costs(tmp_path: Path) -> None:
    text = 'classes = ["chat"]\ndraws = 16\nusd_per_mtok_input = 0.1\nusd_per_mtok_output = 0.4\n'
    found = asked(tmp_path, text)
    study = small()
    sample = run.ask(study).demands[0]
    inputs, cached, outputs = (float(column.mean()) for column in sample.lengths)
    mtok = 60.0 * 3600 * ((inputs - cached) * 0.25 + cached * 0.25 + outputs) / 1e6
    assert found.break_even.nominal == pytest.approx(found.without_usd_per_hour / mtok, rel=1e-6)
    assert found.kind == "tokens" and found.saving_usd_per_hour.nominal == found.without_usd_per_hour
    half = asked(tmp_path, text + "share = 0.5\n")
    assert 0 < half.saving_usd_per_hour.nominal < found.saving_usd_per_hour.nominal


@pytest.mark.compiled_only
def test_tokens_that_are_slower_than_promised_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match="slower than what 'chat' is promised"):
        asked(
            tmp_path,
            'classes = ["chat"]\nusd_per_mtok_input = 0.1\nusd_per_mtok_output = 0.4\npromise = { tpot_s = 0.06 }\n',
        )


@pytest.mark.compiled_only
def test_a_system_that_is_not_on_the_market_and_a_broken_promise(tmp_path: Path) -> None:
    text = 'system = "b200-x1"\ndraws = 16\nusd_per_hour = 4.0\npromise = { tpot_s = 0.0000001, refund = 1.0 }\n'
    found = asked(tmp_path, text)
    assert found.used == 1.0 and found.effective_price == pytest.approx(0.0, abs=1e-9)


@pytest.mark.compiled_only
def test_a_purchase_is_brought_to_the_hour_on_the_study_s_terms(tmp_path: Path) -> None:
    text = 'system = "h100-x1"\ndraws = 16\ncapital_usd = 30000\n'
    with pytest.raises(InputError, match="usd_per_kwh"):
        asked(tmp_path, text)
    owned = small(cost={"life_years": 5, "usd_per_kwh": 0.1, "finance_rate": 0.08})
    found = asked(tmp_path, text, owned)
    assert found.months == 60.0
    by_hand = 30_000 * 0.08 / (1 - 1.08**-5) / 8766
    assert found.price == pytest.approx(by_hand, rel=0.25) and found.price > by_hand  # and power


BAD = {
    "usd_per_hour = 1\n": "no system",
    'system = "cs3"\n': "an offer has one price",
    'system = "cs3"\nusd_per_hour = 1\ncapital_usd = 2\n': "an offer has one price",
    'system = "cs3"\nusd_per_hour = -1\n': "above 0",
    'system = "cs3"\nusd_per_hour = 1\nsystem_count = 2\n': "unknown key",
    'system = "cs3"\nusd_per_hour = 1\nmonths = 0\n': "months",
    'system = "cs3"\nusd_per_hour = 1\nsystems = 0\n': "systems",
    'system = "cs3"\nusd_per_hour = 1\ntake_or_pay = 1.5\n': "take_or_pay",
    'system = "cs3"\nusd_per_hour = 1\ndraws = 3\n': "draws",
    'system = "cs3"\nusd_per_hour = 1\nsure = 1\n': "sure",
    'system = "cs3"\nusd_per_hour = 1\nclasses = ["chat"]\n': "tokens",
    'system = "cs3"\nusd_per_hour = 1\nlate = { probability = 2 }\n': "late.probability",
    'system = "cs3"\nusd_per_hour = 1\nlate = { odds = 2 }\n': "unknown key",
    'system = "cs3"\nusd_per_hour = 1\nranges = { demand = { value = 1, low = 2, high = 3 } }\n': "ends out of order",
    'system = "cs3"\nusd_per_hour = 1\npromise = { refund = 0.5 }\n': "refund",
    'system = "cs3"\nusd_per_hour = 1\npromise = { tpot_s = 0 }\n': "must be positive",
    'system = "cs3"\nusd_per_hour = 1\ndeposit = { usd = 0 }\n': "deposit",
    "usd_per_mtok_output = 1\n": "classes",
    'usd_per_mtok_output = 1\nclasses = ["chat"]\n': "usd_per_mtok_input",
    'usd_per_mtok_output = 1\nusd_per_mtok_input = 1\nclasses = ["chat"]\nsystem = "cs3"\n': "so no system",
}


@pytest.mark.parametrize("text", BAD)
def test_files_that_cannot_be_are_told_in_one_line(text: str) -> None:
    import tomllib

    with pytest.raises(InputError, match=BAD[text]) as told:
        parse_offer(tomllib.loads(text), "o.toml")
    assert "\n" not in str(told.value) and str(told.value).startswith("o.toml")


def test_what_does_not_go_with_the_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean 'chat'"):
        asked(tmp_path, 'classes = ["chta"]\nusd_per_mtok_input = 0.1\nusd_per_mtok_output = 0.4\n')
    with pytest.raises(InputError, match="unknown system"):
        asked(tmp_path, 'system = "h100x1000"\nusd_per_hour = 1\n')


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"limits": {"rationing": True}}, "limits.rationing"),
        ({"objective": {"maximise": "profit_usd_per_hour"}}, "objective.maximise"),
        ({"traffic": {"chat": {**CHAT, "least_served": 0.5}}}, "traffic.chat.least_served"),
    ],
)
def test_studies_that_leave_traffic_unserved_are_refused(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match=key):
        asked(tmp_path, TWO + "usd_per_hour = 2.9\n", small(**changes))


def test_a_number_or_its_ends() -> None:
    offer = parse_offer({"system": "cs3", "usd_per_hour": 1.0, "equity": {"usd": 5.0}}, "o.toml")
    assert isinstance(offer, VendorOffer) and offer.equity is not None
    assert ends(offer.equity.usd) == (5.0, 5.0, 5.0) and ends(offer.ranges.demand) == (1.0, 1.0, 1.0)
