"""The only door to Numba. Without it (or with ``INFERMIX_JIT=0``) kernels run as plain Python.

``kernel`` compiles lazily and caches on disk. ``compiled`` compiles for one fixed signature, which
lets a function travel as a value: one cached kernel then takes any policy without recompiling.

Compiled code is cached in ``$XDG_CACHE_HOME/infermix`` (``~/.cache/infermix``), in a folder named by
a hash of all kernel sources: Numba itself looks only at the file of the outermost function, and
would go on using it after a change in a file that it calls.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

ENABLED = os.environ.get("INFERMIX_JIT", "1") != "0"
if ENABLED:
    try:
        import numba
    except ImportError:  # pragma: no cover - numba is a declared dependency
        ENABLED = False


def _cache_folder() -> str:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted([*here.glob("sim/*.py"), *here.glob("route/*.py"), *here.glob("jit*.py")]):
        digest.update(source.read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(base) / "infermix" / f"kernels-{digest.hexdigest()[:16]}")


CompileError: type[Exception] = numba.core.errors.NumbaError if ENABLED else RuntimeError
"""What compiling raises when a function cannot be compiled."""

if ENABLED and not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = _cache_folder()

# Without reference counting: kernels neither allocate nor return arrays, and every call would
# otherwise count every array of the state up and down.
_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "_nrt": False}


if ENABLED:
    from infermix.jit_part import PartCompiler

    _PART = {
        **_OPTIONS,
        "cache": False,
        "pipeline_class": PartCompiler,
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
    }


def kernel(function: F, *, cache: bool = True) -> F:
    """Compile a function of arrays and scalars when it is first called."""
    return numba.njit(**{**_OPTIONS, "cache": cache})(function) if ENABLED else function


def part(function: F) -> F:
    """Like ``kernel``, for what only kernels call: it becomes machine code as a part of them."""
    return numba.njit(**_PART)(function) if ENABLED else function


def outermost(function: F) -> F:
    """A part as a kernel of its own, for callers in Python."""
    if not ENABLED or function.targetoptions.get("inline") == "always":  # type: ignore[attr-defined]
        return function

    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return kernel(call, cache=False)  # type: ignore[return-value]


def small(function: F) -> F:
    """Like ``part``, for helpers: the optimiser copies them into each of their callers."""
    return numba.njit(forceinline=True, **_PART)(function) if ENABLED else function


def inline(function: F) -> F:
    """Like ``part``, for one caller: compiled as if it stood in it."""
    return numba.njit(inline="always", **_OPTIONS)(function) if ENABLED else function


if ENABLED:
    from infermix.jit_reference import Reference
    from infermix.jit_reference import counting_from_either_end as counting_from_either_end
    from infermix.jit_reference import ordered as ordered
    from infermix.jit_reference import refer as refer
else:

    def refer(value: Any) -> Any:
        """Plain Python hands everything on by reference."""
        return value

    def counting_from_either_end(value: Any) -> Any:
        """Plain Python always does."""
        return value

    def ordered(value: float) -> int:
        """A float of at least 0 as a whole number of the same order."""
        return int(np.float64(value).view(np.int64))


def reference_to(kind: Any) -> Any:
    """Type of a reference to a NamedTuple of that type (None without Numba)."""
    return Reference(kind) if ENABLED else None


def type_of(value: Any) -> Any:
    """Numba's type of an example value (None without Numba)."""
    return numba.typeof(value) if ENABLED else None


def function_type(result: str, *arguments: Any) -> Any:
    """Type of a compiled function passed as a value (None without Numba)."""
    if not ENABLED:
        return None
    return numba.types.FunctionType(getattr(numba.types, result)(*arguments))


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Numba makes millions of objects that stay until a function is compiled: looking for garbage finds little."""
    usual = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def compiled(function: F, result: str, *arguments: Any, cache: bool = True) -> F:
    """Compile a function now, for exactly these argument types."""
    if not ENABLED:
        return function
    signature = getattr(numba.types, result)(*arguments)
    with _rare_collections():
        compiled_now: F = numba.njit([signature], **{**_OPTIONS, "cache": cache})(function)
    return compiled_now
