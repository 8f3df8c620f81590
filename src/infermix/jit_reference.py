"""Records of arrays by reference: a NamedTuple stays in one place, and compiled functions hand on its address.

Numba hands a NamedTuple on as all the words of all its arrays, hundreds for a simulation's state, at every call. Here
the outermost kernel puts it into memory once, and what it calls reads fields where they lie: a call costs one word, and
functions compile several times as fast. Attribute access looks the same as on the NamedTuple itself.
"""

# mypy: ignore-errors
from __future__ import annotations

from hashlib import sha256
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import impl_ret_borrowed
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, lower_getattr_generic, models, register_model


class Reference(types.Type):
    """The address of a NamedTuple."""

    def __init__(self, to: Any) -> None:
        self.to = to
        # Numba writes the name into that of every function that takes one: a short one compiles in less time
        super().__init__(name=f"Reference({sha256(str(to).encode()).hexdigest()[:16]})")


@register_model(Reference)
class _ReferenceModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Reference) -> None:
        super().__init__(manager, kind, manager.lookup(kind.to).get_value_type().as_pointer())


@infer_getattr
class _ReferenceAttribute(AttributeTemplate):
    key = Reference

    def generic_resolve(self, kind: Reference, name: str) -> Any:
        """Type of a field: that of the NamedTuple's; a NamedTuple inside is referred to as well."""
        if name not in kind.to.fields:
            return None
        field = kind.to.types[kind.to.fields.index(name)]
        return Reference(field) if isinstance(field, types.NamedTuple) else field


@lower_getattr_generic(Reference)
def _field(context: Any, builder: Any, kind: Reference, value: Any, name: str) -> Any:
    """Load a field, or point to it if it is a NamedTuple."""
    place = kind.to.fields.index(name)
    field = kind.to.types[place]
    pointer = cgutils.gep_inbounds(builder, value, 0, place)
    if isinstance(field, types.NamedTuple):
        return pointer
    return impl_ret_borrowed(context, builder, field, _load_constant(builder, pointer))


def _load_constant(builder: Any, pointer: Any) -> Any:
    """Load what never changes, word by word, so that the optimiser may keep it in registers across stores."""
    kind = pointer.type.pointee
    if not isinstance(kind, ir.LiteralStructType | ir.ArrayType):
        loaded = builder.load(pointer)
        loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
        return loaded
    whole = ir.Constant(kind, ir.Undefined)
    for place in range(len(kind)):
        part = _load_constant(builder, cgutils.gep_inbounds(builder, pointer, 0, place))
        whole = builder.insert_value(whole, part, place)
    return whole


@intrinsic
def refer(_typing: Any, value: Any) -> Any:
    """The address of a NamedTuple that lives as long as the function that asks.

    That function must hand it on and not read it: fields count as constant in those that get it.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return cgutils.alloca_once_value(builder, arguments[0])

    return Reference(value)(value), generate
