"""Stacks: what engines make of a family."""

from __future__ import annotations

import msgspec
import pytest

from infermix.catalog.load import catalog
from infermix.catalog.records import Figure, Stack
from infermix.errors import InputError
from infermix.fleet import PoolRow, make_deployment
from infermix.perf.stack import TRAFFIC, WORK, find_stack, request_s, stack_for, stacked, with_stack
from infermix.perf.table import compile_table
from infermix.validate.interval import FEW_CLIENTS, interval_of
from infermix.validate.meaning import case_of
from tests.perf.deployments import deploy
from tests.validate.rows_for import row


def made(**values: float) -> Stack:
    figures = {
        n: Figure(v, "s" if n.endswith("_s") else "1", ("MEAS",), "derived", "2026-11-22") for n, v in values.items()
    }
    return Stack(id="x", name="x", engine="x", figures=figures)


def test_a_stack_without_figures_changes_nothing() -> None:
    d = deploy("h100-x1", "llama-3.1-8b")
    assert compile_table(with_stack(d, made())).hash == compile_table(d).hash
    assert with_stack(d, None) is d


def test_no_share_exceeds_its_peak() -> None:
    for family in catalog().efficiencies.values():
        if family.machine == "hbm":
            figures = stacked(family, made(work=1.9, traffic=1.9)).figures
            assert max(figures[n].value for n in (*WORK, *TRAFFIC)) <= 1.0


def test_worse_stacks_are_nowhere_faster() -> None:
    d = deploy("h100-x1", "llama-3.1-8b")
    base = compile_table(d)
    for worse in (made(work=0.5), made(traffic=0.5), made(launches=3.0), made(host_s=1e-3), made(seq_s=1e-5)):
        table = compile_table(with_stack(d, worse))
        assert (table.decode_s >= base.decode_s - 1e-15).all() and (table.mixed_s >= base.mixed_s - 1e-15).all()
        assert table.per_seq_s >= base.per_seq_s and table.kv_s >= base.kv_s


def test_the_nearest_stack_is_taken() -> None:
    hopper, cdna = deploy("h100-x1", "llama-3.1-8b"), deploy("mi300x-x8", "llama-3.1-8b")
    assert (found := stack_for(catalog(), "vllm-2024", hopper)) is not None and found.id == "vllm-2024-hopper"
    assert (found := stack_for(catalog(), "vllm-2024", cdna)) is not None and found.id == "vllm-2024-mi300x"
    assert stack_for(catalog(), "other", hopper) is None and find_stack(catalog(), "tuned", hopper) is None


def test_unknown_stacks_are_told_with_a_near_miss() -> None:
    with pytest.raises(InputError, match="unknown stack"):
        find_stack(catalog(), "vlm-2024", deploy("h100-x1", "llama-3.1-8b"))


def test_a_pool_may_name_its_stack() -> None:
    tuned = make_deployment(catalog(), PoolRow(system="h100-x1", instances=1), "llama-3.1-8b", "here")
    old = make_deployment(catalog(), PoolRow(system="h100-x1", instances=1, stack="vllm-2023"), "llama-3.1-8b", "here")
    assert compile_table(old).decode_s[1] > compile_table(tuned).decode_s[1]
    with pytest.raises(InputError, match="unknown stack"):
        make_deployment(catalog(), PoolRow(system="h100-x1", instances=1, stack="nothing"), "llama-3.1-8b", "here")


def test_clients_share_the_front_end() -> None:
    assert request_s(made(request_s=0.02, client_s=0.001), 30) == pytest.approx(0.05)
    assert request_s(None, 30) == 0.0


def test_many_sequences_have_an_interval_of_their_own() -> None:
    """As wide as their rows are off; a stack without such rows has one for all, and not that of its family."""
    few, many = (case_of(row(batch_or_concurrency=str(n))) for n in (FEW_CLIENTS, FEW_CLIENTS + 1))

    def ends(low: float) -> Figure:
        return Figure(1.0, "1", ("MEAS",), "derived", "2026-11-22", low=low, high=1.5)

    whole = msgspec.structs.replace(made(), figures={"speed": ends(0.5)})
    split = msgspec.structs.replace(
        made(), figures={"speed": ends(0.5), "speed_few": ends(0.8), "speed_many": ends(0.4)}
    )
    assert "speed_many" in few.deployment.efficiency.figures
    assert [interval_of(case, "tpot_ms", whole)[0] for case in (few, many)] == [0.5, 0.5]
    assert [interval_of(case, "tpot_ms", split)[0] for case in (few, many)] == [0.8, 0.4]
