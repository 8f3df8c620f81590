"""Measurement files: one row is one figure that somebody measured, with the configuration it was measured on."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import msgspec

from infermix.errors import InputError

NEEDED = ("id", "chip", "model", "metric", "value")
METRICS = ("ttft_ms", "tpot_ms", "output_tok_s", "total_tok_s", "tok_s_user", "step_ms", "prefill_tok_s")
QUALITIES = ("A", "B", "C", "D")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure; what the file leaves open is empty or None."""

    id: str
    source: str = ""
    chip: str
    num_chips: int | None = None
    model: str
    weight_dtype: str = ""
    kv_dtype: str = ""
    framework: str = ""
    tp: int | None = None
    pp: int | None = None
    ep: int | None = None
    dp: int | None = None
    scenario: str = ""
    batch_or_concurrency: str = ""
    input_len: float | None = None
    output_len: float | None = None
    metric: str
    value: float
    """In the unit that the metric's name ends with."""
    date: str = ""
    notes: str = ""
    quality: str = "B"
    spec_decode: str = ""

    @property
    def clients(self) -> int | None:
        """Requests in flight, where the file tells a number."""
        return _whole(self.batch_or_concurrency)


def read_rows(path: str | Path) -> list[Row]:
    """Rows of a CSV file with the columns of the measurement format.

    Raises
    ------
    InputError
        The file cannot be read, a needed column is missing, or a value is no positive number.
    """
    where = str(path)
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            _check_header(lines.fieldnames, where)
            return [_row(line, f"{where} line {lines.line_num}") for line in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise InputError(f"cannot be read: {reason}", where=where) from None


def _check_header(names: object, where: str) -> None:
    found = list(names) if isinstance(names, list) else []
    lacking = [name for name in NEEDED if name not in found]
    if lacking:
        raise InputError(f"the header lacks {', '.join(lacking)}", where=where, allowed=", ".join(NEEDED) + ", ...")


def _row(line: dict[str, str | None], where: str) -> Row:
    text = {key: (line.get(key) or "").strip() for key in Row.__struct_fields__}
    value = _number(text["value"])
    if value is None or value <= 0:
        raise InputError("not a positive number", where=f"{where}: value", value=text["value"])
    if text["metric"] not in METRICS:
        raise InputError("unknown metric", where=where, value=text["metric"], allowed=", ".join(METRICS))
    quality = text["quality"] or "B"
    if quality not in QUALITIES:
        raise InputError("unknown quality", where=where, value=quality, allowed=", ".join(QUALITIES))
    whole = {name: _whole(text[name]) for name in ("num_chips", "tp", "pp", "ep", "dp")}
    lengths = {name: _number(text[name]) for name in ("input_len", "output_len")}
    return msgspec.convert({**text, **whole, **lengths, "value": value, "quality": quality}, Row)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _whole(text: str) -> int | None:
    value = _number(text)
    return round(value) if value is not None and value >= 1 else None
