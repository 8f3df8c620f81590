"""A prompt's KV cache on its way: its size from the model's shape, its time from the slower network."""

from __future__ import annotations

import msgspec
import pytest

from infermix.errors import InputError, NoAnswer
from infermix.perf.transfer import kv_transfer
from tests.perf.deployments import deploy, with_chip


def test_size_and_time_by_hand() -> None:
    """80 layers x 8 heads x 128 x keys and values x 2 bytes, over four network cards of 50 GB/s at 80 %."""
    a, b = deploy("h200-x8", "llama-3.3-70b", tp=4), deploy("b200-x8", "llama-3.3-70b", tp=8)
    found = kv_transfer(a, b, 10_000)
    assert found.bytes == 10_000 * 80 * 8 * 128 * 2 * 2
    assert a.chip.scaleout_bytes_per_s is not None
    rate = 4 * a.chip.scaleout_bytes_per_s.value * a.efficiency.figures["internode_bytes"].value
    assert (found.bytes_per_s, found.slower) == (pytest.approx(rate), "h200-x8")
    assert found.seconds == pytest.approx(found.bytes / rate)


def test_it_grows_with_the_prompt_and_shrinks_with_the_dtype() -> None:
    a, b = deploy("h200-x8", "llama-3.3-70b", tp=8), deploy("b200-x8", "llama-3.3-70b", tp=8)
    once, twice = kv_transfer(a, b, 1000), kv_transfer(a, b, 2000)
    assert twice.bytes == 2 * once.bytes and twice.seconds == pytest.approx(2 * once.seconds)
    assert kv_transfer(a, msgspec.structs.replace(b, kv="fp8"), 1000).bytes == once.bytes / 2


def test_windows_and_states_travel_once() -> None:
    for model in ("gpt-oss-120b", "qwen3-next-80b-a3b"):
        a, b = deploy("h200-x8", model, tp=8), deploy("b200-x8", model, tp=8)
        one, two, three = (kv_transfer(a, b, n).bytes for n in (10_000, 20_000, 30_000))
        assert three - two == two - one > 0 and one > two - one, "something does not grow with the prompt"


def test_wafers_send_over_their_own_links() -> None:
    wafer, gpu = deploy("cs3", "llama-3.3-70b", stages=4), deploy("gb200-nvl72", "llama-3.3-70b", tp=64)
    rate = wafer.efficiency.figures["offchip_bytes_per_s"].value
    assert kv_transfer(gpu, wafer, 1000).bytes_per_s == min(4 * rate, kv_transfer(gpu, gpu, 1000).bytes_per_s)
    assert kv_transfer(gpu, wafer, 1000).slower == "cs3"


def test_other_models_and_unknown_networks_are_refused() -> None:
    a, b = deploy("h200-x8", "llama-3.3-70b", tp=8), deploy("h100-x8", "llama-3.1-70b", tp=8)
    with pytest.raises(InputError, match="different models"):
        kv_transfer(a, b, 1000)
    with pytest.raises(NoAnswer, match="scaleout_bytes_per_s"):
        kv_transfer(with_chip(a, scaleout_bytes_per_s=None), a, 1000)
