"""Which serving engines run on which chips, and where their makers say so."""

from __future__ import annotations

from typing import Literal

import msgspec

from infermix.catalog.records import Chip

Engine = Literal["vllm", "sglang", "trtllm"]

FLAGS: dict[Engine, tuple[str, ...]] = {
    "vllm": ("https://docs.vllm.ai/en/latest/cli/serve/",),
    "sglang": ("https://docs.sglang.io/advanced_features/server_arguments.html",),
    "trtllm": ("https://nvidia.github.io/TensorRT-LLM/commands/trtllm-serve/trtllm-serve.html",),
}
"""Pages that explain the arguments of each engine."""

APART: dict[Engine, str] = {
    "vllm": "https://docs.vllm.ai/en/stable/features/nixl_connector_usage.html",
    "sglang": "https://docs.sglang.io/advanced_features/pd_disaggregation.html",
    "trtllm": "https://nvidia.github.io/TensorRT-LLM/features/disagg-serving.html",
}
"""Pages on prefill and decode on machines of their own."""


class Runs(msgspec.Struct, frozen=True):
    """An engine runs on a family of chips: where that is said, and what is installed for it."""

    engine: Engine
    source: str
    package: str = ""


_VLLM_GPU = "https://docs.vllm.ai/en/latest/getting_started/installation/gpu/"
_PLUGINS = "https://docs.vllm.ai/en/v0.11.2/getting_started/installation/"
_SGLANG = "https://docs.sglang.io/docs/hardware-platforms/overview.md"
_TRTLLM = "https://nvidia.github.io/TensorRT-LLM/supported-hardware.html"
_NVIDIA = (Runs("vllm", _VLLM_GPU), Runs("sglang", _SGLANG), Runs("trtllm", _TRTLLM))

BY_FAMILY: dict[str, tuple[Runs, ...]] = {
    "hopper": _NVIDIA,
    "blackwell": _NVIDIA,
    "ampere": _NVIDIA,
    "volta": (Runs("vllm", _VLLM_GPU),),
    "cdna": (Runs("vllm", _VLLM_GPU), Runs("sglang", _SGLANG)),
    "ponte-vecchio": (Runs("vllm", _VLLM_GPU), Runs("sglang", _SGLANG)),
    "tpu": (Runs("vllm", _PLUGINS, "tpu-inference"), Runs("sglang", _SGLANG)),
    "neuron": (Runs("vllm", "https://github.com/vllm-project/vllm-neuron", "vllm-neuron"),),
    "gaudi": (Runs("vllm", _PLUGINS, "vllm-gaudi"),),
    "ascend": (Runs("vllm", _PLUGINS, "vllm-ascend"), Runs("sglang", _SGLANG)),
    "qaic": (Runs("vllm", "https://docs.qualcomm.com/doc/80-99100-3/topic/run.html", "Qualcomm's build"),),
}
"""Family of chips (``Chip.efficiency``) → engines that run there, the one to begin with first."""

BY_CHIP: dict[str, tuple[Runs, ...]] = {
    "atom-max": (Runs("vllm", _PLUGINS, "vllm-rbln"),),
    "rebel-quad": (Runs("vllm", _PLUGINS, "vllm-rbln"),),
    "gb10": _NVIDIA,
    "jetson-agx-orin-64": (Runs("sglang", _SGLANG),),
    "rubin-cpx": (),
}
"""Chips of which something else is said than of their family."""


def engines_of(chip: Chip) -> tuple[Runs, ...]:
    """Engines that run on a chip, as far as is known; none for machines that come with a server of their own.

    >>> from infermix.catalog.load import catalog
    >>> [runs.engine for runs in engines_of(catalog().chips["mi355x"])]
    ['vllm', 'sglang']
    >>> engines_of(catalog().chips["wse3"])
    ()
    """
    return BY_CHIP.get(chip.id, BY_FAMILY.get(chip.efficiency, ()))
