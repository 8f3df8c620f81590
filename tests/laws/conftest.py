"""Every law that asks for ``engine`` is tested on the naive twin and on the compiled kernel."""

from __future__ import annotations

import pytest

from tests.laws.engines import kernel_engine, naive_engine
from tests.laws.strategies import Engine


@pytest.fixture(scope="session", params=["naive", "kernel"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "naive":
        return naive_engine
    pytest.importorskip("infermix.sim.run")
    return kernel_engine
