"""What all tests share: without compilation, a test that takes too long is left where it stands.

``INFERMIX_JIT=0`` runs the kernels as plain Python, some hundred times slower, so that their lines can be counted
(``make coverage``). Tests that were written for compiled kernels then stop after some seconds and count as skipped;
whole plans, which simulate in threads, are not started, and properties are tried on three examples.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from hypothesis import is_hypothesis_test, settings

from infermix import jit

SECONDS = 3
"""A test's time without compilation; ``@pytest.mark.uncompiled_s(N)`` allows N."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs compiled kernels where there are none."""
    if jit.ENABLED:
        return
    for item in items:
        if item.get_closest_marker("compiled_only"):
            item.add_marker(pytest.mark.skip(reason="plans at full size need compiled kernels"))
        test = getattr(item, "obj", None)
        if is_hypothesis_test(test):
            test._hypothesis_internal_use_settings = settings(test._hypothesis_internal_use_settings, max_examples=3)


@pytest.fixture(autouse=True)
def limited_without_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Skip what would take minutes in plain Python."""
    if jit.ENABLED:
        yield
        return
    mark = request.node.get_closest_marker("uncompiled_s")

    def stop(_number: int, frame: FrameType | None) -> None:
        if frame is not None and "coverage" in frame.f_code.co_filename:
            signal.setitimer(signal.ITIMER_REAL, 0.01)  # it holds its lock: a moment later
            return
        pytest.skip("too long without compilation")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(mark.args[0] if mark else SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
