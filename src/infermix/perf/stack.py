"""Serving stacks: a deployment as an engine of some date runs it.

The figures of a family tell what a tuned engine reaches. A stack multiplies its shares of arithmetic and of
bandwidth and its launches, and adds time of the host.
"""

from __future__ import annotations

import msgspec

from infermix.catalog.load import Catalog
from infermix.catalog.records import Efficiency, Figure, Stack
from infermix.errors import InputError, near_miss
from infermix.perf.deployment import Deployment

WORK = ("gemm_flop", "gemm_flop_fp8", "gemm_flop_fp4", "moe_flop", "moe_flop_narrow", "attention_flop", "mla_flop")
TRAFFIC = ("gemm_bytes", "moe_bytes", "attention_bytes", "mla_bytes")
LAUNCHES = (
    "layer_s",
    "moe_layer_s",
    "attention_floor_s",
    "gemm_floor_s",
    "quantise_s",
    "prompt_layer_s",
    "prompt_moe_layer_s",
)
ADDED = ("host_s", "seq_s")
EAGER = "eager_layer_s"
"""Time of the host to launch one layer's kernels, where steps are not recorded; it runs ahead of the chip."""
BY_LOAD = {
    "speed": ("speed_few", "speed_many"),
    "speed_prompt": ("speed_prompt_few", "speed_prompt_many"),
}
"""Intervals of speed, each with those for few sequences on an instance and for many, which go with it."""


def stack_for(catalog: Catalog, engine: str, d: Deployment) -> Stack | None:
    """The stack of an engine on a chip: fitted there, on its family, anywhere; None where engines are tuned."""
    for id_ in (f"{engine}-{d.chip.id}", f"{engine}-{d.efficiency.id}", engine):
        if id_ in catalog.stacks:
            return catalog.stacks[id_]
    return None


def find_stack(catalog: Catalog, name: str, d: Deployment) -> Stack | None:
    """The stack that a user names; ``tuned`` is none. Raises ``InputError`` with a near miss."""
    if name == "tuned":
        return None
    found = stack_for(catalog, name, d)
    if found is None:
        known = ("tuned", *catalog.stacks)
        raise InputError("unknown stack", value=name, mend=near_miss(name, known) or f"known: {', '.join(known)}")
    return found


def with_stack(d: Deployment, stack: Stack | None) -> Deployment:
    """The deployment as this stack runs it; SRAM machines have none."""
    if stack is None or d.is_pipeline:
        return d
    return msgspec.structs.replace(d, efficiency=stacked(d.efficiency, stack))


def stacked(efficiency: Efficiency, stack: Stack) -> Efficiency:
    """A family's figures under a stack: no share exceeds 1, or its own value where that does."""
    figures = dict(efficiency.figures)
    for names, factor in ((WORK, "work"), (TRAFFIC, "traffic")):
        for name in names:
            share = figures[name].value
            figures[name] = _now(efficiency, name, min(max(1.0, share), share * _value(stack, factor, 1.0)))
    for name in LAUNCHES:
        figures[name] = _now(efficiency, name, figures[name].value * _value(stack, "launches", 1.0))
    for name in ADDED:
        figures[name] = _now(efficiency, name, figures[name].value + _value(stack, name, 0.0))
    if EAGER in stack.figures:
        figures[EAGER] = stack.figures[EAGER]
    for whole, parts in BY_LOAD.items():
        if whole in stack.figures:
            figures = {name: own for name, own in figures.items() if name not in parts}
        figures |= {name: stack.figures[name] for name in (whole, *parts) if name in stack.figures}
    return msgspec.structs.replace(efficiency, figures=figures)


def _now(efficiency: Efficiency, name: str, value: float) -> Figure:
    return msgspec.structs.replace(efficiency.figures[name], value=value)


def _value(stack: Stack, name: str, default: float) -> float:
    return stack.figures[name].value if name in stack.figures else default


def request_s(stack: Stack | None, clients: float) -> float:
    """Seconds before a request reaches the engine: its own, and for each client that shares the front end [s]."""
    return _value(stack, "request_s", 0.0) + _value(stack, "client_s", 0.0) * clients if stack else 0.0
