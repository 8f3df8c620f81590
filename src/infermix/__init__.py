"""Plan, simulate and price mixed fleets of chips for LLM inference.

Names are looked up when they are first used: importing infermix loads neither NumPy nor Numba, nor a
solver, nor a web stack. ``catalog``, ``workload``, ``plan`` and ``report`` are both parts of the house
and verbs: the package ``infermix.catalog`` holds modules, and calling it calls the verb.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infermix.catalog.load import catalog
    from infermix.errors import InfermixError, InputError, NoAnswer
    from infermix.perf.deployment import Deployment
    from infermix.perf.table import compile_table
    from infermix.route.registry import policy
    from infermix.workload.classes import Slo, TrafficClass

__version__ = "0.1.0"

__all__ = [
    "Deployment",
    "Fleet",
    "InfermixError",
    "InputError",
    "NoAnswer",
    "Pool",
    "Slo",
    "TrafficClass",
    "__version__",
    "catalog",
    "compile_table",
    "plan",
    "policy",
    "report",
    "simulate",
    "step_time_s",
    "workload",
]

_HOMES = {
    "Deployment": "infermix.perf.deployment",
    "Fleet": "infermix.fleet",
    "InfermixError": "infermix.errors",
    "InputError": "infermix.errors",
    "NoAnswer": "infermix.errors",
    "Pool": "infermix.fleet",
    "Slo": "infermix.workload.classes",
    "TrafficClass": "infermix.workload.classes",
    "compile_table": "infermix.perf.table",
    "policy": "infermix.route.registry",
    "simulate": "infermix.study",
    "step_time_s": "infermix.perf.table",
}

_VERBS = {
    "catalog": "infermix.catalog.load",
    "plan": "infermix.study",
    "report": "infermix.study",
    "workload": "infermix.study",
}


class _Part(ModuleType):
    """A package that is called like the verb of its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        verb = self.__name__.rpartition(".")[2]
        return getattr(import_module(_VERBS[verb]), verb)(*args, **kwargs)


class _House(ModuleType):
    """The module ``infermix``; the import system hands it each part as an attribute once the part is loaded."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _VERBS and isinstance(value, ModuleType):
            value.__class__ = _Part
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _House


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
