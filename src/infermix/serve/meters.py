"""The gateway's metrics, by the names under which they are served."""

from __future__ import annotations

from infermix.serve.prometheus import SECONDS, TOKEN_SECONDS, Registry

RATIOS = (0.1, 0.25, 0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 2.0, 4.0, 10.0)
MICROSECONDS = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2)


class Meters:
    """Every metric of a gateway."""

    def __init__(self) -> None:
        r = self.registry = Registry()
        self.requests = r.counter(
            "infermix_requests_total",
            "Requests that were answered.",
            "model",
            "class",
            "backend",
            "chip",
            "tier",
            "code",
        )
        self.duration = r.histogram("infermix_request_duration_seconds", "To the last token.", SECONDS, "class", "chip")
        self.ttft = r.histogram("infermix_time_to_first_token_seconds", "To the first token.", SECONDS, "class", "chip")
        self.tpot = r.histogram(
            "infermix_time_per_output_token_seconds", "After the first token.", TOKEN_SECONDS, "class", "chip"
        )
        self.predicted_ttft = r.histogram("infermix_predicted_ttft_seconds", "As predicted.", SECONDS, "class", "chip")
        self.predicted_tpot = r.histogram(
            "infermix_predicted_tpot_seconds", "As predicted.", TOKEN_SECONDS, "class", "chip"
        )
        self.error = r.histogram("infermix_prediction_error_ratio", "Measured over predicted.", RATIOS, "chip", "what")
        self.offered = r.counter("infermix_offered_total", "Requests of each class, served or not.", "class")
        self.kept = r.counter(
            "infermix_promises_kept_total", "Requests that met every promise of their class.", "class"
        )
        self.violations = r.counter("infermix_slo_violations_total", "Promises broken.", "class", "slo")
        self.decision = r.histogram("infermix_decision_duration_seconds", "One decision.", MICROSECONDS, "policy")
        self.decisions = r.counter("infermix_decisions_total", "Choices of the policy.", "policy", "reason", "chip")
        self.queue_depth = r.gauge("infermix_queue_depth", "Requests that wait to be admitted.", "priority")
        self.queue_s = r.histogram("infermix_queue_seconds", "Wait to be admitted.", SECONDS)
        self.shed = r.counter("infermix_shed_total", "Requests turned away.", "reason")
        self.refused = r.counter("infermix_refused_total", "Requests that were not understood or not let in.", "code")
        self.inflight = r.gauge("infermix_inflight_requests", "Requests at the backend.", "backend", "pool", "chip")
        self.tokens = r.counter("infermix_tokens_total", "Tokens served.", "direction", "cached", "pool", "chip")
        self.cost = r.counter("infermix_cost_usd_total", "Price of what was served.", "chip", "tier")
        self.usd_per_hour = r.gauge("infermix_usd_per_hour", "Price of the backend's time.", "backend", "pool", "chip")
        self.up = r.gauge("infermix_backend_up", "1: the backend may be asked.", "backend")
        self.breaker = r.gauge("infermix_breaker_state", "0 closed, 1 half open, 2 open.", "backend")
        self.trips = r.counter("infermix_breaker_trips_total", "Times that the breaker opened.", "backend")
        self.retries = r.counter("infermix_retries_total", "Further tries before the first byte.", "cause")
        self.faults = r.counter("infermix_backend_faults_total", "Tries that failed.", "backend", "cause")
        self.midstream = r.counter(
            "infermix_midstream_failures_total", "Answers that broke after the first byte.", "outcome"
        )
        self.cancelled = r.counter("infermix_cancelled_total", "Requests whose client left.", "class")
        self.age = r.gauge("infermix_backend_metrics_age_seconds", "Age of the backend's own metrics.", "backend")
        self.correction = r.gauge("infermix_speed_correction", "Measured over modelled.", "backend", "what")
        self.overhead = r.histogram(
            "infermix_proxy_overhead_seconds", "From the request being whole to its being sent.", SECONDS
        )
        self.lost = r.gauge("infermix_worker_lost_requests_total", "Requests under way when a worker died.")
        self.worker_starts = r.gauge("infermix_worker_restarts", "Workers that died and were started anew.")


class Series:
    """The metrics of one class on one kind of chip in one pool, found once."""

    def __init__(self, meters: Meters, name: str, chip: str, pool: str) -> None:
        self.duration, self.ttft = meters.duration.histogram(name, chip), meters.ttft.histogram(name, chip)
        self.tpot = meters.tpot.histogram(name, chip)
        self.predicted_ttft = meters.predicted_ttft.histogram(name, chip)
        self.predicted_tpot = meters.predicted_tpot.histogram(name, chip)
        self.ttft_error, self.tpot_error = (meters.error.histogram(chip, what) for what in ("ttft", "tpot"))
        self.read, self.cached = (meters.tokens.of("input", cached, pool, chip) for cached in ("false", "true"))
        self.written = meters.tokens.of("output", "false", pool, chip)
        self.kept = meters.kept.of(name)
