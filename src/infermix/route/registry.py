"""Policies by name, and the users' own."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from infermix import jit
from infermix.errors import InfermixError, InputError, near_miss
from infermix.route import names, policies
from infermix.route.view import Ask, FleetView

Policy = Callable[[FleetView, Ask], int]

POLICIES: dict[str, Policy] = {name: getattr(policies, name) for name in names.POLICIES}
_PACKAGED = frozenset(POLICIES)
_OWN: list[Policy] = []
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def policy(function: Policy) -> Policy:
    """Decorator: register a policy of one's own under its name, for the simulator and the gateway.

    It must be compilable by Numba: numbers, loops and the arrays of the view. It may call what
    ``infermix.route.scorers`` holds.
    """
    name = function.__name__
    if name in _PACKAGED:
        raise InputError("a packaged policy has this name", where="@im.policy", value=name, mend="choose another")
    compiled = jit.kernel(function, cache=False)
    POLICIES[name] = compiled
    names.POLICIES[name] = (function.__doc__ or "a policy of one's own").splitlines()[0]
    _OWN.append(compiled)
    return compiled


def find_policy(name: str, where: str = "policy", folder: Path | None = None) -> Policy:
    """The policy of that name, or of that function in a file: ``FILE.py:FUNCTION``, relative to ``folder``.

    Raises
    ------
    InputError
        Unknown name, with the near miss; a file that is missing or fails; a function that it does not hold.
    """
    names.check_policy(name, where)
    named = names.split_file(name)
    if named is None:
        return POLICIES[name]
    file = (folder or Path()) / named[0]
    if not file.is_file():
        raise InputError("no such policy file", where=where, value=str(file))
    try:
        held = vars(_run_file(file.resolve(), file.stat().st_mtime_ns))
    except InputError as fault:
        raise InputError(str(fault), where=where) from None
    return _marked(held, named[1], where)


def _marked(held: dict[str, Any], function: str, where: str) -> Policy:
    """The function of that name among those of a file that carry ``@im.policy``."""
    marked: dict[str, Policy] = {name: own for name, value in held.items() for own in _OWN if own is value}
    if function in marked:
        return marked[function]
    if callable(held.get(function)):
        raise InputError("not a policy", where=where, value=function, mend="put @im.policy above it")
    raise InputError(
        "no such policy in the file",
        where=where,
        value=function,
        allowed=", ".join(marked) or "nothing: no function has @im.policy above it",
        mend=near_miss(function, marked),
    )


@cache
def _run_file(file: Path, changed_ns: int) -> ModuleType:  # noqa: ARG001 - a file that changed is run again
    spec = spec_from_file_location(f"policy_file_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError("not a Python file", value=str(file))
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InfermixError:
        raise
    except Exception as fault:  # noqa: BLE001 - whatever a user's file may raise
        said = next(iter(str(fault).splitlines()), "")
        raise InputError(f"{file.name} fails: {type(fault).__name__}: {said}") from None
    return module


@cache
def compiled_policy(choice: Policy, view_type: Any, ask_type: Any) -> Policy:
    """The policy as a value of the one function type that the kernel takes.

    Raises
    ------
    InputError
        It cannot be compiled; one line says where and why.
    """
    if not jit.ENABLED:
        return choice
    plain = getattr(choice, "py_func", choice)
    packaged = plain.__module__.startswith("infermix.")
    try:
        compiled: Policy = jit.compiled(
            plain if packaged else _of_ones_own(choice), "int64", view_type, ask_type, cache=packaged
        )
    except jit.CompileError as fault:
        name = getattr(plain, "__name__", "policy")
        raise InputError(f"cannot be compiled: {_reason(str(fault))}", where=f"policy {name}") from None
    return compiled


def _of_ones_own(choice: Policy) -> Policy:
    """A user's policy, to which -1 is the last place of an array as everywhere in Python."""
    called = choice if hasattr(choice, "py_func") else jit.kernel(choice, cache=False)

    def choose(view: FleetView, ask: Ask) -> int:
        return called(jit.counting_from_either_end(view), ask)

    return choose


def _reason(said: str) -> str:
    """The first telling line of what the compiler said, and the line of the source that it speaks of."""
    lines = [line.strip() for line in _COLOUR.sub("", said).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Failed in", "File ", "During:"))]
    telling = [re.sub(r"(FleetView|Ask)\(.*\)", r"\1", line) for line in telling]
    place = re.search(r'File "[^"]*?([^"/\\]+)", line (\d+)', said)
    return (telling[0] if telling else "no reason given") + (f" ({place[1]} line {place[2]})" if place else "")
