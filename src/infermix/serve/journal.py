"""Files that a gateway writes a line at a time: JSON objects, buffered, without prompts, answers or keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO

import msgspec

from infermix.errors import InputError

_ENCODE = msgspec.json.Encoder().encode


class Journal:
    """Lines of JSON to a file (``-``: stderr)."""

    def __init__(self, path: str, where: str) -> None:
        try:
            self._file: IO[bytes] = sys.stderr.buffer if path == "-" else Path(path).open("ab")  # noqa: SIM115
        except OSError as fault:
            raise InputError(f"cannot be written: {fault.strerror}", where=where, value=path) from None
        self._lines: list[bytes] = []
        self.path = path

    def add(self, record: object) -> None:
        """One more line."""
        self._lines.append(_ENCODE(record))
        if len(self._lines) >= 64:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._lines:
            self._file.write(b"\n".join(self._lines) + b"\n")
            self._file.flush()
            self._lines.clear()

    def close(self) -> None:
        """Write what waits and close."""
        self.flush()
        if self.path != "-":
            self._file.close()
