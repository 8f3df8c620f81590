"""What ``infermix top`` makes of two readings of a gateway's metrics."""

from __future__ import annotations

import math

import pytest
from rich.console import Console

from infermix.errors import InputError
from infermix.report.live import live_view
from infermix.serve.watch import fetch, now, quantile, read_metrics

BEFORE = """
# TYPE infermix_offered_total counter
infermix_offered_total{class="coding"} 10
infermix_promises_kept_total{class="coding"} 10
infermix_usd_per_hour{backend="fast/0",pool="fast",chip="cs3"} 100
infermix_usd_per_hour{backend="fast/1",pool="fast",chip="cs3"} 100
infermix_backend_up{backend="fast/0"} 1
infermix_backend_up{backend="fast/1"} 1
infermix_tokens_total{direction="input",cached="false",pool="fast",chip="cs3"} 100
infermix_time_to_first_token_seconds_bucket{class="coding",chip="cs3",le="0.1"} 10
infermix_time_to_first_token_seconds_bucket{class="coding",chip="cs3",le="0.2"} 10
infermix_time_to_first_token_seconds_bucket{class="coding",chip="cs3",le="+Inf"} 10
"""
AFTER = """
infermix_offered_total{class="coding"} 30
infermix_promises_kept_total{class="coding"} 27
infermix_requests_total{model="m",class="coding",backend="fast/0",chip="cs3",tier="auto",code="200"} 27
infermix_requests_total{model="m",class="coding",backend="slow/0",chip="h200-x1",tier="auto",code="200"} 3
infermix_usd_per_hour{backend="fast/0",pool="fast",chip="cs3"} 100
infermix_usd_per_hour{backend="fast/1",pool="fast",chip="cs3"} 100
infermix_usd_per_hour{backend="slow/0",pool="slow",chip="h200-x1"} 3.5
infermix_backend_up{backend="fast/0"} 1
infermix_backend_up{backend="fast/1"} 0
infermix_backend_up{backend="slow/0"} 1
infermix_inflight_requests{backend="fast/0",pool="fast",chip="cs3"} 3
infermix_inflight_requests{backend="fast/1",pool="fast",chip="cs3"} 0
infermix_inflight_requests{backend="slow/0",pool="slow",chip="h200-x1"} 0
infermix_tokens_total{direction="input",cached="false",pool="fast",chip="cs3"} 200
infermix_tokens_total{direction="input",cached="true",pool="fast",chip="cs3"} 300
infermix_tokens_total{direction="output",cached="false",pool="fast",chip="cs3"} 50
infermix_request_duration_seconds_count{class="coding",chip="cs3"} 27
infermix_request_duration_seconds_count{class="coding",chip="h200-x1"} 3
infermix_time_to_first_token_seconds_bucket{class="coding",chip="cs3",le="0.1"} 10
infermix_time_to_first_token_seconds_bucket{class="coding",chip="cs3",le="0.2"} 30
infermix_time_to_first_token_seconds_bucket{class="coding",chip="cs3",le="+Inf"} 30
infermix_queue_depth{priority="0"} 2
infermix_shed_total{reason="full"} 4
infermix_retries_total{cause="connect"} 5
"""


def test_two_readings_tell_rates_shares_and_quantiles_of_the_time_between() -> None:
    seen = now(read_metrics(BEFORE, 5.0), read_metrics(AFTER, 15.0))
    fast, slow = seen.pools
    assert (fast.pool, fast.chip, fast.instances, fast.up, fast.inflight) == ("fast", "cs3", 2, 1, 3)
    assert (fast.output_tokens_per_s, fast.input_tokens_per_s, fast.cached_share) == (5.0, 40.0, 0.75)
    assert math.isnan(slow.cached_share) and seen.usd_per_hour == 203.5
    (coding,) = seen.classes
    assert (coding.offered_per_s, coding.attainment) == (2.0, 0.9)
    assert coding.served_by == {"cs3": 0.9, "h200-x1": 0.1}
    assert coding.ttft_s == pytest.approx((0.15, 0.199)) and math.isnan(coding.tpot_s[0])
    assert (seen.queued, seen.shed, seen.retries) == (2, 4, 5)


def test_quantiles_beyond_the_last_edge_are_that_edge() -> None:
    assert quantile({1.0: 1.0, math.inf: 10.0}, 0.9) == 1.0
    assert math.isnan(quantile({1.0: 0.0, math.inf: 0.0}, 0.5))


def test_the_view_says_who_keeps_his_promise() -> None:
    console = Console(width=120, record=True, file=None)
    with console.capture() as capture:
        console.print(live_view(now(read_metrics(BEFORE, 0.0), read_metrics(AFTER, 10.0)), {"coding": 0.95}, "here"))
    text = capture.get()
    assert "$204/h" in text and "2 waiting, 4 turned away, 5 tried again" in text
    assert "1/2" in text and "90.0%" in text and "95.0%" in text and "cs3 90.0%, h200-x1 10.0%" in text


def test_nobody_there_is_told_in_one_line() -> None:
    with pytest.raises(InputError, match="infermix serve"):
        fetch("http://127.0.0.1:9", timeout_s=1.0)
    with pytest.raises(InputError, match="http://HOST:PORT"):
        fetch("127.0.0.1:8080")
