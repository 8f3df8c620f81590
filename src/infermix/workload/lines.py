"""JSON lines that hold the same numbers line after line, read straight into arrays: several times as fast as a table.

Whatever is out of the ordinary (another type, a missing value, a key that only later lines have, a broken line) is left
to the general way of ``columns``, which knows what to say about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from infermix.errors import InputError
from infermix.workload.formats import Found, recognise
from infermix.workload.openai_log import first_record, is_log

_TYPES: dict[str, Any] = {
    "t_s": float,
    "input_tokens": int,
    "output_tokens": int,
    "cached_tokens": int,
    "hash_ids": tuple[int, ...],
}
_CHUNK_BYTES = 1 << 18
Arrays = dict[str, npt.NDArray[Any]]


def read_numbers(file: Path, mapping: Mapping[str, str]) -> tuple[Found, Arrays] | None:
    """(what the file is, its columns by our names); None where the file is not so plain.

    In place of ``hash_ids`` stand ``ids`` of all rows and how many there are in each (``id_counts``).
    """
    first = first_record(file)
    found = _recognised(first, mapping)
    if found is None:
        return None
    decoder = msgspec.json.Decoder(_line_type(found, first))
    try:
        parts = [_arrays(_rows(decoder, chunk), found) for chunk in _chunks(file)]
    except (ValueError, OverflowError, msgspec.DecodeError):
        return None
    return found, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _recognised(first: dict[str, Any], mapping: Mapping[str, str]) -> Found | None:
    """The format that the keys of the first line tell, if all that is used of it are numbers."""
    if not first or (is_log(first) and not mapping):
        return None
    try:
        found = recognise(list(first), mapping, "")
    except InputError:
        return None
    plain = found.names.keys() <= _TYPES.keys() and len(set(found.names.values())) == len(found.names)
    return found if plain else None


def _line_type(found: Found, first: dict[str, Any]) -> type[msgspec.Struct]:
    """A line: our names stand for the file's; keys that are not used may hold anything, or be left out."""
    unused = {f"unused_{i}": key for i, key in enumerate(first) if key not in found.names.values()}
    numbers = [(name, _TYPES[name], ()) if name == "hash_ids" else (name, _TYPES[name]) for name in found.names]
    return msgspec.defstruct(
        "Line",
        [*numbers, *((name, Any, None) for name in unused)],
        rename={**found.names, **unused},
        kw_only=True,
        forbid_unknown_fields=True,
        gc=False,
    )


def _chunks(file: Path) -> Iterator[bytes]:
    """The file in pieces of whole lines."""
    begun = b""
    with file.open("rb", buffering=0) as stream:
        while read := stream.read(_CHUNK_BYTES):
            whole, end, rest = read.rpartition(b"\n")
            if end:
                yield begun + whole + end
                begun = rest
            else:
                begun += read
    if begun:
        yield begun


def _rows(decoder: msgspec.json.Decoder[msgspec.Struct], chunk: bytes) -> list[msgspec.Struct]:
    """The objects of some lines; ValueError unless there is one on each."""
    rows = decoder.decode_lines(chunk)
    if len(rows) != chunk.count(b"\n") + (not chunk.endswith(b"\n")):
        raise ValueError("not an object a line")
    return rows


def _arrays(rows: list[msgspec.Struct], found: Found) -> Arrays:
    n = len(rows)
    arrays: Arrays = {
        name: np.fromiter(map(attrgetter(name), rows), np.float64 if name == "t_s" else np.int64, n)
        for name in found.names
        if name != "hash_ids"
    }
    if "hash_ids" in found.names:
        ids = [*map(attrgetter("hash_ids"), rows)]
        arrays["id_counts"] = np.fromiter(map(len, ids), np.int64, n)
        arrays["ids"] = np.fromiter(chain.from_iterable(ids), np.int64)
    return arrays
