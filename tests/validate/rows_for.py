"""Rows of measurements for tests."""

from __future__ import annotations

from typing import Any

from infermix.validate.rows import Row

BASE: dict[str, Any] = {
    "id": "r1", "source": "made up", "chip": "H100-SXM", "num_chips": 8, "model": "Llama-3.1-70B",
    "weight_dtype": "fp8",
    "framework": "vllm 0.19.0", "tp": 8, "pp": 1, "ep": 1, "dp": 1, "scenario": "server-closed-loop",
    "batch_or_concurrency": "16", "input_len": 1024.0, "output_len": 256.0, "metric": "tpot_ms", "value": 10.0,
    "date": "2026-01", "quality": "A", "spec_decode": "no",
}  # fmt: skip


def row(**changes: Any) -> Row:
    """A plausible row with changes."""
    return Row(**{**BASE, **changes})
