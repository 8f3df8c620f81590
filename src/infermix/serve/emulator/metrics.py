"""The metrics of one emulated engine, by the names of vLLM, so that any router that reads those can stand in front."""

from __future__ import annotations

from infermix.serve.emulator.state import Engine, Sequence
from infermix.serve.prometheus import SECONDS, TOKEN_SECONDS, TOKENS, Registry


class EngineMetrics:
    """What one engine tells."""

    def __init__(self, engine: Engine, model: str) -> None:
        self.engine, self.labels = engine, (model, "0")
        self.registry = registry = Registry()
        registry.before.append(self._bring_up_to_date)
        names = ("model_name", "engine")
        gauges = {
            "num_requests_running": "Requests in the batch.",
            "num_requests_waiting": "Requests that wait for a place in the batch.",
            "kv_cache_usage_perc": "Share of the KV cache in use; 1 is all of it.",
            "gpu_cache_usage_perc": "The same, by its old name.",
            "gpu_prefix_cache_hit_rate": "Share of the prompt tokens found in the prefix cache, since the start.",
        }
        counters = {
            "prompt_tokens_total": "Prompt tokens computed.",
            "generation_tokens_total": "Tokens generated.",
            "prefix_cache_queries_total": "Prompt tokens looked up in the prefix cache.",
            "prefix_cache_hits_total": "Of these, found.",
            "gpu_prefix_cache_queries_total": "As prefix_cache_queries_total, by its old name.",
            "gpu_prefix_cache_hits_total": "As prefix_cache_hits_total, by its old name.",
            "num_preemptions_total": "Preemptions.",
        }
        self._gauges = {name: registry.gauge(f"vllm:{name}", text, *names) for name, text in gauges.items()}
        self._counters = {name: registry.counter(f"vllm:{name}", text, *names) for name, text in counters.items()}
        self._finished = registry.counter("vllm:request_success_total", "Requests done.", *names, "finished_reason")
        times = {
            "time_to_first_token_seconds": "Arrival to first token.",
            "request_queue_time_seconds": "Arrival to admission.",
            "request_prefill_time_seconds": "Admission to first token.",
            "request_decode_time_seconds": "First token to last.",
            "request_inference_time_seconds": "Admission to last token.",
            "e2e_request_latency_seconds": "Arrival to last token.",
        }
        self._times = {name: registry.histogram(f"vllm:{name}", text, SECONDS, *names) for name, text in times.items()}
        tokens = {"request_prompt_tokens": "Of a prompt.", "request_generation_tokens": "Of an answer.",
                  "request_params_max_tokens": "Asked for."}  # fmt: skip
        self._tokens = {name: registry.histogram(f"vllm:{name}", text, TOKENS, *names) for name, text in tokens.items()}
        self._tpot = registry.histogram(
            "vllm:request_time_per_output_token_seconds", "Mean of a request.", TOKEN_SECONDS, *names
        )
        self._itl = registry.histogram("vllm:inter_token_latency_seconds", "As above.", TOKEN_SECONDS, *names)
        self._config(model)

    def _config(self, model: str) -> None:
        spec = self.engine.spec
        told = self.registry.gauge(
            "vllm:cache_config_info", "KV blocks.", "block_size", "num_gpu_blocks", "enable_prefix_caching", "engine"
        )
        told.of(str(spec.block_tokens), str(spec.blocks), str(spec.prefix_cache), "0").set(1)
        lora = self.registry.gauge(
            "vllm:lora_requests_info", "None is served.", "max_lora", "waiting_lora_adapters", "running_lora_adapters"
        )
        lora.of("0", "", "").set(1)
        del model

    def _bring_up_to_date(self) -> None:
        engine, totals, labels = self.engine, self.engine.totals, self.labels
        hits = totals.hit_tokens / totals.queried_tokens if totals.queried_tokens else 0.0
        gauges = {
            "num_requests_running": float(len(engine.running)),
            "num_requests_waiting": float(len(engine.waiting)),
            "kv_cache_usage_perc": engine.kv_usage,
            "gpu_cache_usage_perc": engine.kv_usage,
            "gpu_prefix_cache_hit_rate": hits,
        }
        for name, value in gauges.items():
            self._gauges[name].of(*labels).set(value)
        counts = {
            "prompt_tokens_total": totals.prompt_tokens,
            "generation_tokens_total": totals.generated_tokens,
            "prefix_cache_queries_total": totals.queried_tokens,
            "prefix_cache_hits_total": totals.hit_tokens,
            "gpu_prefix_cache_queries_total": totals.queried_tokens,
            "gpu_prefix_cache_hits_total": totals.hit_tokens,
            "num_preemptions_total": totals.preemptions,
        }
        for name, count in counts.items():
            self._counters[name].of(*labels).set(count)

    def done(self, seq: Sequence, reason: str, most_tokens: int | None) -> None:
        """A request has ended."""
        self._finished.add(*self.labels, reason)
        if reason == "abort":
            return
        waited, read, wrote = seq.admit_s - seq.arrival_s, seq.first_s - seq.admit_s, seq.last_s - seq.first_s
        for name, value in (
            ("time_to_first_token_seconds", waited + read),
            ("request_queue_time_seconds", waited),
            ("request_prefill_time_seconds", read),
            ("request_decode_time_seconds", wrote),
            ("request_inference_time_seconds", read + wrote),
            ("e2e_request_latency_seconds", waited + read + wrote),
        ):
            self._times[name].observe(value, *self.labels)
        self._tokens["request_prompt_tokens"].observe(seq.input, *self.labels)
        self._tokens["request_generation_tokens"].observe(seq.generated, *self.labels)
        if most_tokens is not None:
            self._tokens["request_params_max_tokens"].observe(most_tokens, *self.labels)
        if seq.generated > 1:
            for histogram in (self._tpot, self._itl):
                histogram.observe(wrote / (seq.generated - 1), *self.labels)
