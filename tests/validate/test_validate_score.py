"""Scores, decisions, pages."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from infermix.validate.pages import slug, write_pages
from infermix.validate.predict import Predicted, predict_row
from infermix.validate.regret import regret
from infermix.validate.report import record, validation
from infermix.validate.score import cells_of, group_of, score
from tests.validate.rows_for import row


def predicted(value: float, measured: float = 10.0, **changes: object) -> Predicted:
    return Predicted(row=row(value=measured, **changes), value=value, low=value / 1.2, high=value * 1.2)


def test_each_cell_counts_once_however_many_rows_it_has() -> None:
    many = [predicted(10.0) for _ in range(100)]
    few = [predicted(20.0, model="Llama-3.1-8B"), predicted(40.0, model="Qwen3-32B")]
    told = score([*many, *few])
    assert told.cells == 3
    assert told.median_abs_log_error == pytest.approx(math.log(2))
    assert told.inside == pytest.approx(100 / 102)


def test_bias_has_a_sign() -> None:
    (cell,) = cells_of([predicted(20.0), predicted(20.0), predicted(5.0)])
    assert cell.bias == pytest.approx(math.log(2)) and cell.median_abs_log_error == pytest.approx(math.log(2))


def test_quality_c_counts_by_its_interval_only() -> None:
    told = score([predicted(20.0, quality="C"), predicted(10.0, quality="C"), predicted(10.0)])
    assert told.scored == 1 and told.median_abs_log_error == 0
    assert told.inside_c == pytest.approx(0.5)


def test_groups() -> None:
    assert [group_of(c) for c in ("H100-SXM", "MI300X", "WSE-3", "Gaudi2")] == [
        "nvidia",
        "other_hbm",
        "sram",
        "other_hbm",
    ]


def test_decisions_between_two_chips() -> None:
    """H100 twice as fast as MI300X in truth; predicted the other way round."""
    right = [predicted(10.0), predicted(20.0, 20.0, chip="MI300X")]
    wrong = [predicted(20.0), predicted(10.0, 20.0, chip="MI300X")]
    assert regret(right).right == 1.0 and regret(right).median_cost_regret == 0.0
    assert regret(wrong).right == 0.0 and regret(wrong).pairs_of_chips == 1


def test_pairs_that_are_nearly_equal_are_no_decision() -> None:
    assert regret([predicted(10.0), predicted(9.0, 10.5, chip="MI300X")]).pairs == 0


def test_a_validation_tells_rows_and_reasons(tmp_path: Path) -> None:
    found = [predicted(12.0), Predicted(row=row(id="x"), reason="no such chip"), predicted(10.0, quality="D")]
    told = validation(found)
    assert told.overall.n == 2 and told.not_covered == {"no such chip": 1}
    plain = record(told)
    assert [r["id"] for r in plain["rows"]] == ["r1", "x"] and set(plain["groups"]) == {"nvidia", "other_hbm", "sram"}
    names = {p.name for p in write_pages(told, tmp_path)}
    assert names == {"README.md", "made-up.md", "tpot.svg", "ttft.svg", "throughput.svg"}
    assert "no such chip" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_slugs_are_plain() -> None:
    assert slug("vLLM blog") == "vllm-blog" and slug("") == "unnamed"


def test_a_row_whose_clients_do_not_fit_says_so() -> None:
    """Predicted to queue for memory, measured not to: what the row says of its chips or clients cannot be."""
    two = predict_row(row(id="x", chip="B200-SXM", model="Qwen3-32B", num_chips=2, tp=2, weight_dtype="nvfp4",
                          framework="trtllm 1.3.0", batch_or_concurrency="416", input_len=15_000.0, output_len=500.0,
                          metric="ttft_ms", value=720.0))  # fmt: skip
    (worst,) = validation([two]).worst
    assert "times the memory" in worst.why
