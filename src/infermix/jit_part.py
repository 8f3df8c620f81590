"""Functions that only kernels call: translated on their own, optimised with the kernel that they are part of.

Numba optimises every function for itself, makes machine code of it, and then does both again in each caller that it is
copied into. What only other compiled functions call needs neither: its code is linked into the outermost kernel as
Numba wrote it, and the optimiser sees everything there, once.
"""

# mypy: ignore-errors
from __future__ import annotations

import ctypes
from typing import Any

from llvmlite.binding import Linkage
from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering

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


class PartCompiler(CompilerBase):
    """Numba's usual way as far as the machine code."""

    def define_pipelines(self) -> list[Any]:
        """Numba's passes, the last but one replaced."""
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager._finalized = False
        manager.passes = [
            (_PartLowering, "part lowering") if kind is NativeLowering else (kind, what)
            for kind, what in manager.passes
        ]
        manager.finalize()
        return [manager]
