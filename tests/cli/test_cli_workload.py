"""``infermix workload show``: tables within 100 columns, stable keys, a page, and one line for every fault."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import msgspec
import pytest

from infermix.plan.problem import Training, load_study
from infermix.plan.question import ask
from infermix.workload.classes import Part
from infermix.workload.laws import Arrivals
from infermix.workload.picture import Arriving, Column, Conversing, Picture, Reuse
from infermix.workload.shape import Sine
from tests.cli.conftest import Invoke

TRACE = "t_s,input_tokens,output_tokens,model\n" + "".join(f"{i},{100 + i},{i % 9},{'ab'[i % 2]}\n" for i in range(200))


@pytest.fixture
def invoke(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(TRACE)
    (tmp_path / "u.csv").write_text("when,prompt,answer\n0,5,6\n1,7,8\n2,9,9\n")

    return partial(invoke, "workload", "show")


def test_a_trace_is_shown_within_100_columns(invoke: Invoke) -> None:
    code, out, err = invoke("t.csv")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 100
    for word in ("200 requests", "input", "uncached", "output", "context", "p99", "█", "cv of gaps",
                 "Models: a 100, b 100", "output tokens raised to 1: 23", "Nothing is known to be cached"):  # fmt: skip
        assert word in out, word


def test_sessions_reuse_and_notes_of_a_profile_are_shown(invoke: Invoke) -> None:
    code, out, _ = invoke("agentic-coding", "--rate", "4")
    assert code == 0 and max(map(len, out.splitlines())) <= 100
    for word in ("pause", "service", "of input tokens cached", "4 requests a second", "Apache-2.0", "Left out"):
        assert word in out, word


def test_json_has_the_documented_keys(invoke: Invoke) -> None:
    code, out, err = invoke("t.csv", "--json", "-")
    found = json.loads(out)
    assert code == 0 and "200 requests" in err
    assert set(found) == set(Picture.__struct_fields__) and found["figures"] == []
    assert set(found["lengths"]["input_tokens"]) == set(Column.__struct_fields__)
    assert set(found["arrivals"]) == set(Arriving.__struct_fields__)
    assert set(found["reuse"]) == set(Reuse.__struct_fields__)
    assert found["requests"] == 200 and found["rate_per_s"] == pytest.approx(200 / found["span_s"])
    assert found["models"] == {"a": 100, "b": 100}


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    for struct in (Picture, Column, Arriving, Reuse, Conversing):
        assert [key for key in struct.__struct_fields__ if f"`{key}`" not in text] == []


@pytest.mark.parametrize("struct", [Part, Arrivals, Sine, Training])
def test_every_key_of_the_tables_inside_a_study_is_documented(struct: type[msgspec.Struct]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "study-file.md").read_text(encoding="utf-8")
    rows = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    assert [key for key in struct.__struct_fields__ if f"`{key}`" not in rows] == []


def test_the_example_is_a_study() -> None:
    study = load_study(Path(__file__).parents[2] / "examples" / "agents-by-session.toml")
    assert study.traffic["coding"].sessions == 200 and study.training["finetune"].hours == (0, 8)
    assert ask(study).hour == 20


def test_columns_only_between_and_rate(invoke: Invoke) -> None:
    code, _, err = invoke("u.csv")
    assert code == 2 and err.count("\n") == 1 and "columns = {" in err
    wanted = "t_s=when,input_tokens=prompt,output_tokens=answer"
    assert json.loads(invoke("u.csv", "--columns", wanted, "--json", "-")[1])["requests"] == 3
    apart = [x for pair in wanted.split(",") for x in ("--columns", pair)]
    assert json.loads(invoke("u.csv", *apart, "--json", "-")[1])["requests"] == 3
    only = json.loads(invoke("t.csv", "--only", "model=a", "--json", "-")[1])
    assert only["requests"] == 100 and only["repairs"]["left_out_by_only"] == 100
    assert json.loads(invoke("t.csv", "--between", "10", "20", "--json", "-")[1])["requests"] == 10
    shown = json.loads(invoke("t.csv", "--rate", "9", "--json", "-")[1])
    assert shown["drawn"] is True and shown["rate_per_s"] == 9.0


def test_a_report_is_written(invoke: Invoke) -> None:
    pytest.importorskip("jinja2", reason="needs the extra infermix[report]")
    assert invoke("t.csv", "--report", "r.html")[0] == 0
    assert Path("r.html").read_text().startswith("<!doctype html>")
    code, out, err = invoke("t.csv", "--report", "no/such/folder.html")
    assert (code, out) == (2, "") and "no/such/folder.html: cannot be written" in err


@pytest.mark.parametrize(
    ("arguments", "must"),
    [
        (["gone.csv"], ["gone.csv", "no such trace"]),
        (["azure-conv-2032"], ["azure-conv-2032", "did you mean 'azure-conv-2023'?"]),
        (["t.csv", "--columns", "t_s"], ["--columns", "not a pair", "'t_s'", "NAME=VALUE"]),
        (["t.csv", "--only", "model=c"], ["only.model", "no request with this model", "a, b"]),
        (["t.csv", "--rate", "-1"], ["--rate", "-1.0"]),
        (["t.csv", "--rate", "fast"], ["--rate", "fast"]),
        (["t.csv", "--between", "50", "10"], ["between_s", "from < to"]),
    ],
)
def test_bad_input_is_one_line(invoke: Invoke, arguments: list[str], must: list[str]) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("infermix: ")
    assert [word for word in must if word not in err] == []
