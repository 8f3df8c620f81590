"""Every limit, objective and error has an example; each is planned and proved, or says what its first line says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from infermix.cli.main import infermix
from infermix.plan.answer import slot_usd
from infermix.plan.day import DayProof, prove_day
from infermix.plan.keys import keys_of
from infermix.plan.model import Solution
from infermix.plan.problem import load_study
from infermix.plan.question import Question, ask
from infermix.plan.solve import make_planner
from infermix.plan.whatif import systems_in

FOLDER = Path(__file__).parents[2] / "examples" / "plan"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.toml"))
ERRORS = sorted(path.stem for path in (FOLDER / "errors").glob("*.toml"))

pytestmark = pytest.mark.compiled_only


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.toml")), ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_proved(name: str) -> None:
    question = ask(load_study(FOLDER / f"{name}.toml"))
    day = prove_day(make_planner(question))
    assert day is not None and day.status in ("proved", "proved_nominal")
    paid = [sum(slot_usd(question, day.solution, s).values()) * slot.weight for s, slot in enumerate(question.slots)]
    starts = day.solution.usd_per_hour - sum(paid)
    assert starts == pytest.approx(0.0, abs=1e-6) if not question.study.slots.usd_per_start else starts >= -1e-6
    check = CHECKS.get(name)
    if check is not None:
        check(question, day, day.solution)


def rationed(_: Question, day: DayProof, found: Solution) -> None:
    assert set(found.unmet) <= {"chat", "code"} and found.unmet
    if "chat" in found.unmet:
        assert found.unmet["code"][0] >= 4.9, "the second tier goes without first"


def by_the_hour(_: Question, day: DayProof, found: Solution) -> None:
    assert len(set(found.had["by-the-hour"])) > 1 and len(set(found.had["reserved"])) == 1


def some_of_an_api(_: Question, day: DayProof, found: Solution) -> None:
    assert 0 < found.bought["house"]["chat"][0] < 60 and found.had["h100-x1"] == (1,)


def two_models(_: Question, day: DayProof, found: Solution) -> None:
    models = {name: pool.deployment.model.id for pool in day.slots[0].fleet.pools for name in pool.serves}
    assert models == {"chat": "llama-3.1-8b", "code": "llama-3.2-3b"}


def not_there(question: Question, day: DayProof, found: Solution) -> None:
    assert "l40s-x1" not in systems_in(question, found)


def paid_all_the_same(_: Question, day: DayProof, found: Solution) -> None:
    assert found.usd_per_hour >= 3 * 2.2 - 1e-6


def without_the_order(question: Question, day: DayProof, found: Solution) -> None:
    missing = [bool(slot.missing) for slot in question.slots]
    assert missing == [False, True] and found.had["rented"][1] > found.had["rented"][0]


def waits(question: Question, day: DayProof, found: Solution) -> None:
    sent = [sum(c.rates.get("batch", 0.0) for c in found.at(s)) for s in range(4)]
    assert sum(sent) == pytest.approx(4.0, rel=1e-4) and max(sent) - min(sent) > 0.5


def profitable(_: Question, day: DayProof, found: Solution) -> None:
    assert found.revenue_usd_per_hour > found.usd_per_hour > 0


def apart(_: Question, day: DayProof, found: Solution) -> None:
    pools = day.slots[0].fleet.pools
    assert {p.deployment.role for p in pools} == {"prefill", "decode"} and len(day.slots[0].fleet.pairs) == 1


CHECKS = {
    "rationing": rationed, "slots": by_the_hour, "api": some_of_an_api, "two-models": two_models,
    "model-support": not_there, "delivery": not_there, "take-or-pay": paid_all_the_same, "deferrable": waits,
    "pre-order": without_the_order, "profit-time": profitable, "profit-speed": profitable,
    "pairs": apart,
}  # fmt: skip


def test_every_limit_has_an_example() -> None:
    """Keys of limits, numbers left out, that appear in some example."""
    wanted = {
        "market.supply", "market.contracts.supply", "market.contracts.delivery", "market.supports", "limits.power_mw",
        "limits.usd_per_hour", "limits.capital_usd", "limits.max_vendor_share", "limits.min_share_output_tokens",
        "limits.shares.least", "limits.shares.most", "limits.redundancy.system", "limits.redundancy.vendor",
        "traffic.regions", "traffic.least_served",
    }  # fmt: skip
    shown = set()
    for name in EXAMPLES:
        for key in keys_of(ask(load_study(FOLDER / f"{name}.toml"))):
            plain = re.sub(r"\[\d+\]", "", key.name)
            plain = re.sub(r"^(market\.contracts|traffic)\.[^.]+\.", r"\1.", plain)
            shown.add(re.sub(r"^(market\.supply|market\.supports|limits\.min_share_output_tokens)\..*", r"\1", plain))
    assert shown == wanted


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_what_its_first_line_says(name: str) -> None:
    path = FOLDER / "errors" / f"{name}.toml"
    wanted = re.match(r"# Exit code (\d): (.*)", path.read_text())
    assert wanted is not None
    told = CliRunner().invoke(infermix, ["plan", str(path)])
    assert told.exit_code == int(wanted[1]) and wanted[2] in told.stderr, told.output
    said = [line for line in told.stderr.splitlines() if "error" in line.lower() or wanted[2] in line]
    assert len(said) == 1
