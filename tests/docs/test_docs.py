"""README and docs say what the program does: studies parse, keys and options are all mentioned, links resolve."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from infermix.catalog.load import load_own_chip
from infermix.cli.main import infermix
from infermix.cost.rent import Terms
from infermix.fleet import Autoscale, PoolRow
from infermix.perf.predict import Prediction
from infermix.plan import result
from infermix.plan.market import ApiRow, ContractRow, Market
from infermix.plan.problem import Event, Failures, Prove, Scenario, Simulate, Slots, Study, parse_study
from infermix.plan.rules import Limits, Objective, Redundancy, Share
from infermix.workload.classes import Slo, TrafficClass
from infermix.workload.worth import Worth
from tests.docs.refresh_readme import refreshed

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
LARGEST_PICTURE_BYTES = 250_000

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"`(?:\$ )?(infermix(?: [^`]+)?)`|^\$ (infermix .*)$", re.MULTILINE)
NEITHER_STUDY_NOR_CHIP = ("examples/traces-format.md",)
"""Pages whose TOML is a part of a study."""


def fences(language: str) -> list[tuple[str, str]]:
    return [
        (f"{page.relative_to(ROOT)}:{TEXT[page][: found.start()].count(chr(10)) + 1}", found[2])
        for page in PAGES
        for found in FENCE.finditer(TEXT[page])
        if found[1] == language and str(page.relative_to(ROOT)) not in NEITHER_STUDY_NOR_CHIP
    ]


@pytest.mark.parametrize(("where", "text"), fences("toml"))
def test_every_toml_is_a_study_or_a_chip(where: str, text: str, tmp_path: Path) -> None:
    raw = tomllib.loads(text)
    if "chip" in raw:
        (tmp_path / "chip.toml").write_text(text)
        load_own_chip(tmp_path / "chip.toml")
        return
    parse_study(raw, where)


def test_readme_shows_a_study_and_its_pages_show_a_chip() -> None:
    assert sum("[traffic." in text for where, text in fences("toml") if where.startswith("README")) >= 2
    assert any("[chip]" in text for _, text in fences("toml"))


@pytest.mark.parametrize(
    "struct",
    [
        Study,
        TrafficClass,
        Slo,
        Worth,
        Market,
        ContractRow,
        ApiRow,
        Terms,
        Limits,
        Share,
        Redundancy,
        Objective,
        Slots,
        Scenario,
        Simulate,
        Prove,
        PoolRow,
        Autoscale,
        Event,
        Failures,
    ],
)
def test_every_key_of_a_study_is_explained(struct: type[msgspec.Struct]) -> None:
    text = TEXT[ROOT / "docs" / "study-file.md"]
    keys = [key for key in struct.__struct_fields__ if (struct, key) != (Study, "path")]
    rows = set(
        re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `")))
    )
    assert sorted(set(keys) - rows) == []


def test_defaults_of_a_study_are_as_explained() -> None:
    text = TEXT[ROOT / "docs" / "study-file.md"]
    for struct in (TrafficClass, Slo, Terms, Limits, Objective, Simulate, Prove, PoolRow):
        for field in msgspec.structs.fields(struct):
            if isinstance(field.default, bool) or not isinstance(field.default, (int, float, str)):
                continue
            rows = [line.split("|") for line in text.splitlines() if re.match(rf"\| .*`{field.name}`.* \|", line)]
            said = [cells[3].strip().strip('`"').replace(",", "") for cells in rows if f"`{field.name}`" in cells[1]]
            default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert default in said, field.name


PARTS_OF_A_PLAN = [getattr(result, name) for name in dir(result) if isinstance(getattr(result, name), type)]


@pytest.mark.parametrize(
    "struct", [part for part in PARTS_OF_A_PLAN if issubclass(part, msgspec.Struct)] + [Prediction]
)
def test_every_key_of_an_answer_is_explained(struct: type[msgspec.Struct]) -> None:
    said = set(re.findall(r"`(\w+)`", TEXT[ROOT / "docs" / "json.md"]))
    assert sorted({*struct.__struct_fields__} - said) == []


def test_every_key_of_a_simulation_is_explained() -> None:
    from infermix.study import simulate

    study = parse_study(
        {
            "model": "gpt-oss-20b",
            "traffic": {"chat": {"profile": "azure-conv-2023", "rate_per_s": 1.0, "slo": {"ttft_s": 2.0}}},
            "fleet": {"one": {"system": "h100-x1", "instances": 1}},
        },
        "study",
    )
    said = set(re.findall(r"`(\w+)`", TEXT[ROOT / "docs" / "json.md"]))
    found = simulate(study, requests=20, speeds="both")
    keys = {*found, *found["pools"]["one"], *found["classes"]["chat"]}
    assert sorted({key.removesuffix("_low") for key in keys} - said) == []


def commands(group: click.Group = infermix, name: str = "infermix") -> Iterator[tuple[str, click.Command]]:
    """Every command that can be called, with its full name."""
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_mentioned(name: str) -> None:
    text = TEXT[ROOT / "docs" / "commands.md"]
    assert f"`{name} " in text
    page = "".join(part for part in text.split("\n## ")[1:] if f"`{name} " in part.splitlines()[0])
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert all(f"`{option} " in page or f"`{option}`" in page for option in parameter.opts), parameter.name


def shown() -> list[tuple[str, str]]:
    """Every call of the command line that a page shows."""
    found = [
        (page.name, (match[1] or match[2]).split("#")[0].strip())
        for page in PAGES
        for match in COMMAND.finditer(TEXT[page])
    ]
    return [row for row in dict.fromkeys(found) if " " in row[1] and not row[1].startswith("infermix --")]


@pytest.mark.parametrize(("page", "line"), shown())
def test_every_command_shown_exists(page: str, line: str) -> None:
    name = next((name for name in sorted(COMMANDS, key=len, reverse=True) if (line + " ").startswith(name + " ")), None)
    assert name, f"{page}: {line}"
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert set(re.findall(r"(?<!\S)--[\w-]+", line)) <= known
    files = [word for word in line.split() if word.startswith("examples/")]
    assert all((ROOT / file).exists() for file in files)


def test_every_make_target_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    said = {word for text in TEXT.values() for word in re.findall(r"(?:`|^ {4}|\$ )make ([a-z]+)", text, re.MULTILINE)}
    assert {"plan", "test"} <= said <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", TEXT[page])):
        if not re.match(r"[a-z]+://|mailto:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_index_of_decisions_names_every_page() -> None:
    index = TEXT[ROOT / "docs" / "design" / "README.md"]
    pages = {page.name for page in PAGES if page.parent.name == "design" and page.name != "README.md"}
    assert {name for name in pages if f"({name})" not in index} == set()


def test_pictures_are_small_pngs() -> None:
    pictures = list((ROOT / "docs" / "img").iterdir())
    assert pictures
    for picture in pictures:
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert picture.stat().st_size < LARGEST_PICTURE_BYTES
        assert any(f"img/{picture.name})" in text for text in TEXT.values())


def test_figures_counted_in_the_readme_are_those_of_the_catalogue() -> None:
    from infermix.catalog.load import catalog, figures_of

    facts, text = catalog(), " ".join(TEXT[README].split())
    parts = (facts.chips, facts.systems, facts.models, facts.prices, facts.efficiencies)
    kinds = [figure.kind for part in parts for record in part.values() for figure in figures_of(record).values()]
    counts = [len(part) for part in parts[:4]]
    assert "{} chips, {} systems, {} models and {} prices".format(*counts) in text
    assert f"{kinds.count('unverified'):,} of {len(kinds):,}" in text


@pytest.mark.parametrize("word", ["infermix perf", "infermix catalog"])
def test_outputs_in_the_readme_are_what_the_command_prints(word: str) -> None:
    assert word in TEXT[README]
    assert refreshed(TEXT[README], word) == TEXT[README], "run tests/docs/refresh_readme.py"
