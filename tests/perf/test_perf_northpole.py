"""The pipeline equations against the only SRAM machine whose times were published with its users: IBM's NorthPole.

Published: a 3B model on 16 cards, 28 users, 28,356 tokens/s at less than 1 ms a token; Granite-3.3-8B, 28 users at
2.8 ms, three instances on 288 cards with about 30,000 tokens/s. Weights of 4 bits, KV cache of 8.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from infermix.perf import dataflow
from infermix.perf.deployment import Deployment
from tests.perf.deployments import deploy

USERS = 28
STAGE_S = 1 / 28_356
"""Of the 3B model: with the line full, a token leaves each time a stage is done."""
MEASURED_8B_S = 2.8e-3


def granite() -> Deployment:
    """Granite-3.3-8B (its publisher's sizes) on 96 cards, a third of the rack."""
    d = deploy("northpole-x16", "llama-3.1-8b", stages=6, weights="int4", kv="int8", max_num_seqs=USERS)
    sizes = {"layers": 40, "dense_layers": 40, "ffn": 12_800, "vocab": 49_159, "tied_embeddings": True}
    return msgspec.structs.replace(d, model=msgspec.structs.replace(d.model, **sizes))


def sync_of_3b_s(d: Deployment) -> float:
    """Of a stage, by hand: what the published stage takes beyond reading 4-bit weights and arithmetic."""
    assert d.chip.sram_bytes_per_s
    rate = d.chips and dataflow.compute(d) / d.chips
    return STAGE_S - 3e9 / 2 / 16 / d.chip.sram_bytes_per_s.value - 2 * 3e9 / 16 / rate


def with_layer_s(d: Deployment, seconds: float) -> Deployment:
    """The deployment with another time of a layer."""
    figures = {
        **d.efficiency.figures,
        "layer_s": msgspec.structs.replace(d.efficiency.figures["layer_s"], value=seconds),
    }
    return msgspec.structs.replace(d, efficiency=msgspec.structs.replace(d.efficiency, figures=figures))


def token_s(d: Deployment, users: float) -> float:
    """Time of a token with so many users at 1,000 tokens of context."""
    return float(dataflow.decode_s(d, np.array([users]))[0]) + dataflow.kv_s(d) * users * 1000


def test_the_8b_model_follows_from_the_3b_model() -> None:
    """Nothing of the 8B model is fitted: its stages take what those of the 3B take beside weights and arithmetic."""
    d = with_layer_s(granite(), 2 * sync_of_3b_s(granite()))
    assert token_s(d, USERS) == pytest.approx(MEASURED_8B_S, rel=0.2)


def test_catalogue_figures_lie_between_both_models() -> None:
    """One figure for both: either is met within its interval."""
    d, figures = granite(), granite().efficiency.figures
    low, high = figures["speed"].low, figures["speed"].high
    assert low and high
    assert low <= token_s(d, USERS) / MEASURED_8B_S <= high
    assert figures["layer_s"].low == pytest.approx(2 * sync_of_3b_s(d), rel=0.01)


def test_users_wait_for_nobody_until_the_line_is_full() -> None:
    """28 users on 80 stages: three instances give the rack's 30,000 tokens/s, and one user is no faster than 28."""
    d = granite()
    assert dataflow.places(d) == 80
    alone, many = (float(t) for t in dataflow.decode_s(d, np.array([1.0, USERS])))
    assert alone == many
    assert 3 * USERS / token_s(with_layer_s(d, 59.1e-6), USERS) == pytest.approx(30_000, rel=0.05)


def test_a_full_line_gives_a_token_for_each_stage() -> None:
    """28 users on 28 stages (14 layers): 35.3 us a token for the machine, 0.99 ms for a user."""
    d = granite()
    short = msgspec.structs.replace(d, model=msgspec.structs.replace(d.model, layers=14, dense_layers=14))
    stage = dataflow.issue_interval_s(short)
    assert float(dataflow.decode_s(short, np.array([28.0]))[0]) == pytest.approx(28 * stage, rel=0.02)
    assert dataflow.decode_s(short, np.array([56.0]))[0] > 1.01 * 28 * stage
