"""Asking the command line as a user would."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infermix.cli.main import main

Invoke = Callable[..., tuple[int, str, str]]
"""Words of a command → (exit status, stdout, stderr)."""


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        out, err = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, out, err

    return run
