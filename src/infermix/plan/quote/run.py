"""An offer against a study: the fleet with it and without in every draw, and what follows from that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from infermix.arrays import Bools, Floats
from infermix.catalog.query import find_system
from infermix.cost.energy import facility_w
from infermix.cost.rent import HourlyPrice
from infermix.cost.rent import Terms as CostTerms
from infermix.cost.tco import annuity_usd_per_hour, energy_usd_per_hour
from infermix.errors import InputError, NoAnswer, located, near_miss
from infermix.plan.cache import Store
from infermix.plan.offers import Offer
from infermix.plan.problem import Study
from infermix.plan.question import Demand, Question, ask
from infermix.plan.quote.draws import NOMINAL, Draws, draw, price_ranges
from infermix.plan.quote.instead import what_to_ask_for
from infermix.plan.quote.market import Rest, everywhere, simulate_all, speed_of
from infermix.plan.quote.offer import VendorOffer, ends, load_offer
from infermix.plan.quote.result import Quote, Spread, Turn
from infermix.plan.quote.stand import Stand
from infermix.plan.quote.worth import MONTHS, Terms
from infermix.plan.solve import Planner, choose, make_planner
from infermix.units import SECONDS_PER_HOUR, TOKENS_PER_MTOK

Progress = Callable[[str], None]
SHOWN_TURNS = 6
DRAWN = (
    "Speeds, prices and demand are drawn from triangles over their ranges, independent of each other; chips of one "
    "family are faster or slower together."
)
COMPARED = (
    "The fleet that is compared with is planned anew in every draw, at that draw's prices and speeds, with simulated "
    "capacities; it is not proved."
)


def quote(
    study: Study, offer_path: str | Path, say: Progress | None = None, store: Store | None = None
) -> Quote:  # fmt: skip
    """An offer held against a study; capacities that were simulated before are read from ``store``.

    Raises
    ------
    InputError
        Study or offer are malformed, or do not go together.
    NoAnswer
        No fleet of the market can serve the study, with the offer or without it.
    """
    told = say or (lambda _: None)
    offer = load_offer(offer_path)
    question = _question(study, offer, str(offer_path))
    told("options")
    planner = make_planner(question, store)
    draws = draw(offer, question)
    simulate_all(planner, (1.0,), told)
    _mixes(planner)
    price = _price(study, offer, question, str(offer_path))
    return _answer(study, offer, planner, draws, price, told)


def _question(study: Study, offer: VendorOffer, where: str) -> Question:
    """The study at nominal speeds, with the offered system on its market even where it was not."""
    nominal = msgspec.structs.replace(study, prove=msgspec.structs.replace(study.prove, speeds="nominal"))
    _check_whole(study)
    question = ask(nominal)
    for name in offer.classes:
        if name not in question.class_names:
            raise InputError(
                "no such class", where=f"{where}: classes", value=name, allowed=", ".join(question.class_names),
                mend=near_miss(name, question.class_names),
            )  # fmt: skip
        _check_promise(offer, question, name, where)
    if offer.system is None or offer.system in [o.system.id for o in question.offers]:
        return question
    with located(f"{where}: system"):
        system = find_system(offer.system, question.catalog)
    power = facility_w(system, study.cost.pue) if system.power_w is not None else None
    chip = question.catalog.chips[system.chip]
    added = Offer(system, chip, HourlyPrice(offer.usd_per_hour or 1.0, "offered", ()), 0, power)
    return replace(question, offers=(*question.offers, added))


def _check_whole(study: Study) -> None:
    """What serving all of the traffic costs is compared, so all of it must be served."""
    partial = [f"traffic.{name}.least_served" for name, cls in study.traffic.items() if cls.least_served is not None]
    partial += ["limits.rationing"] * study.limits.rationing
    partial += ["objective.maximise"] * (study.objective.maximise is not None)
    if partial:
        what = "an offer is judged by what serving all of the traffic costs"
        raise InputError(what, where=f"{study.path}: {partial[0]}", mend="leave it out of the study for a quote")


def _check_promise(offer: VendorOffer, question: Question, name: str, where: str) -> None:
    """Tokens are no answer to a class that is promised more than the vendor promises."""
    slo = question.study.traffic[name].slo
    for key in ("tpot_s", "ttft_s"):
        theirs, ours = getattr(offer.promise, key), getattr(slo, key)
        if theirs is not None and ours is not None and theirs > ours:
            raise NoAnswer(
                f"{where}: promise.{key} = {theirs:g} is slower than what {name!r} is promised ({ours:g}): these "
                "tokens cannot serve it; ask for a faster tier"
            )


def _mixes(planner: Planner) -> None:
    """Capacities of pools that serve several classes, from the fleet that is nominally best."""
    if choose(planner) is None:
        raise NoAnswer("no fleet of this market can serve the study: ask infermix plan which limits conflict")


def _price(study: Study, offer: VendorOffer, question: Question, where: str) -> float:
    """Price by the hour of a system, or of the million output tokens."""
    if offer.usd_per_mtok_output is not None:
        return offer.usd_per_mtok_output
    if offer.usd_per_hour is not None:
        return offer.usd_per_hour
    terms: CostTerms = study.cost
    power = next(o.facility_w for o in question.offers if o.system.id == offer.system)
    if terms.usd_per_kwh is None or power is None:
        missing = "cost.usd_per_kwh" if terms.usd_per_kwh is None else f"a power figure of {offer.system}"
        raise InputError(f"a purchase needs {missing}", where=f"{where}: capital_usd", mend="or say usd_per_hour")
    years = _months(study, offer) / MONTHS
    paid_back = annuity_usd_per_hour(offer.capital_usd or 0.0, years, terms.finance_rate)
    return (paid_back * (1 + terms.hosting) + energy_usd_per_hour(power, terms.usd_per_kwh)) / terms.utilisation


def _stand(
    study: Study, offer: VendorOffer, planner: Planner, draws: Draws, price: float, say: Progress
) -> tuple[Stand, Floats]:
    """Where the offer stands, and what the fleet without it costs in every draw [USD/h]."""
    offered = float(offer.systems) if offer.system else _mtok_per_hour(offer, planner.question)
    bill = price * offered
    say(f"{len(draws)} draws: the fleet without the offer")
    without = np.array([c.usd_per_hour for c in everywhere(planner, None, Rest(), draws, bill)])
    most, saving, used = [0.0], [np.zeros(len(draws))], [np.zeros(len(draws))]
    for rest, count in _rests(offer):
        say(f"{len(draws)} draws: the fleet with {_counted(offer, count)}")
        found = everywhere(planner, offer.system, rest, draws, bill)
        cost = np.array([c.usd_per_hour for c in found])
        with np.errstate(invalid="ignore"):
            saving.append(np.where(np.isinf(cost), 0.0, without - cost))
        most.append(count if offer.system else offered)
        used.append(np.array([c.used for c in found]) if offer.system else most[-1] * draws.demand)
    rate = study.cost.finance_rate if offer.discount_rate is None else offer.discount_rate
    deposit = offer.deposit
    terms = Terms(
        _months(study, offer) / MONTHS, rate, offer.promise.refund,
        deposit.usd if deposit else 0.0, deposit.refundable if deposit else False,
    )  # fmt: skip
    stand = Stand(
        np.array(most), np.stack(saving), np.stack(used), most[-1], offer.take_or_pay,
        draws.worlds(_kept(offer, planner, draws)), terms,
    )  # fmt: skip
    return stand, without


def _rests(offer: VendorOffer) -> list[tuple[Rest, float]]:
    """Ways to use the offer: a quarter, half and all of the systems, and those that are paid for in any case."""
    if offer.system is None:
        return [(Rest(sent_away=tuple(offer.classes), share=offer.share), offer.share)]
    n = offer.systems
    counts = {-(-n // 4), -(-n // 2), round(offer.take_or_pay * n), n} - {0}
    return [(Rest(paid=count), float(count)) for count in sorted(counts)]


def _counted(offer: VendorOffer, count: float) -> str:
    return f"{count:g} of {offer.systems} {offer.system}" if offer.system else f"{count:.0%} of its classes sent away"


def _mtok_per_hour(offer: VendorOffer, question: Question) -> float:
    """Million output tokens an hour that cost as much as all tokens that are sent away."""
    output = offer.usd_per_mtok_output or 1.0
    fresh = (offer.usd_per_mtok_input or 0.0) / output
    cached = fresh if offer.usd_per_mtok_cached is None else offer.usd_per_mtok_cached / output
    found = 0.0
    for demand in question.demands:
        if demand.name in offer.classes:
            inputs, kept, outputs = (float(column.mean()) for column in demand.lengths)
            tokens = (inputs - kept) * fresh + kept * cached + outputs
            found += offer.share * mean_rate(question, demand) * tokens
    return found * SECONDS_PER_HOUR / TOKENS_PER_MTOK


def mean_rate(question: Question, demand: Demand) -> float:
    """Requests a second, mean over the slots."""
    return sum(slot.weight * demand.rate_at(s) for s, slot in enumerate(question.slots))


def _months(study: Study, offer: VendorOffer) -> float:
    if offer.months is not None:
        return offer.months
    return MONTHS * study.cost.life_years if offer.capital_usd is not None and study.cost.life_years else MONTHS


def _kept(offer: VendorOffer, planner: Planner, draws: Draws) -> Floats:
    """1 where the vendor's promise to one user alone is kept, by our step times at the speed of the draw."""
    promised = offer.promise.tpot_s
    mine = [kept.option for kept in planner.found.kept if kept.option.offer.system.id == offer.system]
    if promised is None or not mine:
        return np.ones(len(draws))
    context = max(float((d.lengths[0] + d.lengths[2] / 2).mean()) for d in planner.question.demands)
    alone = [o.table.decode_s[1] + o.table.per_seq_s + o.table.kv_s * context for o in mine]
    fastest = int(np.argmin(alone))
    return np.where(alone[fastest] / speed_of(mine[fastest], draws) <= promised, 1.0, 0.0)


def _answer(study: Study, offer: VendorOffer, planner: Planner, draws: Draws, price: float, say: Progress) -> Quote:
    """Everything that is said of the offer."""
    stand, without = _stand(study, offer, planner, draws, price, say)
    gains, odds = stand.gains_usd(price), stand.probability(price)
    lost = gains[1:][gains[1:] < 0.0]
    instead = [] if odds >= offer.sure else what_to_ask_for(stand, price, offer.sure, shares=offer.system is not None)
    saving = stand.saving[-1]
    return Quote(
        offer=offer.name or (offer.system or "tokens"),
        study=study.name or study.path,
        kind="tokens" if offer.system is None else "systems",
        answer="take" if odds >= offer.sure else "ask" if instead else "leave",
        unit="USD/Mtok of output" if offer.system is None else "USD/h",
        price=price,
        effective_price=stand.effective_price(price),
        break_even=spread(stand.break_even()),
        probability=odds,
        sure=offer.sure,
        gain_usd=spread(gains),
        loss_if_wrong_usd=float(-lost.mean()) if len(lost) else None,
        saving_usd_per_hour=spread(saving),
        without_usd_per_hour=float(without[NOMINAL]),
        with_usd_per_hour=float(without[NOMINAL] - saving[NOMINAL]),
        used=float(stand.used[-1][NOMINAL]) if offer.system else offer.share,
        systems=offer.systems if offer.system else 0,
        months=stand.terms.years * MONTHS,
        draws=len(draws) - 1,
        only_with_it=float(np.isinf(saving[1:]).mean()),
        instead=instead,
        turns=turns(draws, gains >= 0.0),
        assumptions=assumptions(offer, planner.question),
    )


def spread(values: Floats) -> Spread:
    """Nominal and the draws; infinite ones count in the shares, not in the mean."""
    drawn = values[1:]
    finite = drawn[np.isfinite(drawn)]
    low, middle, high = (float(np.quantile(drawn, q, method="lower")) for q in (0.1, 0.5, 0.9))
    mean = float(finite.mean()) if len(finite) else float("inf")
    return Spread(nominal=float(values[NOMINAL]), mean=mean, p10=low, p50=middle, p90=high)


def turns(draws: Draws, right: Bools) -> list[Turn]:
    """Which unknowns decide whether taking is right, the weightiest first; none that chance alone may have made."""
    odds, found = float(right[1:].mean()), []
    noise = 2.0 * np.sqrt(4.0 * odds * (1.0 - odds) / len(right[1:]))
    for unknown in draws.unknowns:
        share = draws.cube[1:, draws.unknowns.index(unknown)]
        low, high = (float(right[1:][half].mean()) for half in (share < 0.5, share >= 0.5))
        if abs(high - low) > noise:
            found.append(Turn(unknown=unknown, right_low=low, right_high=high))
    return sorted(found, key=lambda turn: -abs(turn.right_high - turn.right_low))[:SHOWN_TURNS]


def assumptions(offer: VendorOffer, question: Question) -> list[str]:
    """What to know before acting."""
    said = [DRAWN, COMPARED]
    if ends(offer.ranges.demand)[0] == ends(offer.ranges.demand)[2]:
        said.append("Demand is taken as certain: say ranges.demand.")
    if not any(ends(offer.ranges.market_falls_per_year)):
        said.append(
            "Market prices are taken to stay where they are for the whole term: say ranges.market_falls_per_year."
        )
    if question.limits.max_vendor_share is not None and offer.system and question.limits.vendor_share_of == "spend":
        said.append("What is paid for the offer in any case does not count in the vendor's share of spend.")
    if offer.capital_usd is not None:
        said.append(f"Bought for ${offer.capital_usd:,.0f} a system, by the hour on the study's terms, power included.")
    if not any(price_ranges(question)):
        said.append("The catalogue gives no range of prices for these systems: they are taken as certain.")
    return said
