"""The check of the catalogue: a clean one has no fault, and every planted slip is told with its record and field."""

from __future__ import annotations

import csv
import datetime
import json
import re
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner

from infermix.catalog.check.excuses import EXCUSES
from infermix.catalog.check.report import Report
from infermix.catalog.check.run import DATED_RULES, RULES, check
from infermix.cli.catalog import catalog
from infermix.errors import InputError

DATA = Path(str(files("infermix.catalog"))) / "data"
TODAY = datetime.date(2026, 11, 30)
CHIPS = [
    *("h100-sxm", "h200-sxm", "h100-pcie", "b200-sxm", "b300-sxm", "gb200-nvl72", "gb300-nvl72", "l40s"),
    *("mi300x", "mi325x", "tpu-v5e", "trainium2", "wse3", "groq-lpu-v1", "rain-npu"),
]
MODELS = ["llama-3.1-8b", "llama-3.3-70b", "gpt-oss-120b", "deepseek-v3", "mixtral-8x7b"]


def copy_small(root: Path) -> Path:
    """A part of the packaged catalogue that hangs together."""
    for part, ids in (("chips", CHIPS), ("systems", CHIPS), ("models", MODELS)):
        (root / part).mkdir(parents=True)
        for id_ in ids:
            if (DATA / part / f"{id_}.toml").exists():
                shutil.copy(DATA / part / f"{id_}.toml", root / part)
    shutil.copytree(DATA / "efficiency", root / "efficiency")
    shutil.copy(DATA / "sources.toml", root)
    (root / "prices").mkdir()
    for file in sorted((DATA / "prices").glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            rows = list(reader)
        kept = {row["id"] for row in rows if row["chip"] in CHIPS or row["basis"] == "api"}
        with (root / "prices" / file.name).open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, reader.fieldnames or [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(row for row in rows if row["id"] in kept)
    return root


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_small(tmp_path_factory.mktemp("clean") / "data")


@pytest.fixture(scope="module")
def before(clean: Path) -> Report:
    return check(clean, today=TODAY)


def test_the_packaged_catalogue_has_no_fault() -> None:
    report = check()
    assert not report.faults, "\n".join(fault.line() for fault in report.faults)


def test_a_small_clean_catalogue_has_no_fault(before: Report) -> None:
    assert not before.faults, "\n".join(fault.line() for fault in before.faults)
    assert before.counts.records["chips"] == len(CHIPS) and before.figures == ()
    assert sum(before.counts.by_kind.values()) == sum(before.counts.by_age.values()) > 500
    assert sum(before.counts.by_part.values()) == sum(before.counts.by_kind.values())


CHIP, SYSTEM, MODEL, PRICES = "chips/{}.toml", "systems/{}.toml", "models/{}.toml", "prices/{}.csv"
H200, B200, WSE3 = (CHIP.format(id_) for id_ in ("h200-sxm", "b200-sxm", "wse3"))
LLAMA, OSS = (MODEL.format(id_) for id_ in ("llama-3.1-8b", "gpt-oss-120b"))
RENTAL, API, CAPITAL = (PRICES.format(id_) for id_ in ("rental", "api", "capital"))


def value(field: str, now: str, unit: str | None = None, was: str = r"[\d.]+") -> tuple[str, str]:
    """A pattern for a figure's line, and its replacement by another value or unit."""
    line = rf'^{field} = {{ value = {was}, unit = "([^"]+)"'
    return line, f'{field} = {{ value = {now}, unit = "{unit or chr(92) + "1"}"'


SLIPS = [  # what, file, (pattern, replacement), record, field, rule
    ("parameters", LLAMA, value("params", "8.83"), "models/llama-3.1-8b", "params", "counts_follow_from_shape"),
    ("active parameters", OSS, value("active_params", "5.7"), "models/gpt-oss-120b", "active_params",
     "counts_follow_from_shape"),
    ("KV elements", MODEL.format("deepseek-v3"), value("kv_elements_per_token", "35000"), "models/deepseek-v3",
     "kv_elements_per_token", "counts_follow_from_shape"),
    ("one layer more", LLAMA, (r"^layers = 32", "layers = 33"), "models/llama-3.1-8b", "params",
     "counts_follow_from_shape"),
    ("claim of another model", OSS, value("params_claimed", "20.9"), "models/gpt-oss-120b", "params_claimed",
     "claims_agree_with_shape"),
    ("heads not divisible", LLAMA, (r"^kv_heads = 8", "kv_heads = 7"), "models/llama-3.1-8b", "kv_heads",
     "shapes_are_whole"),
    ("more experts chosen than there are", OSS, (r"^active_experts = 4", "active_experts = 400"),
     "models/gpt-oss-120b", "active_experts", "shapes_are_whole"),
    ("a window without layers", OSS, (r"^sliding_layers = 18\n", ""), "models/gpt-oss-120b", "sliding_window",
     "shapes_are_whole"),
    ("half of latent attention", MODEL.format("deepseek-v3"), (r"^mla_v_head = 128\n", ""), "models/deepseek-v3",
     "mla_kv_lora", "shapes_are_whole"),
    ("TB/s as GB/s", H200, value("mem_bytes_per_s", "4.8", "GB/s"), "chips/h200-sxm", "mem_bytes_per_s",
     "magnitudes_are_plausible"),
    ("W as kW", H200, value("tdp_w", "700", "kW"), "chips/h200-sxm", "tdp_w", "magnitudes_are_plausible"),
    ("GB as MB", H200, value("mem_bytes", "141", "MB"), "chips/h200-sxm", "mem_bytes", "magnitudes_are_plausible"),
    ("SRAM bandwidth in GB/s", WSE3, value("sram_bytes_per_s", "21000", "GB/s"), "chips/wse3", "sram_bytes_per_s",
     "magnitudes_are_plausible"),
    ("an efficiency's time in ms", "efficiency/hopper.toml", value("attention_floor_s", "12", "s"), "efficiency/hopper",
     "attention_floor_s", "magnitudes_are_plausible"),
    ("a share above 1", "efficiency/hopper.toml", value("gemm_flop_fp4", "1.6"), "efficiency/hopper", "gemm_flop_fp4",
     "magnitudes_are_plausible"),
    ("a unit of another kind", H200, value("mem_bytes", "141", "TB/s"), "chips/h200-sxm", "mem_bytes", "well_formed"),
    ("sparse bf16", H200, value("bf16_flop_per_s", "1979"), "chips/h200-sxm", "bf16_flop_per_s",
     "sisters_on_one_die_agree"),
    ("sparse bf16 on the die", H200, value("bf16_flop_per_s", "1979"), "chips/h200-sxm", "bf16_flop_per_s",
     "peaks_fit_on_the_die"),
    ("sparse fp8", B200, value("fp8_flop_per_s", "9000"), "chips/b200-sxm", "fp8_flop_per_s",
     "narrow_rates_are_small_multiples"),
    ("sparse fp8 of L40S", CHIP.format("l40s"), value("fp8_flop_per_s", "1466"), "chips/l40s", "fp8_flop_per_s",
     "narrow_rates_are_small_multiples"),
    ("a wafer's sparse headline", WSE3, value("bf16_flop_per_s", "125000"), "chips/wse3", "bf16_flop_per_s",
     "peaks_fit_on_the_die"),
    ("an excused ratio that changed", CHIP.format("b300-sxm"), value("fp4_flop_per_s", "28000"), "chips/b300-sxm",
     "fp4_flop_per_s", "narrow_rates_are_small_multiples"),
    ("both directions of NVLink4", H200, value("link_bytes_per_s", "900"), "chips/h200-sxm", "link_bytes_per_s",
     "links_carry_what_their_name_says"),
    ("both directions of NVLink5", B200, value("link_bytes_per_s", "1800"), "chips/b200-sxm", "link_bytes_per_s",
     "links_carry_what_their_name_says"),
    ("both directions of ICI", CHIP.format("tpu-v5e"), value("link_bytes_per_s", "400"), "chips/tpu-v5e",
     "link_bytes_per_s", "links_carry_what_their_name_says"),
    ("both directions of Infinity Fabric", CHIP.format("mi300x"), value("link_bytes_per_s", "896"), "chips/mi300x",
     "link_bytes_per_s", "infinity_fabric_is_made_of_links"),
    ("Gbit/s of HBM as GB/s", H200, value("mem_bytes_per_s", "38.4"), "chips/h200-sxm", "mem_bytes_per_s",
     "parts_explain_capacity_and_bandwidth"),
    ("twice the bandwidth", CHIP.format("mi300x"), value("mem_bytes_per_s", "10.6"), "chips/mi300x", "mem_bytes_per_s",
     "parts_explain_capacity_and_bandwidth"),
    ("Gbit/s of a network as GB/s", H200, value("scaleout_bytes_per_s", "400", "GB/s"), "chips/h200-sxm",
     "scaleout_bytes_per_s", "adapters_have_their_rates"),
    ("Mbit of SRAM as MB", WSE3, value("sram_bytes", "352000"), "chips/wse3", "sram_bytes", "sram_fits_on_the_die"),
    ("transistors of ten chips", H200, value("transistors", "800"), "chips/h200-sxm", "transistors",
     "transistors_fit_on_the_die"),
    ("a die beyond the reticle", H200, value("die_area_m2", "2400"), "chips/h200-sxm", "die_area_m2",
     "dies_fit_the_reticle"),
    ("a system below its chips", H200, value("vendor_system_power_w", "1.02"), "chips/h200-sxm",
     "vendor_system_power_w", "systems_draw_more_than_their_chips"),
    ("a monthly rent", CHIP.format("h100-sxm"), value("rent_usd_per_hour", "59"), "chips/h100-sxm",
     "rent_usd_per_hour", "rents_repay_the_price"),
    ("low above value", SYSTEM.format("wse3"), (r"low = 1000000", "low = 1900000"), "systems/cs3", "capital_usd",
     "well_formed"),
    ("low above value in a family", "efficiency/hopper.toml", (r"^(alltoall_start_s .*)low = 12\.0", r"\1low = 12.5"),
     "efficiency/hopper", "alltoall_start_s", "well_formed"),
    ("no source", H200, (r'^(tdp_w .*)source = \["[^]]*\]', r"\1source = []"), "chips/h200-sxm", "tdp_w",
     "well_formed"),
    ("an unknown source", H200, (r'^(tdp_w .*)source = \["[^]]*\]', r'\1source = ["S999"]'), "chips/h200-sxm", "tdp_w",
     "sources_exist"),
    ("a vendor's word that nobody can read", WSE3, (r'^(tdp_w .*)source = \["[^]]*\]', r'\1source = ["M"]'),
     "chips/wse3", "tdp_w", "kinds_rest_on_their_sources"),
    ("derived from nothing", WSE3, (r'^(bf16_flop_per_s .*), note = "[^"]*"', r"\1"), "chips/wse3", "bf16_flop_per_s",
     "derivations_can_be_followed"),
    ("read tomorrow", H200, (r'^(tdp_w .*)read = "[^"]*"', r'\1read = "2027-02-01"'), "chips/h200-sxm", "tdp_w",
     "read_dates_are_past"),
    ("read on no day", H200, (r'^(tdp_w .*)read = "[^"]*"', r'\1read = "2026-13-01"'), "chips/h200-sxm", "tdp_w",
     "read_dates_are_past"),
    ("a model read on no day", LLAMA, (r'^read = "[^"]*"', 'read = "lately"'), "models/llama-3.1-8b", "read",
     "read_dates_are_past"),
    ("a year that lies ahead", H200, (r'^year = "2024"', 'year = "2029"'), "chips/h200-sxm", "year",
     "years_are_plausible"),
    ("rent called capital", RENTAL, (r"^(rent-nebius-h200-on-demand,.*),rent,", r"\1,capital,"),
     "prices/rent-nebius-h200-on-demand", "usd_per_hour", "offers_have_the_figures_of_their_basis"),
    ("an operator's cost called rent", "prices/operator_cost.csv", (r",operator_cost,", ",rent,"), "systems/cs3",
     "operator_cost_usd_per_hour", "systems_follow_from_chips"),
    ("power of chips called that of systems", SYSTEM.format("tpu-v5e"), (r'power_basis = "chip"', 'power_basis = "it"'),
     "systems/tpu-v5e-x1", "power_basis", "power_says_what_it_includes"),
    ("a power without its basis", SYSTEM.format("h200-sxm"), (r'^power_basis = "it"\n', ""), "systems/h200-x8",
     "power_basis", "power_states_its_basis"),
    ("power that does not follow", SYSTEM.format("h200-sxm"), value("power_w", "12000", was="10200"),
     "systems/h200-x8", "power_w", "systems_follow_from_chips"),
    ("rent that does not follow", SYSTEM.format("h200-sxm"), value("rent_usd_per_hour", "29", was="28"),
     "systems/h200-x8", "rent_usd_per_hour", "systems_follow_from_chips"),
    ("a multiple that does not follow", API,
     (r"^(api-openai-gpt-5.5-fast,price_multiple),2.5,", r"\1,5,"), "prices/api-openai-gpt-5.5-fast", "price_multiple",
     "price_multiples_follow"),
    ("the ground of another chip", SYSTEM.format("h200-sxm"),
     (r"chips/h200-sxm/vendor_system_power_w", "chips/b200-sxm/vendor_system_power_w"), "systems/h200-x8", "power_w",
     "systems_follow_from_chips"),
    ("a ground that is not there", SYSTEM.format("h200-sxm"),
     (r"prices/rent-nebius-h200-on-demand/usd_per_hour", "prices/rent-nebius-h200/usd_per_hour"), "systems/h200-x8",
     "rent_usd_per_hour", "references_resolve"),
    ("a figure of itself", H200, (r'^(hop_s .*)note = "[^"]*"', r'\1of = ["chips/h200-sxm/hop_s"]'), "chips/h200-sxm",
     "hop_s", "no_figure_is_its_own_ground"),
    ("columns swapped", API, (r"^(api-openai-gpt-5.5-fast,input_usd_per_mtok),12.5,", r"\1,120,"),
     "prices/api-openai-gpt-5.5-fast", "output_usd_per_mtok", "output_costs_no_less_than_input"),
    ("a rack's price on one chip", CAPITAL, (r",capital,,DGX B200,,,b200-sxm,8,", ",capital,,DGX B200,,,b200-sxm,1,"),
     "prices/capital-dgx-b200", "capital_usd", "magnitudes_are_plausible"),
    ("an alias that is taken", CHIP.format("h100-sxm"), (r"^aliases = \[", 'aliases = ["H200_SXM", '),
     "chips/h200-sxm", "id", "spellings_lead_to_one_record"),
    ("a name that is taken", CHIP.format("h100-sxm"), (r"^name = .*", 'name = "H200 SXM"'), "chips/h200-sxm", "id",
     "spellings_lead_to_one_record"),
    ("an unknown chip", SYSTEM.format("h200-sxm"), (r'^chip = "h200-sxm"', 'chip = "h300-sxm"'), "systems/h200-x8",
     "chip", "references_lead_somewhere"),
    ("an unknown family", H200, (r'^efficiency = "hopper"', 'efficiency = "hoper"'), "chips/h200-sxm", "efficiency",
     "references_lead_somewhere"),
    ("a figure missing in a family", "efficiency/hopper.toml", (r"^host_s = .*\n", ""), "efficiency/hopper", "host_s",
     "families_are_whole"),
    ("a needless excuse for no speed", H200, (r'^year = "2024"', 'year = "2024"\nno_speed = "not yet"'),
     "chips/h200-sxm", "no_speed", "no_speed_says_why"),
    ("no word on a missing speed", CHIP.format("rain-npu"), (r"^no_speed = .*\n", ""), "chips/rain-npu", "no_speed",
     "no_speed_says_why"),
    ("a file under another name", H200, (r'^id = "h200-sxm"', 'id = "h200"'), "chips/h200-sxm", "id", "well_formed"),
    ("an unknown key", H200, (r"^mem_bytes_per_s", "mem_bytes_per_sec"), "chips/h200-sxm", "mem_bytes_per_sec",
     "well_formed"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "edit", "record", "field", "rule"), [s[1:] for s in SLIPS], ids=[s[0] for s in SLIPS])
def test_a_planted_slip_is_caught(
    clean: Path, before: Report, tmp_path: Path, file: str, edit: tuple[str, str], record: str, field: str, rule: str
) -> None:
    root = tmp_path / "data"
    shutil.copytree(clean, root)
    slipped, count = re.subn(*edit, (root / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert count, f"{edit[0]} is not in {file}"
    (root / file).write_text(slipped, encoding="utf-8")
    report = check(root, today=TODAY)
    new = [fault for fault in report.faults if fault not in before.faults]
    found = [fault for fault in new if (fault.record, fault.field, fault.rule) == (record, field, rule)]
    assert found, "\n".join(fault.line() for fault in new) or "nothing was found"
    line = found[0].line()
    assert "\n" not in line and record in line and field in line
    assert found[0].file and (root / found[0].file).is_file()
    if f"{record}/{field}" in found[0].figures:
        assert f"{record}/{field}" in report.figures


def test_there_are_slips_of_many_kinds() -> None:
    assert len(SLIPS) >= 30 and len({slip[5] for slip in SLIPS}) >= 25


def test_every_rule_says_its_reason_and_none_stands_twice() -> None:
    names = [rule.__name__ for rule in RULES] + [rule.__name__ for rule in DATED_RULES]
    report = check()
    assert len(names) == len(set(names)) and set(report.rules) == set(names)
    assert all(len(reason) > 40 for reason in report.rules.values())


def test_exceptions_have_reasons_and_none_is_needless() -> None:
    report = check()
    assert all(len(excuse.reason) > 20 and excuse.rule in report.rules for excuse in EXCUSES)
    assert not [warning.line() for warning in report.warnings if warning.rule in report.rules]
    assert {excused.figure for excused in report.excused} <= {excuse.figure for excuse in EXCUSES}


def test_malformed_files_are_told_one_by_one_and_hide_nothing(clean: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(clean, root)
    (root / H200).write_text("id = [", encoding="utf-8")
    (root / LLAMA).write_text('id = "llama-3.1-8b"\n', encoding="utf-8")
    (root / "systems" / "broken.toml").write_text("[[systems]]\n", encoding="utf-8")
    (root / "prices" / "short.csv").write_text("id,figure\nx,usd_per_hour\n", encoding="utf-8")
    (root / "chips" / "latin.toml").write_bytes(b"\xff\xfe")
    (root / "sources.toml").write_text(
        (root / "sources.toml")
        .read_text(encoding="utf-8")
        .replace("[S2]", '[S2]\nbook = "x"')
        .replace('["S2"]', '["S2"]\nbook = "x"'),
        encoding="utf-8",
    )
    report = check(root, today=TODAY)
    by_file = {fault.file for fault in report.faults if fault.rule == "well_formed"}
    want = {H200, LLAMA, "systems/broken.toml", "prices/short.csv", "chips/latin.toml", "sources.toml"}
    assert by_file == want
    assert not [fault for fault in report.faults if fault.rule == "references_lead_somewhere"]


def test_a_price_row_that_is_no_number_names_line_and_figure(clean: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(clean, root)
    text = (root / RENTAL).read_text(encoding="utf-8")
    (root / RENTAL).write_text(text.replace("on-demand,usd_per_hour,3.5,", "on-demand,usd_per_hour,3;5,", 1))
    (fault,) = [fault for fault in check(root, today=TODAY).faults if fault.rule == "well_formed"]
    assert (fault.record, fault.field, fault.value) == ("prices/rent-nebius-h200-on-demand", "usd_per_hour", "3;5")


def test_old_prices_and_unused_sources_are_warnings(clean: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(clean, root)
    with (root / "sources.toml").open("a", encoding="utf-8") as out:
        out.write('\n[IDLE]\ntext = "nothing rests on it"\n')
    report = check(root, today=datetime.date(2028, 6, 1))
    assert {"old_prices", "unused_sources"} <= {warning.rule for warning in report.warnings}
    assert any(warning.record == "sources/IDLE" for warning in report.warnings)
    assert report.counts.by_age["over 12 months"] == sum(report.counts.by_age.values())


def test_the_command_tells_faults_in_lines_and_exits_1(clean: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(clean, root)
    run = CliRunner().invoke(catalog, ["check", "--root", str(root)])
    assert run.exit_code == 0, run.output
    assert "no faults" in run.stdout and "h200-sxm" not in run.stdout
    text = (root / H200).read_text(encoding="utf-8")
    (root / H200).write_text(text.replace('value = 450, unit = "GB/s"', 'value = 900, unit = "GB/s"'))
    run = CliRunner().invoke(catalog, ["check", "--root", str(root), "--json", "-"])
    assert run.exit_code == 1
    told = [line for line in run.stderr.splitlines() if line.startswith("chips/h200-sxm.toml: ")]
    assert len(told) == 1 and "900 GB/s" in told[0] and "NVLink4 carries 450 GB/s each way" in told[0]
    answer = json.loads(run.stdout)
    assert answer["figures"] == ["chips/h200-sxm/link_bytes_per_s"] and len(answer["faults"]) == 1
    assert set(answer["faults"][0]) == {
        "rule", "file", "record", "field", "what", "value", "allowed", "mend", "figures"
    }  # fmt: skip
    assert {"by_kind", "by_age", "by_part"} <= set(answer["counts"]) and answer["rules"] and "warnings" in answer


def test_the_table_fits_the_page(clean: Path) -> None:
    run = CliRunner().invoke(catalog, ["check", "--root", str(clean)])
    table = [line for line in run.stdout.splitlines() if not line.startswith("warning: ")]
    assert max(map(len, table)) <= 100
    for word in ("measured", "vendor", "derived", "press", "unverified", "< 3 mo", "chips", "systems"):
        assert word in run.stdout


def test_a_folder_without_a_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no catalogue"):
        check(tmp_path)
    run = CliRunner().invoke(catalog, ["check", "--root", str(tmp_path / "no")])
    assert run.exit_code == 2 and run.stderr.count("\n") == 1
