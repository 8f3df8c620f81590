"""Finding facts, and what is said when the name or the file is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infermix.catalog.load import catalog, load_own_chip, open_catalog, with_own_chip
from infermix.catalog.query import figure, find_chip, find_model, find_system, roots
from infermix.errors import InputError

CAT = catalog()

OWN = """
[chip]
id = "my-asic"
name = "My ASIC"
vendor = "us"
cls = "asic_hbm"
efficiency = "gaudi"
tdp_w = { value = 0.9, unit = "kW" }
mem_bytes = { value = 192, unit = "GB" }
mem_bytes_per_s = { value = 6.4, unit = "TB/s", source = ["own"], kind = "derived", read = "2026-11-22" }

[system]
id = "my-asic-x8"
chips = 8
capital_usd = { value = 120000, unit = "USD", low = 90000, high = 150000 }
"""


def test_a_figure_is_found_by_its_path() -> None:
    assert figure(CAT, "chips/h200-sxm/mem_bytes_per_s").value == 4.8e12
    assert figure(CAT, "systems/h200-x8/rent_usd_per_hour").value == 28.0
    assert figure(CAT, "models/gpt-oss-120b/params").unit == "parameters"
    assert figure(CAT, "prices/rent-nebius-h200-on-demand/usd_per_hour").value == 3.5
    for id_, item in CAT.efficiencies.items():
        name = next(iter(item.figures))
        assert figure(CAT, f"efficiency/{id_}/{name}") == item.figures[name]


def test_roots_go_down_to_what_was_read() -> None:
    power = ("chips/h200-sxm/vendor_system_power_w", "chips/h200-sxm/vendor_system_chips")
    assert roots(CAT, "systems/h200-x8/power_w") == power
    assert roots(CAT, "chips/h200-sxm/mem_bytes") == ("chips/h200-sxm/mem_bytes",)


@pytest.mark.parametrize(
    ("find", "name", "near"),
    [
        (find_system, "h200x8", "h200-x8"),
        (find_model, "gpt-oss-120", "gpt-oss-120b"),
        (find_chip, "h200-sxn", "h200-sxm"),
    ],
)
def test_an_unknown_name_gets_a_near_miss(find: Callable[[str], object], name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"{name}.*did you mean '{near}'"):
        find(name)


@pytest.mark.parametrize("id_", ["chips/h200-sxm", "chip/h200-sxm/mem_bytes", "chips/h200-sxm/mem_byte", "chips/x/y"])
def test_an_unknown_figure_is_refused_in_one_line(id_: str) -> None:
    with pytest.raises(InputError) as fault:
        figure(CAT, id_)
    assert "\n" not in str(fault.value)


def test_mappings_behave_as_python_expects() -> None:
    assert CAT.chips.get("nothing") is None
    assert "h200-sxm" in CAT.chips and "nothing" not in CAT.chips
    with pytest.raises(KeyError):
        CAT.models["nothing"]
    with pytest.raises(TypeError):
        CAT.chips["x"] = None  # type: ignore[index]


def test_an_own_chip_needs_little(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    chip, system = load_own_chip(path)
    assert chip.tdp_w and (chip.tdp_w.value, chip.tdp_w.kind, chip.tdp_w.source) == (900.0, "unverified", ("own",))
    assert chip.mem_bytes_per_s and chip.mem_bytes_per_s.kind == "derived"
    assert (system.chip, system.vendor, system.chips) == ("my-asic", "us", 8)
    wider = with_own_chip(CAT, chip, system)
    assert wider.chips["my-asic"] is chip and find_system("my-asic-x8", wider) is system
    assert figure(wider, "chips/my-asic/mem_bytes").value == 192e9
    assert "my-asic" not in CAT.chips and len(wider.chips) == len(CAT.chips) + 1
    with pytest.raises(InputError, match="already"):
        with_own_chip(wider, chip, system)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "mem_bytes_per_s",
            "mem_byte_per_s",
            r"chip: mem_byte_per_s: unknown key; got 6\.4; did you mean 'mem_bytes_per_s'",
        ),
        ('unit = "GB"', 'unit = "GBs"', r"mem_bytes\.unit: unknown unit; got 'GBs'.*did you mean 'GB/?s?'"),
        ('unit = "GB"', 'unit = "TB/s"', r"mem_bytes\.unit: unit of the wrong kind; got 'TB/s'; allowed: GB"),
        ("value = 192", "valu = 192", r"mem_bytes: valu: unknown key; got 192; did you mean 'value'"),
        ("value = 192", "value = true", r"mem_bytes\.value: not a number; got True"),
        ("value = 192", "value = nan", r"mem_bytes\.value: not a number; got nan"),
        ("low = 90000", "low = 130000", r"capital_usd: value outside its own range; got 120000"),
        ('kind = "derived"', 'kind = "guessed"', r"mem_bytes_per_s\.kind: Invalid enum value 'guessed'.*got 'guessed'"),
        ("chips = 8", 'chips = "8"', r"chips: Expected `int`, got `str`; got '8'"),
        ('name = "My ASIC"\n', "", r"chip: Object missing required field `name`"),
        ("{ value = 192, unit = \"GB\" }", "192", r"mem_bytes: a figure must be a table; got 192; write it as"),
        ("[system]", "[sytem]", r"sytem: unknown key.*did you mean 'system'"),
        ("[chip]", "[chip", r"not valid TOML.*line 2"),
    ],
)  # fmt: skip
def test_a_faulty_own_chip_gives_one_clear_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "own.toml"
    assert old in OWN
    path.write_text(OWN.replace(old, new))
    with pytest.raises(InputError, match=said) as fault:
        load_own_chip(path)
    assert str(fault.value).startswith(str(path)) and "\n" not in str(fault.value)


def test_a_missing_own_chip_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.toml: cannot be read: No such file"):
        load_own_chip(tmp_path / "no.toml")


def test_only_the_file_asked_for_is_read(tmp_path: Path) -> None:
    (tmp_path / "chips").mkdir()
    (tmp_path / "chips" / "good.toml").write_text('id = "good"\nname = "G"\nvendor = "V"\ncls = "wafer"\n')
    (tmp_path / "chips" / "bad.toml").write_text("id = [")
    small = open_catalog(tmp_path)
    assert small.chips["good"].kind == "sram"
    assert list(small.chips) == ["bad", "good"] and list(small.efficiencies) == []
    with pytest.raises(InputError, match=r"bad\.toml: not valid TOML"):
        small.chips["bad"]


def test_a_figure_that_is_computed_from_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chips").mkdir()
    tail = 'source = ["M"], kind = "derived", read = "2026-11-22", of = ["chips/loop/tdp_w"]'
    text = f'id = "loop"\nname = "L"\nvendor = "V"\ncls = "wafer"\ntdp_w = {{ value = 1, unit = "W", {tail} }}\n'
    (tmp_path / "chips" / "loop.toml").write_text(text)
    with pytest.raises(InputError, match="computed from itself"):
        roots(open_catalog(tmp_path), "chips/loop/tdp_w")
