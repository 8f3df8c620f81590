"""Stacks: what engines make of a family."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.catalog.records import Figure, Stack
from infermix.errors import InputError
from infermix.fleet import PoolRow, make_deployment
from infermix.perf.breakdown import step_parts_s
from infermix.perf.roofline import decode_s, per_seq_s
from infermix.perf.stack import TRAFFIC, WORK, find_stack, request_s, stack_for, stacked, with_stack
from infermix.perf.table import compile_table
from infermix.validate.interval import FEW_CLIENTS, interval_of
from infermix.validate.meaning import case_of
from tests.perf.deployments import deploy
from tests.validate.rows_for import row

ONE = np.ones(1)
tuned = catalog().efficiencies["hopper"]


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
    for worse in (
        made(work=0.5),
        made(traffic=0.5),
        made(launches=3.0),
        made(host_s=1e-3),
        made(seq_s=1e-5),
        made(eager_layer_s=1e-4),
    ):
        table = compile_table(with_stack(d, worse))
        assert (table.decode_s >= base.decode_s - 1e-15).all() and (table.mixed_s >= base.mixed_s - 1e-15).all()
        assert table.per_seq_s >= base.per_seq_s and table.kv_s >= base.kv_s


def test_launches_run_ahead_of_the_chip() -> None:
    """A step takes nearly the longer of its work and its launches: two chips hide them, eight wait for them."""
    host = 300e-6 * 80
    wide, narrow = (with_stack(deploy("h100-x8", "llama-2-70b", tp=tp), made(eager_layer_s=300e-6)) for tp in (8, 2))
    work = {d.tp: float(decode_s(msgspec.structs.replace(d, efficiency=tuned), ONE)[0]) for d in (wide, narrow)}
    step = {d.tp: float(decode_s(d, ONE)[0]) for d in (wide, narrow)}
    assert all(max(work[tp], host) <= step[tp] < work[tp] + host for tp in step)
    assert step[8] < 1.1 * host and step[2] > 1.3 * host
    for d in (wide, narrow):
        assert sum(step_parts_s(d, 1, 0).values()) == pytest.approx(step[d.tp] + per_seq_s(d))


def test_the_nearest_stack_is_taken() -> None:
    hopper, cdna = deploy("h100-x1", "llama-3.1-8b"), deploy("mi300x-x8", "llama-3.1-8b")
    assert (found := stack_for(catalog(), "vllm-2024", hopper)) is not None and found.id == "vllm-2024-hopper"
    assert (found := stack_for(catalog(), "vllm-2024", cdna)) is not None and found.id == "vllm-2024-mi300x"
    tpu = deploy("tpu-v6e-x8", "llama-3.1-8b")
    assert (found := stack_for(catalog(), "vllm", tpu)) is not None and found.id == "vllm" and not found.family
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


def test_a_chip_without_rows_has_a_wider_interval() -> None:
    """Families tell which chips their figures were fitted to."""
    known = case_of(row(chip="H100-SXM"))
    d = known.deployment
    assert d.chip.id in d.efficiency.chips
    others = msgspec.structs.replace(d.efficiency, chips=("h200-sxm",))
    new = msgspec.structs.replace(known, deployment=msgspec.structs.replace(d, efficiency=others))
    for metric in ("tpot_ms", "ttft_ms"):
        (low, high), (lower, higher) = interval_of(known, metric), interval_of(new, metric)
        assert lower < low and higher > high
        assert interval_of(known, metric, new_chip=True) == (lower, higher)


def test_prompts_have_an_interval_by_load_too() -> None:
    few, many = (case_of(row(batch_or_concurrency=str(n))) for n in (FEW_CLIENTS, FEW_CLIENTS + 1))
    ends = {n: Figure(1.0, "1", ("MEAS",), "derived", "2026-11-22", low=low, high=1.5) for n, low in
            {"speed_prompt": 0.5, "speed_prompt_few": 0.8, "speed_prompt_many": 0.4}.items()}  # fmt: skip
    split = msgspec.structs.replace(made(), figures=ends)
    assert [interval_of(case, "ttft_ms", split)[0] for case in (few, many)] == [0.8, 0.4]
    whole = msgspec.structs.replace(made(), figures={"speed_prompt": ends["speed_prompt"]})
    assert [interval_of(case, "ttft_ms", whole)[0] for case in (few, many)] == [0.5, 0.5]
