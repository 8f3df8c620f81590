"""What would make a deployment faster: one change at a time, predicted again."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from infermix.catalog.records import Figure
from infermix.errors import InfermixError
from infermix.perf.deployment import BYTES_PER_KV, BYTES_PER_WEIGHT, Deployment, can_keep_kv, narrowest_bits
from infermix.perf.predict import Prediction, predict
from infermix.perf.specdec import Speculation


class Lever(msgspec.Struct, kw_only=True):
    """One change and what it would do; ratios of speed, above 1 is faster."""

    change: str
    kind: str
    """``setting`` (yours to choose today) or ``hardware`` (a better chip, link or software)."""
    decode: float
    """Speed of a user's tokens after the change over before."""
    prompt: float
    """Speed of an idle machine's first token after over before."""


def levers(
    deployment: Deployment,
    now: Prediction,
    *,
    batch: int,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int = 0,
) -> list[Lever]:
    """Changes that make tokens or first tokens at least 2 % faster, best first."""
    found = []
    for change, kind, other in (*_settings(deployment), *_hardware(deployment)):
        try:
            then = predict(
                other, batch=batch, input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached_tokens
            )
        except InfermixError:
            continue
        if then.fits:
            lever = Lever(change=change, kind=kind, decode=now.tpot_s / then.tpot_s, prompt=now.ttft_s / then.ttft_s)
            found.append(lever)
    able = [x for x in found if max(x.decode, x.prompt) >= 1.02]
    return sorted(able, key=lambda x: (-x.decode, -x.prompt, x.change))


def _settings(d: Deployment) -> Iterator[tuple[str, str, Deployment]]:
    """What can be chosen without another machine."""
    replace = msgspec.structs.replace
    if not d.is_pipeline:
        for tp in sorted({2 * d.tp, d.system.chips // (d.pp * d.dp)}):
            if tp > d.tp and d.model.heads % tp == 0 and tp * d.pp * d.dp <= d.system.chips:
                yield f"tp {tp} instead of {d.tp}", "setting", replace(d, tp=tp)
        if d.model.experts and d.ep == 1 and d.tp > 1:
            yield f"experts shared out over {d.tp} chips", "setting", replace(d, ep=d.tp)
    else:
        yield f"{2 * d.stages} systems in line instead of {d.stages}", "setting", replace(d, stages=2 * d.stages)
    for kv in ("fp8", "nvfp4"):
        if BYTES_PER_KV[kv] < BYTES_PER_KV[d.kv] and can_keep_kv(d.chip, kv):
            yield f"{kv} KV cache instead of {d.kv}", "setting", replace(d, kv=kv)
    for weights in ("fp8", "nvfp4"):
        bits = 8 * BYTES_PER_WEIGHT[weights]
        unit = d.chip.fp8_flop_per_s if weights == "fp8" else d.chip.fp4_flop_per_s
        able = unit is not None and bits >= narrowest_bits(d.chip, d.efficiency)
        if able and BYTES_PER_WEIGHT[weights] < BYTES_PER_WEIGHT[d.weights]:
            yield f"{weights} weights instead of {d.weights}", "setting", replace(d, weights=weights)
    if d.spec is None:
        spec = Speculation("mtp" if d.model.mtp_layers else "eagle", 2, 2.3)
        yield f"speculative decoding {spec}", "setting", replace(d, spec=spec)


def _hardware(d: Deployment) -> Iterator[tuple[str, str, Deployment]]:
    """Twice as good a figure of the chip, or half an overhead of its family."""
    figures = {
        "SRAM bandwidth": "sram_bytes_per_s",
        "memory bandwidth": "mem_bytes_per_s",
        "link rate": "link_bytes_per_s",
        "network rate": "scaleout_bytes_per_s",
    }
    for words, name in figures.items():
        figure: Figure | None = getattr(d.chip, name)
        if figure is not None and (name != "sram_bytes_per_s") != d.is_pipeline:
            yield f"twice the {words}", "hardware", _with_chip(d, {name: _times(figure, 2.0)})
    peaks = ("bf16_flop_per_s", "fp8_flop_per_s", "int8_op_per_s", "fp4_flop_per_s")
    better = {name: _times(getattr(d.chip, name), 2.0) for name in peaks if getattr(d.chip, name) is not None}
    yield "twice the arithmetic", "hardware", _with_chip(d, better)
    own = ("layer_s",) if d.is_pipeline else _LAUNCHES
    halved = {name: _times(d.efficiency.figures[name], 0.5) for name in own}
    efficiency = msgspec.structs.replace(d.efficiency, figures={**d.efficiency.figures, **halved})
    words = "synchronisation" if d.is_pipeline else "launches and host"
    yield f"half the time of {words}", "hardware", msgspec.structs.replace(d, efficiency=efficiency)


_LAUNCHES = (
    "layer_s",
    "moe_layer_s",
    "attention_floor_s",
    "gemm_floor_s",
    "quantise_s",
    "host_s",
    "seq_s",
    "prompt_layer_s",
    "prompt_moe_layer_s",
    "prompt_s",
)


def _with_chip(d: Deployment, figures: dict[str, Figure]) -> Deployment:
    return msgspec.structs.replace(d, chip=msgspec.structs.replace(d.chip, **figures))


def _times(figure: Figure, factor: float) -> Figure:
    return msgspec.structs.replace(figure, value=factor * figure.value, low=None, high=None)
