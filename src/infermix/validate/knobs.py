"""What calibration may move: few figures of families and of stacks, each with what is believed of it before.

A belief is a value and a spread in ln: 0.1 means within about 10 %. Shares of peaks that operator tables tell are
held tightly; those of families without tables loosely; overheads freely.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from infermix.arrays import Bools, Floats
from infermix.catalog.load import Catalog
from infermix.catalog.records import Efficiency, Figure, Stack
from infermix.perf.deployment import Deployment
from infermix.validate.meaning import Case

WITH_TABLES = ("hopper", "blackwell", "ampere")
"""Families whose operators were measured one by one."""
SHARES = {
    "gemm_flop": 0.15, "gemm_flop_fp8": 0.2, "gemm_flop_fp4": 0.3, "gemm_bytes": 0.1, "moe_flop": 0.2,
    "moe_flop_narrow": 0.25, "moe_bytes": 0.2, "attention_bytes": 0.15, "attention_flop": 0.2, "mla_bytes": 0.2,
    "mla_flop": 0.2, "allreduce_bytes": 0.2,
}  # fmt: skip
OVERHEADS = {
    "layer_s": 0.35, "moe_layer_s": 0.5, "host_s": 1.0, "seq_s": 1.0, "prompt_layer_s": 1.0, "prompt_moe_layer_s": 1.0,
    "prompt_s": 1.0, "allreduce_start_s": 0.5,
}  # fmt: skip
OF_STACK = {
    "work": 0.5,
    "traffic": 0.4,
    "launches": 1.0,
    "eager_layer_s": 1.0,
    "host_s": 1.5,
    "seq_s": 1.5,
    "request_s": 1.0,
    "client_s": 1.5,
}
ALIKE = {"request_s": 0.3, "client_s": 0.3, "seq_s": 0.5, "launches": 0.3}
"""How far, in ln, figures of one engine lie from their mean over families, each against what was believed of it: what
passes before a request reaches the engine is the same software whatever the chip."""
OF_PIPELINE = {"layer_s": 1.0}
"""Of machines with the layers in SRAM: speeds of single users tell no more than the time of a layer."""
LEAST = {
    "host_s": 1e-4,
    "seq_s": 1e-6,
    "request_s": 1e-2,
    "client_s": 2e-4,
    "prompt_s": 1e-4,
    "prompt_layer_s": 1e-5,
    "prompt_moe_layer_s": 1e-5,
}
"""Where a belief in ln starts from when a time is 0."""
MOST_FACTOR = 1.9
"""A stack reaches no more than so many times the shares of its family."""
LOOSER = 3.0
"""Without operator tables spreads are so many times as wide."""


FEWEST_ROWS = 5
"""A figure that fewer rows tell of is left as it was believed."""
FEWEST_OF_PIPELINE = 2
"""Public rows of SRAM machines are few; their intervals are wide and stated by hand."""


class Knob(NamedTuple):
    """A figure that calibration may move."""

    part: str
    """``efficiency`` or ``stacks``."""
    record: str
    name: str
    believed: float
    spread: float
    most: float
    fewest: int = FEWEST_ROWS
    """Rows that must tell of it."""
    engine: str = ""
    """Of a stack: its figures are held to those of the engine's other stacks as well."""

    @property
    def id(self) -> str:
        """The figure's id in the catalogue."""
        return f"{self.part}/{self.record}/{self.name}"


Values = Mapping[tuple[str, str, str], float]


MOST_SHARE = 0.97
"""Nothing reaches all of its peak."""


def most_of(name: str, value: float) -> float:
    """The most that a share may be fitted to; links add up on the way and may exceed one of them."""
    return max(1.0, value) if name == "allreduce_bytes" else max(MOST_SHARE, value)


def believed(name: str, figure: Figure) -> float:
    """What is believed of a figure whatever measured rows say: of a fitted one, what was before."""
    value = figure.value if figure.believed is None else figure.believed
    return max(value, LEAST.get(name, 1e-9))


def family_knobs(family: Efficiency) -> list[Knob]:
    """Knobs of a family."""
    if family.machine == "pipeline":
        return [_pipeline_knob(family, name) for name in OF_PIPELINE]
    looser = 1.0 if family.id in WITH_TABLES else LOOSER
    start = {name: believed(name, family.figures[name]) for name in (*SHARES, *OVERHEADS)}
    shares = [Knob("efficiency", family.id, n, start[n], s * looser, most_of(n, start[n])) for n, s in SHARES.items()]
    times = [Knob("efficiency", family.id, n, start[n], s, 1.0) for n, s in OVERHEADS.items()]
    return shares + times


def _pipeline_knob(family: Efficiency, name: str) -> Knob:
    value = believed(name, family.figures[name])
    most = 1.0 if name.endswith("_s") else MOST_SHARE
    return Knob("efficiency", family.id, name, value, OF_PIPELINE[name], most, FEWEST_OF_PIPELINE)


def stack_knobs(stack: Stack) -> list[Knob]:
    """Knobs of a stack."""
    found = []
    for name, spread in OF_STACK.items():
        if name in stack.figures:
            value = believed(name, stack.figures[name])
            most = MOST_FACTOR if name in ("work", "traffic") else 50.0
            found.append(Knob("stacks", stack.id, name, value, spread, most, engine=stack.engine))
    return found


def kin(knobs: Sequence[Knob]) -> Bools:
    """Which figures are of one name and engine."""
    of = [(k.engine, k.name) if k.engine and k.name in ALIKE else (k.id, "") for k in knobs]
    return np.array([[a == b for b in of] for a in of], dtype=np.bool_).reshape(len(of), len(of))


def holds(knobs: Sequence[Knob]) -> Floats:
    """Square form of what figures cost that are off what was believed (ln) and off their kin."""
    own = np.diag([k.spread**-2.0 for k in knobs])
    alike = kin(knobs)
    apart = np.diag([ALIKE.get(k.name, np.inf) ** -2.0 if k.engine else 0.0 for k in knobs])
    return np.asarray(own + apart @ (np.eye(len(knobs)) - alike / alike.sum(axis=1)))


def moved_efficiency(efficiency: Efficiency, values: Values) -> Efficiency:
    """The family with these values in place of its own."""
    own = {n: v for (part, record, n), v in values.items() if part == "efficiency" and record == efficiency.id}
    if not own:
        return efficiency
    figures = {n: msgspec.structs.replace(efficiency.figures[n], value=v) for n, v in own.items()}
    return msgspec.structs.replace(efficiency, figures={**efficiency.figures, **figures})


def moved_stack(stack: Stack | None, values: Values) -> Stack | None:
    """The stack with these values in place of its own."""
    if stack is None:
        return None
    own = {n: v for (part, record, n), v in values.items() if part == "stacks" and record == stack.id}
    figures = {n: msgspec.structs.replace(stack.figures[n], value=v) for n, v in own.items()}
    return msgspec.structs.replace(stack, figures={**stack.figures, **figures})


def moved_case(case: Case, values: Values) -> Case:
    """The case on families with these values."""

    def moved(d: Deployment) -> Deployment:
        return msgspec.structs.replace(d, efficiency=moved_efficiency(d.efficiency, values))

    prefill = moved(case.prefill) if case.prefill else None
    return msgspec.structs.replace(case, deployment=moved(case.deployment), prefill=prefill)


def knobs_of(catalog: Catalog, families: Iterable[str], stacks: Iterable[str]) -> list[Knob]:
    """Knobs of these families and stacks."""
    found = [knob for f in families for knob in family_knobs(catalog.efficiencies[f])]
    return found + [knob for s in stacks for knob in stack_knobs(catalog.stacks[s])]
