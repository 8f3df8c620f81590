"""The search over designs: the screen against exact parts, the Pareto set, speed, answers, files that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.cli.main import main
from infermix.explore.design_question import read_question
from infermix.explore.designs import design, outside
from infermix.silicon import build, limits
from infermix.silicon.chip import real_chips
from infermix.silicon.constants import constants
from infermix.silicon.draw import Draw
from infermix.silicon.record import FAMILIES
from infermix.silicon.space import Designs, Money, Screened, Space, Work, chip_of, designs_of, pareto, screened
from tests.nightly import NIGHTLY
from tests.silicon.conftest import Told

EXAMPLES = Path(__file__).parents[2] / "examples" / "silicon"
SPACE = Space(
    node=["n5", "n3"], sram_mb=[64, 256, 600], tflops=[200, 600, 1000], hbm=["hbm3e", "hbm4"], stacks=[2, 6],
    links=[18], dies=[1, 2], spare_share=[0, 0.08],
)  # fmt: skip
MONEY = Money(
    gross_margin=0.5, system_usd_per_chip=6000, life_years=4, finance_rate=0.08, usd_per_kwh=0.08, load=0.5
)  # fmt: skip


def looked_over(space: Space) -> tuple[Designs, Screened]:
    facts = catalog()
    work = Work(model="llama-3.3-70b", input_tokens=4000, output_tokens=500, tokens_per_s_user=30, ttft_s=2)
    agents = Work(model="gpt-oss-120b", input_tokens=100_000, cached_tokens=96_000, output_tokens=450,
                  tokens_per_s_user=150, ttft_s=2)  # fmt: skip
    works = [(one, facts.models[one.model]) for one in (work, agents)]
    designs = designs_of(space)
    families = {id_: facts.efficiencies[id_] for id_ in FAMILIES.values()}
    return designs, screened(space, designs, works, MONEY, constants(), families)


class TestScreen:
    designs, found = looked_over(SPACE)

    def test_every_combination_once(self) -> None:
        assert len(self.designs) == 2 * (2 * 2 + 1) * 3 * 3 * 2 * 2
        ids = {chip_of(SPACE, self.designs, row).id for row in range(len(self.designs))}
        assert len(ids) == len(self.designs)

    @pytest.mark.parametrize("row", range(0, 360, 23))
    def test_agrees_with_the_exact_parts(self, row: int) -> None:
        """The screen counts dies by a closed form, the parts on a grid: a tenth apart at most."""
        chip, draw = chip_of(SPACE, self.designs, row), Draw(constants())
        assert self.found.unit_usd[row] == pytest.approx(float(build.parts(chip, draw).total()), rel=0.12)
        assert self.found.die_mm2[row] == pytest.approx(float(build.dies(chip, draw).die_mm2))
        power = build.speeds(chip, draw).power_w
        assert power is not None and self.found.power_w[row] == pytest.approx(float(power))

    @pytest.mark.parametrize("row", range(0, 360, 17))
    def test_feasible_is_what_the_limits_allow(self, row: int) -> None:
        chip = chip_of(SPACE, self.designs, row)
        try:
            limits.limits(chip, Draw(constants()), "x")
            allowed = True
        except Exception:  # noqa: BLE001 - any refusal
            allowed = False
        assert bool(self.found.feasible[row]) == allowed

    def test_more_spare_cores_never_cost_yield(self) -> None:
        plain, spare = self.designs.spare_share == 0, self.designs.spare_share > 0
        assert (self.found.unit_usd[spare] < self.found.unit_usd[plain]).all()


def test_pareto_against_the_slow_way() -> None:
    rows = np.random.default_rng(5).integers(0, 12, (300, 3)).astype(float)
    kept = {tuple(rows[row]) for row in pareto(rows)}
    slow = {tuple(a) for a in rows if not any((b <= a).all() and (b < a).any() for b in rows)}
    assert kept == slow


class TestHull:
    def test_anchors_lie_inside(self) -> None:
        assert all(outside(chip, constants()) == [] for chip in real_chips().values())

    def test_a_chip_of_nothing_but_arithmetic_lies_outside(self) -> None:
        chip = msgspec.structs.replace(real_chips()["h100-sxm"], tflops=4000)
        assert any("bytes per 8-bit FLOP" in said for said in outside(chip, constants()))


SMALL = """
name = "small"
top = 5
[space]
node = ["n5", "n3"]
sram_mb = [64, 600]
tflops = [400, 800]
hbm = ["hbm3e"]
stacks = [4, 6]
links = [18]
[work.chat]
model = "llama-3.3-70b"
input_tokens = 4000
output_tokens = 500
tokens_per_s_user = 25
ttft_s = 2.0
[money]
gross_margin = 0.5
system_usd_per_chip = 6000
life_years = 4
finance_rate = 0.08
usd_per_kwh = 0.08
load = 0.5
"""


class TestSmall:
    def test_answers(self, tmp_path: Path) -> None:
        (tmp_path / "s.toml").write_text(SMALL)
        found, all_ = design(read_question(tmp_path / "s.toml"))
        assert found.designs == 2 * 3 * 2 * 2 and len(found.candidates) == 5
        costs = [c.mix_usd_per_mtok for c in all_ if c.mix_usd_per_mtok is not None]
        assert costs == sorted(costs)
        assert found.candidates[0].regret == 0 and found.by_work["chat"] == found.candidates[0].chip.id
        assert {worth.change.split(",")[0] for worth in found.worth} >= {
            "50 mm2 more of SRAM", "50 mm2 more of arithmetic", "1 us less synchronisation",
        }  # fmt: skip
        assert found.crossover["4000"] in (200, 400) and found.crossover["32000"] == 200  # the notes: 200 to 400, 200
        fast = [row for row in found.versus if row.tokens_per_s_user == 20 and row.context_tokens == 4000]
        assert fast[0].hbm_usd_per_mtok is not None and fast[0].sram_usd_per_mtok is not None
        assert fast[0].hbm_usd_per_mtok < fast[0].sram_usd_per_mtok
        assert found.ledger and found.sources


@pytest.mark.parametrize(
    ("old", "new", "must"),
    [
        ('"n5", "n3"', '"n5", "n1"', ["s.toml: space.node", "'n1'", "did you mean"]),
        ('"n5", "n3"', '"n14"', ["s.toml: space.node", "nodes/n14 has no joule_per_flop", "take another"]),
        ("sram_mb = [64, 600]", "sram_mb = [-64]", ["space.sram_mb", "negative", "-64"]),
        ("sram_mb = [64, 600]", "sram_mb = []", ["s.toml: space", "empty"]),
        ('hbm = ["hbm3e"]', 'hbm = ["hbm9"]', ["space.hbm", "'hbm9'"]),
        ('hbm = ["hbm3e"]', "", ["space.hbm", "of which memory?"]),
        ("ttft_s = 2.0", "ttft_s = -2.0", ["work.chat.ttft_s", "-2"]),
        ("input_tokens = 4000", "input_tokens = 4000\ncached_tokens = 5000", ["work.chat", "not a request"]),
        ("llama-3.3-70b", "llama-3.3-7b", ["work.chat", "'llama-3.3-7b'"]),
        ("gross_margin = 0.5", "gross_margin = 1.5", ["s.toml: money"]),
        ("[money]", "[muney]", ["muney: unknown key", "money"]),
        ("top = 5", "top = 50", ["s.toml: top", "50"]),
    ],
)
def test_spaces_that_cannot_be(told: Told, old: str, new: str, must: list[str]) -> None:
    text = SMALL.replace(old, new, 1)
    assert text != SMALL
    message = told(text, "design")
    assert all(part in message for part in must), message


def test_a_promise_that_no_design_holds(told: Told) -> None:
    message = told(SMALL.replace("tokens_per_s_user = 25", "tokens_per_s_user = 25000"), "design", code=1)
    assert "no design of the space" in message


PART_OF_IT = (
    ("top = 20", "top = 2"),
    ("sram_mb = [64, 128, 256, 512, 768]", "sram_mb = [64, 128]"),
    ("tflops = [200, 400, 800, 1200, 1600]", "tflops = [400, 800]"),
)

SHORT = """
[prove]
requests_per_class = 500
"""


@pytest.mark.compiled_only
def test_the_example_with_its_fleet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The whole space in nightly runs, a part of it else."""
    fleet = (EXAMPLES / "design-fleet.toml").read_text()
    (tmp_path / "design-fleet.toml").write_text(fleet if NIGHTLY else fleet + SHORT)
    text = (EXAMPLES / "design-mix.toml").read_text()
    top = 20 if NIGHTLY else 2
    for old, new in () if NIGHTLY else PART_OF_IT:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "mix.toml").write_text(text)
    file, chips = str(tmp_path / "mix.toml"), tmp_path / "chips"
    chips.mkdir()
    with pytest.raises(SystemExit) as left:
        main(["silicon", "design", file, "--json", str(tmp_path / "a.json"), "--chips", str(chips)])
    out, err = capsys.readouterr()
    assert left.value.code == 0, err
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 100
    found = json.loads((tmp_path / "a.json").read_text())
    assert len(found["fleet"]["each"]) == top and len(list(chips.glob("*.toml"))) == top
    worth = [c["marginal_usd_per_hour"] for c in found["candidates"]]
    assert all(value >= -1e-6 for value in worth)
