"""Policies of one's own: from a file, on the command line and in a study; every fault in one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import click.testing
import pytest

from infermix import jit
from infermix.cli.main import infermix
from infermix.errors import InputError
from infermix.plan.problem import parse_study
from infermix.route import registry
from infermix.route.names import POLICIES, check_policy, split_file
from infermix.route.registry import find_policy
from infermix.study import simulate
from tests.route.views import make_ask, make_view, ready

OWN = '''
import infermix as im
from infermix.route.scorers import predicted_e2e_s

@im.policy
def last(view, ask):
    """The last eligible one."""
    best = -1
    for j in range(len(view.pool)):
        if view.eligible[j] and predicted_e2e_s(view, ask, j) > 0.0:
            best = j
    return best

@im.policy
def wrong(view, ask):
    return view.nothing[0]

def unmarked(view, ask):
    return 0
'''
STUDY: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "traffic": {
        "chat": {"profile": "azure-conv-2023", "rate_per_s": 20.0, "slo": {"ttft_s": 2.0}},
    },
    "fleet": {"big": {"system": "h100-x1", "instances": 2}, "small": {"system": "l40s-x1", "instances": 2}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def test_every_name_is_a_policy_with_a_summary() -> None:
    assert set(registry.POLICIES) >= registry._PACKAGED and all(POLICIES.values())
    for name in registry._PACKAGED:
        assert "Wins" in (getattr(registry.POLICIES[name], "__doc__", "") or "")


def test_a_function_of_a_file(folder: Path) -> None:
    choose = find_policy("own.py:last", folder=folder)
    assert ready(choose)(make_view(4), make_ask()) == 3
    assert find_policy(f"{folder}/own.py:last") is choose, "a file is run once"


def test_a_study_names_a_file_beside_it(folder: Path) -> None:
    raw = {**copy.deepcopy(STUDY), "simulate": {"policy": "own.py:last"}}
    found = simulate(parse_study(raw, str(folder / "study.toml")), requests=500)
    assert found["policy"] == "own.py:last"
    assert found["pools"]["big"]["tokens"]["output"] == 0 < found["pools"]["small"]["tokens"]["output"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.py:last", "no such policy file; got 'FOLDER/missing.py'"),
        ("own.py:lost", "no such policy in the file; got 'lost'; allowed: last, wrong; did you mean 'last'?"),
        ("own.py:unmarked", "not a policy; got 'unmarked'; put @im.policy above it"),
        ("broken.py:x", "broken.py fails: SyntaxError: "),
        ("raises.py:x", "raises.py fails: ZeroDivisionError: division by zero"),
        ("clash.py:least_wait", "a packaged policy has this name; got 'least_wait'"),
        ("empty.py:x", "no such policy in the file; got 'x'; allowed: nothing: no function has @im.policy above it"),
        ("least_wiat", "unknown policy; got 'least_wiat'; allowed: round_robin, "),
        ("own.txt:last", ", FILE.py:FUNCTION"),
    ],
)
def test_faults_in_one_line(folder: Path, name: str, said: str) -> None:
    (folder / "broken.py").write_text("def x(:\n")
    (folder / "raises.py").write_text("1 / 0\n")
    (folder / "empty.py").write_text("")
    (folder / "clash.py").write_text("import infermix as im\n@im.policy\ndef least_wait(view, ask):\n    return 0\n")
    with pytest.raises(InputError) as fault:
        find_policy(name, "simulate.policy", folder)
    told = str(fault.value).replace(str(folder), "FOLDER")
    assert told.startswith("simulate.policy: ") and said in told and "\n" not in told


@pytest.mark.skipif(not jit.ENABLED, reason="nothing is compiled")
def test_what_cannot_be_compiled(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^policy wrong: cannot be compiled: Unknown attribute 'nothing'") as fault:
        ready(find_policy("own.py:wrong", folder=folder))
    assert "own.py line 16" in str(fault.value) and "\n" not in str(fault.value) and len(str(fault.value)) < 200


def test_studies_refuse_unknown_policies_at_once() -> None:
    with pytest.raises(InputError, match=r"s.toml: simulate.policy: unknown policy; got 'slo_headrom'.*slo_headroom'"):
        parse_study({**STUDY, "simulate": {"policy": "slo_headrom"}}, "s.toml")
    for name in POLICIES:
        check_policy(name, "policy")
    assert split_file("C:/a b/own.py:last") == ("C:/a b/own.py", "last") and split_file("least_wait") is None


def test_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    told = click.testing.CliRunner().invoke(infermix, ["simulate", "--help"]).output
    assert all(name in told for name in registry._PACKAGED)
    (folder / "s.toml").write_text(
        'model = "llama-3.1-8b"\n[traffic.chat]\nprofile = "azure-conv-2023"\nrate_per_s = 5.0\n'
        "slo = { ttft_s = 2.0 }\n"
        '[fleet.a]\nsystem = "h100-x1"\ninstances = 2\n'
    )
    ran = click.testing.CliRunner().invoke(
        infermix, ["simulate", "s.toml", "--requests", "50", "--policy", "own.py:last", "--json", "r.json"]
    )
    assert ran.exit_code == 0, ran.output
    assert json.loads((folder / "r.json").read_text())["policy"] == "own.py:last"


def test_value_of_time_and_prices_reach_the_policy() -> None:
    """Worth nothing: the cheaper pool. Worth a lot: the faster one. A share of 0 may be spilled to."""
    raw = copy.deepcopy(STUDY)
    raw["fleet"] = {name: {"system": f"{name}-x1", "instances": 2} for name in ("b200", "mi300x")}
    cheap = simulate(parse_study({**raw, "simulate": {"policy": "price_of_delay"}}, "s"), requests=300)
    raw["traffic"]["chat"]["value_of_time_usd_per_hour"] = 1e6
    fast = simulate(parse_study({**raw, "simulate": {"policy": "price_of_delay"}}, "s"), requests=300)
    assert fast["classes"]["chat"]["e2e_s"]["p50"] < cheap["classes"]["chat"]["e2e_s"]["p50"]
    raw["fleet"]["mi300x"]["serves"] = {"chat": 0.0}
    split = simulate(parse_study({**raw, "simulate": {"policy": "pool_split"}}, "s"), requests=300)
    assert split["pools"]["mi300x"]["tokens"]["output"] == 0 and split["completed"] == 300
    raw["traffic"]["chat"]["value_of_time_usd_per_hour"] = -1.0
    with pytest.raises(InputError, match="value_of_time_usd_per_hour"):
        parse_study(raw, "s")
