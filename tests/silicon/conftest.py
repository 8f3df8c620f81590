"""What the command line says of a file that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infermix.cli.main import main

Told = Callable[..., str]
"""(text of a file, verb, exit status) → the one line that is said of it."""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    monkeypatch.chdir(tmp_path)

    def run(text: str, verb: str, code: int = 2) -> str:
        Path("s.toml").write_text(text)
        with pytest.raises(SystemExit) as left:
            main(["silicon", verb, "s.toml"])
        out, err = capsys.readouterr()
        assert (left.value.code, out) == (code, ""), (left.value.code, out, err)
        assert err.startswith("infermix: ") and err.count("\n") == 1, err
        assert code != 2 or err.startswith("infermix: s.toml: "), err
        return err

    return run
