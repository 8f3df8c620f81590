"""How ready pairs of chips are: vendors that exist, sources that are named, unknown pairs hypothetical."""

from __future__ import annotations

import pytest

from infermix.catalog.load import catalog
from infermix.perf.pairs import KNOWN, UNKNOWN, readiness
from tests.perf.deployments import deploy


def test_every_claim_names_vendors_of_the_catalogue_and_its_source() -> None:
    vendors = {chip.vendor for chip in catalog().chips.values()}
    for (prefill, decode), pair in KNOWN.items():
        assert {prefill, decode} <= vendors and pair.source.startswith("https://")
        assert pair.readiness != "shipping" or prefill == decode


@pytest.mark.parametrize(
    ("prefill", "decode", "told"),
    [
        ("h100-x8", "b200-x8", "shipping"),
        ("mi300x-x8", "mi300x-x8", "shipping"),
        ("h100-x8", "mi300x-x8", "hypothetical"),
        ("trn2-x16", "h100-x8", "demonstrated"),
        ("h100-x8", "trn2-x16", "hypothetical"),
    ],
)
def test_order_matters(prefill: str, decode: str, told: str) -> None:
    a, b = (deploy(name, "llama-3.1-8b", tp=8) for name in (prefill, decode))
    assert readiness(a, b).readiness == told


def test_what_nobody_told_is_hypothetical() -> None:
    a, b = deploy("cs3", "llama-3.1-8b", stages=1), deploy("cs3", "llama-3.1-8b", stages=2)
    assert readiness(a, b) == UNKNOWN and UNKNOWN.readiness == "hypothetical"
