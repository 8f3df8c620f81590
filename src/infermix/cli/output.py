"""What every command needs to answer: consoles, JSON files, figures for people, one-line errors."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from infermix.catalog.records import Figure
from infermix.errors import InfermixError, InputError, NoAnswer

WIDTH = 100
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))
_NAMES = {"byte": "B", "byte/s": "B/s", "transistors": "", "parameters": ""}


def console_out(json_to_stdout: bool) -> Console:
    """Where tables go: stdout, or stderr while JSON takes stdout."""
    stream = sys.stderr if json_to_stdout else sys.stdout
    wide = Console(file=stream)
    return Console(file=stream, width=min(WIDTH, wide.width) if wide.is_terminal else WIDTH, highlight=False)


def write_json(path: str | Path, obj: object) -> None:
    """Write ``obj`` as JSON with stable keys and a newline at the end; NaN becomes null, ``-`` is stdout.

    Raises ``InputError`` when the file cannot be written.
    """
    plain = _plain(msgspec.to_builtins(obj, str_keys=True, enc_hook=_from_array))
    text = msgspec.json.format(msgspec.json.encode(plain, order="sorted"), indent=2).decode() + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    write_text(path, text)


def write_text(path: str | Path, text: str) -> None:
    """Write a file; raises ``InputError`` when that cannot be."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as fault:
        raise InputError(f"cannot be written: {fault.strerror}", where=str(path)) from None


def _from_array(obj: Any) -> Any:
    """NumPy scalars and arrays without importing NumPy."""
    if hasattr(obj, "tolist"):
        return obj.tolist()
    raise NotImplementedError(f"{type(obj).__name__} has no JSON form")


def _plain(obj: Any) -> Any:
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {str(key): _plain(item) for key, item in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(item) for item in obj]
    return obj


class BadInput(click.ClickException):
    """Malformed input, shown by click in one line."""

    exit_code = InputError.exit_code


class Unanswered(click.ClickException):
    """A well-formed question without an answer, shown by click in one line."""

    exit_code = NoAnswer.exit_code


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn infermix's errors into one line on stderr and the exit code that belongs to them."""
    try:
        yield
    except NoAnswer as fault:
        raise Unanswered(str(fault)) from None
    except InfermixError as fault:
        raise BadInput(str(fault)) from None


def human(value: float, unit: str) -> str:
    """A quantity in the scale that people use.

    >>> human(4.8e12, "byte/s"), human(1e-5, "s"), human(2.95, "USD/h"), human(0.046225, "m2")
    ('4.8 TB/s', '10 us', '2.95 USD/h', '46,225 mm2')
    """
    if unit.startswith("USD"):
        return f"{value:,.0f} USD" if unit == "USD" and value >= 100 else f"{_money(value)} {unit}"
    if unit == "m2":
        return f"{_digits(value * 1e6)} mm2"
    if unit in ("1", "chips", "tokens"):
        return f"{_digits(value)} {unit if unit != '1' else ''}".strip()
    table = _SMALL if unit == "s" else _PREFIXES
    scale, prefix = next(((s, p) for s, p in table if value >= s * (1 - 1e-9)), (1.0, ""))
    return f"{_digits(value / scale)} {prefix}{_NAMES.get(unit, unit)}".strip()


def human_figure(figure: Figure | None) -> str:
    """A figure with its range, or nothing."""
    if figure is None:
        return ""
    text = human(figure.value, figure.unit)
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({human(figure.low, figure.unit)} to {human(figure.high, figure.unit)})"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 10_000 else f"{float(f'{value:.5g}'):,.10g}"


def _money(value: float) -> str:
    return f"{value:,.2f}" if math.isclose(value, round(value, 2), abs_tol=1e-9) else f"{value:,.4g}"


def one_line(message: str) -> str:
    r"""A message without line breaks.

    >>> one_line("a\n  b")
    'a b'
    """
    return " ".join(message.split())


@contextlib.contextmanager
def phases(quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done; nothing when stderr is not a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda text: bar.update(task, description=text)


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr for work that can be counted; nothing when stderr is not a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _total: None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
