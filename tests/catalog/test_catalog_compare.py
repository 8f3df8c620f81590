"""Facts side by side: ratios, derived rows, their doubt, and the figures they rest on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from infermix.catalog.compare import Comparison, compare
from infermix.catalog.load import catalog as packaged
from infermix.catalog.query import figure
from infermix.catalog.shape import kv_elements_per_token
from infermix.cli.catalog import catalog
from infermix.errors import InputError

FACTS = packaged()


def row(found: Comparison, name: str) -> tuple[float | None, ...]:
    return next(row.values for row in found.rows if row.name == name)


def test_chips_are_compared_with_what_people_derive() -> None:
    found = compare(["h100-sxm", "H200 SXM"])
    old, new = (FACTS.chips[id_] for id_ in found.ids)
    assert found.part == "chips" and found.ids == ("h100-sxm", "h200-sxm")
    assert old.bf16_flop_per_s and old.mem_bytes and old.mem_bytes_per_s and old.rent_usd_per_hour
    assert new.mem_bytes_per_s
    assert row(found, "mem_bytes_per_s") == (old.mem_bytes_per_s.value, new.mem_bytes_per_s.value)
    assert row(found, "ridge_flop_per_byte")[0] == old.bf16_flop_per_s.value / old.mem_bytes_per_s.value
    assert row(found, "sweep_s")[0] == old.mem_bytes.value / old.mem_bytes_per_s.value
    ridge, inverse = row(found, "ridge_flop_per_byte")[0], row(found, "bytes_per_flop")[0]
    assert ridge and inverse and math.isclose(ridge * inverse, 1.0)
    price = row(found, "rent_usd_per_hour_per_tbyte_per_s")[0]
    assert price and math.isclose(price, old.rent_usd_per_hour.value / (old.mem_bytes_per_s.value / 1e12))
    bandwidth = next(row for row in found.rows if row.name == "mem_bytes_per_s")
    assert bandwidth.ratios[0] == 1.0 and not bandwidth.derived
    assert bandwidth.ratios[1] == new.mem_bytes_per_s.value / old.mem_bytes_per_s.value


def test_on_sram_machines_the_memory_is_sram_and_cost_is_no_rent() -> None:
    found = compare(["wse3", "h200-sxm"])
    sweep = row(found, "sweep_s")
    assert sweep[0] and 2e-6 < sweep[0] < 2.2e-6 and sweep[1] and sweep[1] > 0.02
    assert row(found, "rent_usd_per_hour_per_tbyte_per_s")[0] is None
    assert row(found, "operator_cost_usd_per_hour_per_tbyte_per_s")[1] is None
    assert "mem_bytes" not in [name for name in ("mem_bytes",) if row(found, name)[0] is not None]


def test_systems_add_up_their_chips() -> None:
    found = compare(["h200-x8", "h200-x1"])
    eight, one = row(found, "mem_bytes")
    assert eight and one and math.isclose(eight, 8 * one)
    sweep = row(found, "sweep_s")
    assert sweep[0] and sweep[1] and math.isclose(sweep[0], sweep[1])
    assert "systems/h200-x8/power_w" in found.figures and "chips/h200-sxm/mem_bytes" in found.figures


def test_powers_on_different_bases_have_no_ratio() -> None:
    it = next(system.id for system in FACTS.systems.values() if system.power_w and system.power_basis == "it")
    chip = next(system.id for system in FACTS.systems.values() if system.power_w and system.power_basis == "chip")
    for names, told in (([it, chip], False), (["h200-x8", "h100-x8"], True)):
        power = next(item for item in compare(names).rows if item.name == "power_w")
        assert None not in power.values and power.ratios[0] == 1.0 and (power.ratios[1] is not None) == told


def test_models_are_compared_by_size_and_cache() -> None:
    found = compare(["gpt-oss-120b", "meta-llama/Llama-3.1-8B"])
    assert found.ids == ("gpt-oss-120b", "llama-3.1-8b")
    counted = [2.0 * kv_elements_per_token(FACTS.models[id_]) for id_ in found.ids]
    assert list(row(found, "kv_bytes_per_token")) == counted
    assert row(found, "kv_bytes_per_100k_tokens")[0] == 1e5 * counted[0]
    share = row(found, "active_share")
    assert share[0] and share[0] < 0.05 and share[1] and share[1] > 0.9


def test_doubt_is_passed_on_and_figures_are_named() -> None:
    found = compare(["h200-sxm", "mi300x", "wse3"])
    for item in found.rows:
        assert len(item.values) == len(item.kinds) == len(item.ratios) == 3
        for value, kind in zip(item.values, item.kinds, strict=True):
            assert (value is None) == (kind == "")
            assert not item.derived or kind in ("", "derived", "unverified")
    assert len(found.figures) == len(set(found.figures)) and all(figure(FACTS, id_).source for id_ in found.figures)
    doubted = next(item for item in compare(["h20", "h100-sxm"]).rows if item.name == "bf16_flop_per_s").kinds[0]
    ridge = next(item for item in compare(["h20", "h100-sxm"]).rows if item.name == "ridge_flop_per_byte").kinds[0]
    assert doubted != "unverified" or ridge == "unverified"


def test_a_name_of_a_chip_and_of_a_system_is_told_apart_by_the_others() -> None:
    assert compare(["gb200-nvl72", "h200-sxm"]).part == "chips"
    assert compare(["gb200-nvl72", "h200-x8"]).part == "systems"
    assert compare(["systems/gb200-nvl72", "gb200-x4"]).part == "systems"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["h200-sxm"], "nothing to compare with; got 'h200-sxm'"),
        (["h200-x8", "gpt-oss-120b"], "not of one kind; got 'h200-x8 gpt-oss-120b'; allowed: all chips"),
        (["chips/h200-sxm", "systems/h200-x8"], "not of one kind"),
        (["h200-x8", "h200-x9"], "unknown system; got 'h200-x9'; did you mean 'h200-x"),
        (["llama-3.1-8b", "llama-3.1-9b"], "unknown model; got 'llama-3.1-9b'; did you mean 'llama-3.1-8b'"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(names: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        compare(names)
    run = CliRunner().invoke(catalog, ["compare", *names])
    assert run.exit_code == 2 and run.stderr.count("\n") == 1 and run.stdout == ""


@pytest.mark.parametrize(
    "names",
    [["h100-sxm", "wse3"], ["cs3", "h200-x8", "mi300x-x8", "trn2-x16", "groq-v1-rack"], ["gpt-oss-120b", "llama-2-7b"]],
)
def test_tables_fit_the_page_and_json_names_its_figures(names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "compared.json"
    run = CliRunner().invoke(catalog, ["compare", *names, "--json", str(path)])
    assert run.exit_code == 0, run.output
    assert max(map(len, run.stdout.splitlines())) <= 100 and "\u2026" not in run.stdout
    found = json.loads(path.read_text())
    assert found["ids"] == names and found["figures"] and set(found["rows"][0]) == {
        "name", "unit", "values", "kinds", "ratios", "derived"
    }  # fmt: skip
    both = CliRunner().invoke(catalog, ["compare", *names, "--json", "-"])
    assert json.loads(both.stdout) == found and both.stderr == run.stdout
