"""``infermix perf``: tables within 100 columns, JSON without gaps, errors in one line."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infermix.catalog.load import catalog
from infermix.catalog.query import figure
from infermix.cli.perf_tables import bar
from infermix.cli.scatter import scatter
from infermix.explore import chips as explore_chips
from infermix.explore.chips import ChipRow, FrontPoint
from tests.cli.conftest import Invoke

CAT = catalog()
LONG = ("llama-3.3-70b", "--all", "--input", "100000", "--output", "300")


@pytest.fixture
def invoke(invoke: Invoke) -> Invoke:
    return partial(invoke, "perf")


@pytest.fixture
def few_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chip with every model is a matter of seconds; here it is seven chips and four models."""
    whole = explore_chips.sweep_everything
    models = ["llama-3.1-8b", "llama-3.3-70b", "gpt-oss-120b", "gpt-5-class"]
    chips = ["h200-sxm", "mi300x", "wse3", "truenorth", "gb10", "tpu-v6e", "t4"]
    monkeypatch.setattr(explore_chips, "sweep_everything", lambda _c, _m, wish, done: whole(chips, models, wish, done))


def numbers(value: Any) -> list[Any]:
    """Every leaf of a JSON value."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in numbers(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in numbers(item)]
    return [value]


def test_one_model_on_one_system(invoke: Invoke, tmp_path: Path) -> None:
    code, out, err = invoke("llama-3.3-70b", "h200-x8", "--batch", "16", "--json", str(tmp_path / "x.json"))
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 100
    told = json.loads((tmp_path / "x.json").read_text())
    for wanted in ("h200-x8: tp8, 8 chips", "Layout chosen: tp8", "Where a step goes", "settings", "hardware", "$28/h"):
        assert wanted in out
    assert None not in numbers(told) and told["fits"] is True
    assert told["tokens_per_s"] == pytest.approx(16 * told["tokens_per_s_user"])
    assert sum(told["parts_s"].values()) == pytest.approx(told["tpot_s"])
    assert f"{told['kv_tokens_left']:,}" in out
    for id_ in told["figures"]:
        figure(CAT, id_)
    assert {
        "chips/h200-sxm/mem_bytes_per_s",
        "systems/h200-x8/rent_usd_per_hour",
        "models/llama-3.3-70b/params",
    } <= set(told["figures"])


def test_the_longest_bar_is_the_largest_part(invoke: Invoke) -> None:
    _, out, _ = invoke("llama-3.3-70b", "h200-x8")
    rows = [line for line in out.splitlines() if line.endswith("%")]
    shares = [float(re.findall(r"([\d.]+)%", line)[0]) for line in rows]
    blocks = [line.count("\u2588") for line in rows]
    assert shares == sorted(shares, reverse=True) and blocks == sorted(blocks, reverse=True) and blocks[0] == 36
    assert sum(shares) == pytest.approx(100, abs=1.0)


def test_bars_keep_their_proportion() -> None:
    assert [len(bar(share, 40)) for share in (1.0, 0.5, 0.25)] == [40, 20, 10]
    assert bar(1e-6) == "\u258f" and bar(0.0) == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gpt-oss-120b", "cs3"), "the fewest in line that hold it"),
        (("llama-3.1-8b", "h200-sxm"), "h200-sxm is a chip; taken in its usual system, h200-x8"),
        (("gpt-5-class", "gb200-nvl72"), "its shape is a guess: 300 to 5,000 billion and 30 to 300 billion active"),
        (("gpt-5-class", "gb200-nvl72"), "the model's shape is a guess"),
        (("llama-3.1-8b", "cs3"), "No cost: only what it costs its operator is known"),
        (("llama-3.1-8b", "cs3", "--gross-margin", "0.4"), "operator's cost at 40% gross margin"),
        (("deepseek-v3.2", "h200-x8", "--spec", "mtp:2"), "drafts mtp:2:2.3"),
        (("llama-3.1-8b", "h100-x8", "--input", "8000", "--cached", "6000"), "6,000 of them cached"),
        (("llama-3.3-70b", "cs3", "--prefill", "h100-x8"), "Prompts read on h100-x8"),
        (("llama-3.3-70b", "h200-x8", "--ffn", "cs3"), "hypothetical: no such pair has been shown"),
        (("kimi-k2", "h100-x8"), "on 2 systems"),
        (
            ("llama-3.1-8b", "h100-x8", "--tp", "2", "--weights", "fp8", "--kv", "fp8"),
            "weights in fp8, KV cache in fp8",
        ),
    ],
)
def test_what_is_said(invoke: Invoke, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = invoke(*arguments)
    assert (code, err) == (0, "") and said in " ".join(out.split()), out
    assert max(map(len, out.splitlines())) <= 100


def test_two_systems_in_the_json(invoke: Invoke) -> None:
    _, out, _ = invoke("llama-3.3-70b", "h200-x8", "--prefill", "b200-x8", "--ffn", "cs3", "--json", "-")
    told = json.loads(out)
    assert told["prefill"]["ttft_s"] == pytest.approx(
        told["prefill"]["prompt_s"] + told["prefill"]["transfer"]["seconds"]
    )
    assert told["split"]["speed"]["hypothetical"] is True and told["split"]["system"] == "cs3"
    chips = {id_.split("/")[1] for id_ in told["figures"] if id_.startswith("chips/")}
    assert chips == {"h200-sxm", "b200-sxm", "wse3"}
    assert None not in numbers(told)


@pytest.mark.parametrize(
    ("arguments", "must"),
    [
        ((), "MODEL is missing"),
        (("llama-3.1-8b",), "SYSTEM is missing"),
        (("llama-3.1-8b", "h100-x8", "--all"), "every chip and one system at once"),
        (("llama-3.1-8b", "h100-x8", "--sort", "usd"), "--sort: does not go with this"),
        (("llama-3.1-8b", "h100-x8", "--at-least", "10"), "--at-least: does not go with this"),
        (("llama-3.1-8b", "--all", "--tp", "2"), "--tp: does not go with this; allowed: with a MODEL and a SYSTEM"),
        (("llama-3.1-8b", "--all", "--prefill", "cs3"), "--prefill: does not go with this"),
        (("--all", "--report", "x.html"), "--report: does not go with this; allowed: with --all and a MODEL"),
        (("llama-3.1-8b", "--all", "--top", "0"), "--top: must be 1 or more"),
        (("llama-3.1-8b", "--all", "--sort", "price"), "'price'"),
        (("llama-3.1-8b", "--all", "--basis", "lease"), "'lease'"),
        (("llama-3.1-8b", "h100-x8", "--kv", "fp9"), "did you mean 'fp8'?"),
        (("llama-3.1-8b", "h100-x8", "--weights", "bf61"), "--weights: unknown dtype"),
        (("llama-3.1-8b", "h100-x8", "--batch", "9000"), "--batch: too large"),
        (("llama-3.1-8b", "h100-x8", "--input", "10", "--cached", "10"), "--cached: too many"),
        (("llama-3.1-8b", "h100-x8", "--gross-margin", "1"), "--gross-margin: out of range"),
        (("llama-3.1-8b", "h100-x8", "--life-years", "0"), "--life-years: out of range"),
        (("llama-3.1-8b", "h100-x8", "--usd-per-kwh", "nan"), "--usd-per-kwh: out of range"),
        (("llama-3.1-8b", "h100-x8", "--spec", "mtp"), "--spec: not a form of speculative decoding"),
        (("llama-3.1-8b", "h100-x8", "--spec", "mtp:2"), "no layers for multi-token prediction"),
        (("llama-3.1-8b", "--all", "--spec", "mtp:2"), "no layers for multi-token prediction"),
        (("llama-3.1-8b", "h100-x8", "--stages", "3"), "stages is for SRAM machines"),
        (("llama-3.1-8b", "cs3", "--tp", "2"), "stages alone lays out SRAM machines"),
        (("llama-3.1-8b", "h100-x8", "--ep", "2"), "ep is for models with experts"),
        (("llama-3.1-8b", "h100-x8", "--prefill", "h100x1"), "did you mean"),
        (("lama-3.1-8b", "--all"), "did you mean 'llama-3.1-8b'?"),
        (("llama-3.1-8b", "cs3", "--ffn", "h100-x8"), "attention on an SRAM machine"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(invoke: Invoke, arguments: tuple[str, ...], must: str) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and must in err, err


@pytest.mark.parametrize(
    ("arguments", "must"),
    [
        (("llama-3.1-8b", "truenorth"), "spiking"),
        (("llama-3.1-8b", "rain-npu"), "never shipped"),
        (("kimi-k2", "taalas-hc1"), "taalas-hc1"),
        (("llama-3.1-405b", "h100-x1"), "does not fit"),
        (("llama-3.1-8b", "h100-x8", "--input", "200000"), "200,200 tokens exceeds the 131,072"),
        (("llama-3.1-8b", "--all", "--input", "200000"), "200,200 tokens exceeds the 131,072"),
        (("llama-3.3-70b", "h100-x8", "--batch", "512", "--input", "100000"), "KV tokens left"),
        (("llama-3.1-405b", "cs3", "--prefill", "h100-x1"), "does not fit on h100-x1"),
    ],
)
def test_questions_without_an_answer_are_one_line_and_exit_1(
    invoke: Invoke, arguments: tuple[str, ...], must: str
) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out, err.count("\n")) == (1, "", 1) and must in err, err


def test_what_does_not_fit_is_written_all_the_same(invoke: Invoke, tmp_path: Path) -> None:
    code, _, _ = invoke("llama-3.1-405b", "h100-x1", "--json", str(tmp_path / "x.json"))
    told = json.loads((tmp_path / "x.json").read_text())
    assert code == 1 and told["fits"] is False and told["tpot_s"] is None and told["reason"]


def test_every_chip_for_a_model(invoke: Invoke, tmp_path: Path) -> None:
    code, out, err = invoke(*LONG, "--sort", "usd", "--json", str(tmp_path / "x.json"))
    told = json.loads((tmp_path / "x.json").read_text())
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 100
    named = [line.split()[0] for line in out.splitlines() if re.match(r"[a-z0-9-]+ +(tp|dp|x)\d", line)]
    assert named == [row["chip"] for row in told["rows"]] and len(named) > 60
    costs = [row["usd_per_mtok_output"] for row in told["rows"] if "usd_per_mtok_output" in row]
    assert costs == sorted(costs) and len(costs) > 20
    assert f"Cheapest: {told['rows'][0]['chip']}," in out and "Fastest at any price: wse3" in out
    for row in told["cannot"]:
        assert row["reason"] and row["chip"] in out.split("No answer from")[1]
    assert None not in numbers(told) and 0 not in [v for row in told["rows"] for v in row.values()]
    for id_ in told["figures"]:
        figure(CAT, id_)


def test_options_of_every_chip(invoke: Invoke) -> None:
    _, out, _ = invoke("gpt-oss-120b", "--all", "--sort", "speed", "--top", "3", "--at-least", "150")
    rows = [line for line in out.splitlines() if re.match(r"[a-z0-9-]+ +(tp|dp|x)\d", line)]
    assert len(rows) == 3 and rows[0].startswith("wse3") and "more: leave out --top" in out
    assert "slower than asked" in out
    _, out, _ = invoke("llama-3.1-8b", "--all", "--basis", "own", "--top", "1")
    assert "No price by own for" in out and "only a rent is known; to convert it: --gross-margin" in out
    _, out, _ = invoke("gpt-5-class", "--all", "--top", "1")
    assert "its shape is a guess" in out


def test_nobody_is_fast_enough(invoke: Invoke) -> None:
    code, out, err = invoke("llama-3.1-8b", "--all", "--at-least", "1e6")
    assert (
        code == 1
        and "slower than asked" in out
        and err == ("infermix: no chip answers for llama-3.1-8b; the reasons stand above\n")
    )


@pytest.mark.usefixtures("few_chips")
def test_every_chip_with_every_model(invoke: Invoke, tmp_path: Path) -> None:
    code, out, err = invoke("--all", "--json", str(tmp_path / "x.json"))
    told = json.loads((tmp_path / "x.json").read_text())
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 100
    assert {(r["chip"], r["model"]) for r in told["rows"]} >= {("truenorth", "gpt-5-class"), ("wse3", "llama-3.1-8b")}
    assert None not in numbers(told["rows"]) and told["basis"] == "rent" and told["input_tokens"] == 1000
    for row in told["rows"]:
        assert ("reason" in row) != ("tpot_s" in row)
    for id_ in told["figures"]:
        figure(CAT, id_)
    runs = {r["chip"]: set() for r in told["rows"]}
    for r in told["rows"]:
        if "tpot_s" in r:
            runs[r["chip"]].add(r["model"])
    for chip, models in runs.items():
        if models:
            assert re.search(rf"^{chip} +{len(models)} ", out, re.MULTILINE), chip
    assert re.search(r"^truenorth  It runs spiking", out, re.MULTILINE)
    assert "does not fit" in out


def rows_of(*spots: tuple[str, float, float]) -> list[ChipRow]:
    return [
        ChipRow(chip=chip, model="m", kind="hbm", tokens_per_s_user=speed, usd_per_mtok_output=cost)
        for chip, speed, cost in spots
    ]


def test_a_scatter_puts_the_fast_right_and_the_dear_above() -> None:
    rows = rows_of(("slow", 10, 1), ("mid", 100, 10), ("fast", 1000, 100))
    lines = [line.plain for line in scatter(rows, [])]
    place = {
        name: next((n, line.index(name)) for n, line in enumerate(lines) if name in line)
        for name in ("slow", "mid", "fast")
    }
    assert place["fast"][0] < place["mid"][0] < place["slow"][0] and place["slow"][1] < place["mid"][1]
    assert max(map(len, lines)) <= 100 and sum(line.count("\u25cf") for line in lines[1:]) == 3


def test_a_scatter_marks_the_front_and_never_overwrites() -> None:
    rows = rows_of(*((f"chip-{i}", 10 + i / 100, 1 + i / 1000) for i in range(30)), ("far", 500, 50))
    front = [FrontPoint(chip="far", kind="sram", layout="", batch=1, tokens_per_s_user=500, usd_per_mtok_output=50)]
    lines = [line.plain for line in scatter(rows, front)]
    assert any("\u25c6" in line and "far" in line for line in lines[1:])
    assert sum(line.count("chip-") for line in lines) <= 2, "no room for more names"
    assert scatter(rows[:2], []) == []


def test_converted_prices_say_how(invoke: Invoke) -> None:
    _, out, _ = invoke(*LONG, "--gross-margin", "0.4", "--life-years", "5", "--usd-per-kwh", "0.08")
    said = " ".join(out.split())
    assert (
        "rent (from capital over 5 years at 40% gross margin) (" in said and "rent (from operator's cost at 40%" in said
    )
    _, out, _ = invoke(*LONG)
    assert "Prices:" not in out
