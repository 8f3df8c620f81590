"""Functions that only kernels call: translated on their own, optimised with the kernel that they are part of.

Numba optimises every function for itself, makes machine code of it, and then does both again in each caller that it is
copied into. What only other compiled functions call needs neither: its code is linked into the outermost kernel as
Numba wrote it, and the optimiser sees everything there, once.
"""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
from copy import deepcopy
from typing import Any

from llvmlite.binding import Linkage
from numba import _dynfunc
from numba.core.bytecode import FunctionIdentity
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder, Flags
from numba.core.compiler_machinery import register_pass
from numba.core.inline_closurecall import InlineWorker
from numba.core.typed_passes import NativeLowering
from numba.core.untyped_passes import InlineInlinables

_REFUSE = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value
"""What Python reaches when it calls a part: a TypeError. ``jit.outermost`` makes one callable."""


class _PartLibrary(JITCodeLibrary):
    """Code that waits to be linked into a kernel, with what it calls."""

    def finalize(self) -> None:
        """Nothing to optimise yet."""
        self._raise_if_finalized()
        self._finalized = True

    def parts(self) -> dict[_PartLibrary, None]:
        """Itself and every part that it needs."""
        found, left = {}, [self]
        while left:
            part = left.pop()
            if part not in found:
                found[part] = None
                left += [library for library in part._linking_libraries if isinstance(library, _PartLibrary)]
        return found

    def _get_module_for_linking(self) -> Any:
        if self._shared_module is None:
            whole = self._final_module.clone()
            for part in self.parts():
                if part is not self:
                    whole.link_in(part._final_module, preserve=True)
                for library in part._linking_libraries:
                    if not isinstance(library, _PartLibrary):
                        whole.link_in(library._get_module_for_linking(), preserve=True)
            for function in whole.functions:
                if not function.is_declaration and function.linkage == Linkage.external:
                    function.linkage = Linkage.linkonce_odr
            self._shared_module = whole
        return self._shared_module


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(NativeLowering):
    """Lowering that leaves machine code to the callers."""

    _name = "part_lowering"

    def run_pass(self, state: Any) -> bool:
        """As Numba's, with a library that waits, and a function that refuses to be called from Python."""
        state.library = _PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        fndesc = lowered.fndesc
        entry = _dynfunc.make_function(
            fndesc.lookup_module(), fndesc.unique_name, "part of a kernel", _REFUSE, lowered.env, (state.library,)
        )
        state.targetctx.insert_user_function(entry, fndesc, [state.library])
        state["cr"] = lowered._replace(cfunc=entry)
        return True


_READ: dict[Any, Any] = {}
"""Numba's form of every function to copy in, with what it copies in itself."""


class _Reader(InlineWorker):
    """Reads a function to copy in once; Numba would read it, and all that it copies in, for every place anew."""

    def __init__(self, worker: InlineWorker) -> None:
        self.__dict__.update(worker.__dict__)
        self._compiler_pipeline = lambda state: _with_passes(
            DefaultPassBuilder.define_untyped_pipeline(state), {InlineInlinables: _InlineRead}
        )

    def run_untyped_passes(self, func: Any, enable_ssa: bool = False) -> Any:
        """A copy of its own for the place; all its blocks share one scope, which further copies share, too."""
        if func not in _READ:
            _READ[func] = super().run_untyped_passes(func, enable_ssa)
        mine = _READ[func].copy()
        mine.func_id = FunctionIdentity.from_function(func)
        mine.blocks = deepcopy(mine.blocks)
        scope = next(iter(mine.blocks.values())).scope
        scope.__deepcopy__ = lambda _: scope
        return mine


@register_pass(mutates_CFG=True, analysis_only=False)
class _InlineRead(InlineInlinables):
    """Numba's pass, with functions read once."""

    _name = "inline_read"

    def _do_work(self, state: Any, work_list: Any, block: Any, i: int, expr: Any, worker: Any) -> bool:
        return super()._do_work(state, work_list, block, i, expr, _Reader(worker))


class _Asked(Flags):
    """Flags that nobody changes: one hash for all time."""

    def __init__(self, flags: Flags) -> None:
        super().__init__(flags)
        self.hash = super().__hash__()

    def __hash__(self) -> int:
        return self.hash


_ASKED: list[_Asked] = []


class _SteadyFlags(Flags):
    """Numba compares the flags of a compilation at every call that it types; these are the same object, if equal."""

    def copy(self) -> Flags:
        """The flags as they are now."""
        for known in _ASKED:
            if known == self:
                return known
        _ASKED.append(_Asked(self))
        return _ASKED[-1]


def _with_passes(manager: Any, instead: dict[Any, Any]) -> Any:
    manager._finalized = False
    manager.passes = [(instead.get(kind, kind), what) for kind, what in manager.passes]
    manager.finalize()
    return manager


class PartCompiler(CompilerBase):
    """Numba's usual way as far as the machine code."""

    def __init__(self, *arguments: Any) -> None:
        """As Numba calls it: contexts, library, argument and return types, flags, types of locals."""
        *first, flags, types_of_locals = arguments
        super().__init__(*first, _SteadyFlags(flags), types_of_locals)

    def define_pipelines(self) -> list[Any]:
        """Numba's passes, two of them replaced."""
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
        return [_with_passes(manager, {NativeLowering: _PartLowering, InlineInlinables: _InlineRead})]
