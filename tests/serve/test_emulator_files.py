"""What the emulator reads: its own file, a gateway file, a plan; and one line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.errors import InputError
from infermix.serve.emulator.config import load_emulated

EXAMPLES = Path(__file__).parents[2] / "examples" / "serve"
GATEWAY = """
[[backends]]
url = "http://127.0.0.1:9301"
name = "cheap/0"
pool = "cheap"
model = "gpt-oss-120b"
served_as = "gpt-oss"
system = "h200-x1"
[[backends]]
url = "http://127.0.0.1:9302"
name = "cheap/1"
pool = "cheap"
model = "gpt-oss-120b"
served_as = "gpt-oss"
system = "h200-x1"
[[backends]]
url = "https://api.example.com"
name = "api"
model = "gpt-oss-120b"
"""
OWN = """
model = "gpt-oss-120b"
listen = "127.0.0.1:9200"
[fleet.cheap]
system = "h200-x1"
instances = 2
"""


def written(folder: Path, text: str, name: str = "emulate.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_examples_are_read() -> None:
    places, setting = load_emulated(EXAMPLES / "emulate-mixed.toml", faults=EXAMPLES / "emulate-faults.toml")
    assert [place.name for place in places] == ["fast/0", "fast/1", "cheap/0", "cheap/1"]
    assert [place.port for place in places] == [9101, 9102, 9103, 9104]
    assert {fault.kind for fault in setting.faults} == {"slow_start", "429", "cut", "refuse"}
    assert all(place.spec.prefix_cache and place.spec.load_s == 0.0 for place in places)


def test_a_gateway_file_is_emulated_where_its_urls_are(tmp_path: Path) -> None:
    gateway = written(tmp_path, GATEWAY, "gateway.toml")
    places, _ = load_emulated(gateway)
    assert [(place.name, place.pool, place.port) for place in places] == [
        ("cheap/0", "cheap", 9301),
        ("cheap/1", "cheap", 9302),
    ], "other machines' APIs are left alone"
    assert places[0].model == "gpt-oss" and places[0].names == {"gpt-oss", "gpt-oss-120b"}
    by_way = written(tmp_path, 'gateway = "gateway.toml"\nspeed = 2.0')
    assert load_emulated(by_way)[0][0].spec.kv_s == places[0].spec.kv_s / 2


def test_a_plan_is_emulated_port_by_port(tmp_path: Path) -> None:
    row = {"name": "fast", "system": "cs3", "model": "gpt-oss-120b", "stages": 3, "instances": 2, "chip": "wse3"}
    plan = written(tmp_path, json.dumps({"fleet": [row, {**row, "name": "none", "instances": 0}]}), "plan.json")
    places, _ = load_emulated(plan)
    assert [(place.name, place.port) for place in places] == [("fast/0", 9101), ("fast/1", 9102)]


def test_speed_and_prefix_cache_are_set_for_all(tmp_path: Path) -> None:
    path = written(tmp_path, OWN)
    plain, quick = load_emulated(path)[0][0].spec, load_emulated(path, speed=4.0, prefix_cache=True)[0][0].spec
    assert quick.decode_s == pytest.approx(plain.decode_s / 4) and quick.pair_s == plain.pair_s / 4
    with pytest.raises(InputError, match="--speed"):
        load_emulated(path, speed=0.0)
    assert not plain.prefix_cache and quick.prefix_cache and quick.load_s == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = 3", "model"),
        ("modle = 'x'", "did you mean 'model'"),
        ("", "nothing to emulate"),
        (OWN + "sytem = 'x'", "did you mean 'system'"),
        (OWN.replace("h200-x1", "h200-x9"), "fleet.cheap"),
        (OWN.replace('model = "gpt-oss-120b"', ""), "say model"),
        (OWN.replace("9200", "port"), "HOST:PORT"),
        (OWN.replace("9200", "65535"), "more instances than ports"),
        (OWN + "role = 'prefill'", "decode"),
        (OWN + "[answers]\nspread = -1", "answers.spread"),
        (OWN + "[answers]\nmean = 1", "answers: mean"),
        ("speed = 0\n" + OWN, "speed"),
        (OWN + "[[faults]]\nkind = 'cutt'", "did you mean 'cut'"),
        (OWN + "[[faults]]\nkind = 'cut'\nbackend = 'chaep'", "did you mean 'cheap'"),
        (OWN + "[[faults]]\nkind = 'cut'\nevery = 0", "faults[0].every"),
        (OWN + "[[faults]]\nkind = 'cut'\nfrom_s = 2\nto_s = 1", "faults[0].to_s"),
    ],
)
def test_faults_of_files_are_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as told:
        load_emulated(written(tmp_path, text))
    assert words in str(told.value) and "emulate.toml" in str(told.value) and "\n" not in str(told.value)


def test_two_backends_at_one_address(tmp_path: Path) -> None:
    text = GATEWAY.replace(":9302", ":9301")
    with pytest.raises(InputError, match="have one address"):
        load_emulated(written(tmp_path, text))
