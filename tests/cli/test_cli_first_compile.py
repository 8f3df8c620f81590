"""The line that says why the first simulation on a machine takes half a minute longer."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from infermix import compiling, jit
from infermix.cli.first_compile import LINE, first_compile_said
from infermix.cli.output import counting, phases

pytestmark = pytest.mark.skipif(not jit.ENABLED, reason="nothing is compiled")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of compiled kernels that is not there yet."""
    monkeypatch.setattr(compiling.config, "CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def numba_compiles() -> None:
    """What Numba tells its listeners when it compiles something."""
    from numba.core.event import trigger_event

    with trigger_event("numba:compile", data={}):
        pass


def said(capsys: pytest.CaptureFixture[str], times: int = 2) -> str:
    with first_compile_said():
        for _ in range(times):
            numba_compiles()
    numba_compiles()
    out, err = capsys.readouterr()
    assert not out
    return err


def test_it_is_said_once_before_the_first_compilation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys) == LINE + "\n"


def test_an_index_of_nothing_is_nothing_compiled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "sim_0123").mkdir(parents=True)
    (folder / "sim_0123" / "note.txt").touch()
    assert said(capsys) == LINE + "\n"


def test_nothing_is_said_when_nothing_is_compiled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, times=0) == ""


def test_nothing_is_said_when_something_was_compiled_before(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "sim_0123").mkdir(parents=True)
    (folder / "sim_0123" / "kernel.run-1.py311.nbi").touch()
    assert said(capsys) == ""


def test_nothing_is_said_without_numba(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "ENABLED", False)
    assert said(capsys) == ""


@pytest.mark.parametrize("bar", [lambda: counting("arrivals"), phases], ids=["counting", "phases"])
def test_a_progress_bar_leaves_the_line_whole(
    bar: Callable[[], AbstractContextManager[Any]],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what makes rich take a pipe for a terminal
    monkeypatch.setenv("COLUMNS", "100")
    with bar():
        err = said(capsys)
    whole = [line for line in re.sub(r"\x1b\[[0-9?;]*[a-zA-Z]|\r", "\n", err).splitlines() if LINE in line]
    assert whole == [LINE]
