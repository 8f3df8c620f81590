"""Where the recorded traces are, when they are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("INFERMIX_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


@pytest.fixture(scope="session")
def traces_dir() -> Path:
    folder = SHARED / "traces"
    if not folder.is_dir():
        pytest.skip(f"no recorded traces in {folder}; set INFERMIX_SHARED_DATA to the folder that holds traces/")
    return folder
