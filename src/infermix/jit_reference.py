"""Records of arrays by reference: a NamedTuple stays in one place, and compiled functions hand on its address.

Numba hands a NamedTuple on as all the words of all its arrays, hundreds for a simulation's state, at every call. Here
the outermost kernel puts it into memory once, and what it calls reads fields where they lie: a call costs one word, and
functions compile several times as fast. Attribute access looks the same as on the NamedTuple itself.
"""

# mypy: ignore-errors
from __future__ import annotations

import operator
from hashlib import sha256
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import impl_ret_borrowed, lower_builtin, lower_cast
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, intrinsic, lower_getattr_generic, models, register_model
from numba.np import arrayobj


class Reference(types.Type):
    """The address of a NamedTuple. ``counted``: its arrays take indices from 0 on only, see ``Counted``."""

    def __init__(self, to: Any, counted: bool = True) -> None:
        self.to, self.counted = to, counted
        # Numba writes the name into that of every function that takes one: a short one compiles in less time
        super().__init__(name=f"Reference({sha256(str(to).encode()).hexdigest()[:16]}, {counted})")


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
        if isinstance(field, types.NamedTuple):
            return Reference(field, kind.counted)
        return Counted.like(field) if kind.counted and isinstance(field, types.Array) else field


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


class Counted(types.Array):
    """An array whose indices count from its start: an index below 0 is a fault, not a place counted from its end.

    Numba else spends several instructions on every index that may be negative, a quarter of all in a kernel.
    """

    @classmethod
    def like(cls, array: Any) -> Counted:
        """The same array, so indexed."""
        return cls(array.dtype, array.ndim, array.layout, not array.mutable, aligned=array.aligned)

    def copy(self, *args: Any, **kwargs: Any) -> Counted:
        """Parts of it are indexed like it."""
        return Counted.like(super().copy(*args, **kwargs))

    def unify(self, typingctx: Any, other: Any) -> Any:
        """With others it becomes an array of Numba's."""
        return self if self == other else super().unify(typingctx, other)


register_model(Counted)(models.ArrayModel)


@lower_cast(Counted, types.Array)
def _as_array(_context: Any, _builder: Any, _from: Any, _to: Any, value: Any) -> Any:
    return value


def _place(context: Any, builder: Any, kind: Any, array: Any, index_type: Any, index: Any) -> tuple[Any, ...]:
    """(pointer, shape, strides) of what an index or a tuple of them names."""
    count = len(index_type) if isinstance(index_type, types.BaseTuple) else 0
    indices = cgutils.unpack_tuple(builder, index, count) if count else (index,)
    unsigned = tuple(types.uintp for _ in indices)
    return arrayobj.basic_indexing(context, builder, kind, array, unsigned, indices, boundscheck=False)


@lower_builtin(operator.getitem, Counted, types.Integer)
@lower_builtin(operator.getitem, Counted, types.BaseTuple)
def _get(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    kind, index_type = signature.args
    array = arrayobj.make_array(kind)(context, builder, arguments[0])
    pointer, shape, strides = _place(context, builder, kind, array, index_type, arguments[1])
    wanted = signature.return_type
    if isinstance(wanted, types.Buffer):
        part = arrayobj.make_view(context, builder, kind, array, wanted, pointer, shape, strides)._getvalue()
        return impl_ret_borrowed(context, builder, wanted, part)
    return impl_ret_borrowed(context, builder, wanted, arrayobj.load_item(context, builder, kind, pointer))


@lower_builtin(operator.setitem, Counted, types.Integer, types.Any)
@lower_builtin(operator.setitem, Counted, types.BaseTuple, types.Any)
def _set(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    kind, index_type, value_type = signature.args
    array = arrayobj.make_array(kind)(context, builder, arguments[0])
    pointer, _, _ = _place(context, builder, kind, array, index_type, arguments[1])
    value = context.cast(builder, arguments[2], value_type, kind.dtype)
    arrayobj.store_item(context, builder, kind, value, pointer)
    return context.get_dummy_value()


@intrinsic
def ordered(_typing: Any, value: Any) -> Any:  # noqa: ARG001
    """A float of at least 0 as a whole number of the same order; the least of many such is found eight at a time."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def counting_from_either_end(_typing: Any, value: Any) -> Any:
    """The same reference, to arrays in which -1 is the last place: for functions that others write."""

    def generate(_context: Any, _builder: Any, _signature: Any, arguments: Any) -> Any:
        return arguments[0]

    return (Reference(value.to, counted=False) if isinstance(value, Reference) else value)(value), generate


@intrinsic
def refer(_typing: Any, value: Any) -> Any:
    """The address of a NamedTuple that lives as long as the function that asks.

    That function must hand it on and not read it: fields count as constant in those that get it.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return cgutils.alloca_once_value(builder, arguments[0])

    return Reference(value)(value), generate
