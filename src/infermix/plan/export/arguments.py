"""A pool of a plan as arguments of a serving engine."""

from __future__ import annotations

from collections.abc import Callable

from infermix.catalog.records import Model
from infermix.perf.specdec import Speculation, read_speculation
from infermix.plan.export.engines import APART, Engine
from infermix.plan.result import PoolPlan

KV_DTYPES: dict[Engine, dict[str, str]] = {
    "vllm": {"fp8": "fp8"},
    "sglang": {"fp8": "fp8_e4m3"},
    "trtllm": {"fp8": "fp8", "nvfp4": "nvfp4"},
}
"""KV dtype of a plan → an engine's word for it; the model's own dtype needs no argument."""


def arguments(engine: Engine, pool: PoolPlan, model: Model) -> list[str]:
    """The command that starts one instance, one argument with its value an entry; ``$MODELS`` and ``$PORT`` are open.

    Sequences and tokens of a plan are those of an instance; engines count them for each group of ``dp``.
    """
    build: dict[Engine, Callable[[PoolPlan, Model], list[str]]] = {
        "vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm,
    }  # fmt: skip
    return build[engine](pool, model)


def notes(engine: Engine, pool: PoolPlan, model: Model) -> list[str]:
    """What no argument of that engine says: weights that must be made first, KV dtypes it has no word for, drafts."""
    found = []
    if pool.weights != model.native_weights and not _quantised_at_start(engine, pool, model):
        found.append(f"needs a checkpoint in {pool.weights} (the published one is in {model.native_weights})")
    if pool.kv not in ("bf16", "fp16", *KV_DTYPES[engine]):
        found.append(f"the plan keeps KV in {pool.kv}, for which no argument is known here")
    if engine == "trtllm" and _options(pool):
        found.append(f"in the file $OPTIONS: {'; '.join(_options(pool))}")
    spec = _spec(pool)
    if spec is not None and spec.method == "eagle":
        found.append("$DRAFT is a draft model trained for this model")
    if engine == "trtllm" and spec is not None:
        found.append(f"in the file $OPTIONS: speculative_config for {spec}")
    if pool.role != "both":
        found.append(f"{pool.role} only: {APART[engine]}")
    return found


def _quantised_at_start(engine: Engine, pool: PoolPlan, model: Model) -> bool:
    """Whether the engine itself makes the plan's weights of the published ones."""
    return engine == "vllm" and pool.weights == "fp8" and model.native_weights in ("bf16", "fp16")


def _groups(pool: PoolPlan) -> int:
    return pool.dp or 1


def _per_group(count: int, pool: PoolPlan) -> int:
    return -(-count // _groups(pool))


def _spec(pool: PoolPlan) -> Speculation | None:
    return None if pool.spec is None else read_speculation(pool.spec)


def _when(*pairs: tuple[object, str]) -> list[str]:
    return [text for said, text in pairs if said]


def _vllm(pool: PoolPlan, model: Model) -> list[str]:
    spec = _spec(pool)
    drafted = ""
    if spec is not None:
        by = {"mtp": '"method": "mtp"', "ngram": '"method": "ngram"', "eagle": '"method": "eagle3", "model": "$DRAFT"'}
        drafted = f'{{{by[spec.method]}, "num_speculative_tokens": {spec.depth}}}'.replace('"', '\\"')
    kv = KV_DTYPES["vllm"].get(pool.kv)
    transfer = '{\\"kv_connector\\": \\"NixlConnector\\", \\"kv_role\\": \\"kv_both\\"}'
    return [
        f'vllm serve "$MODELS/{model.id}"',
        f"--served-model-name {model.id}",
        f"--tensor-parallel-size {pool.tp or 1}",
        *_when(
            ((pool.pp or 1) > 1, f"--pipeline-parallel-size {pool.pp}"),
            (_groups(pool) > 1, f"--data-parallel-size {pool.dp}"),
            ((pool.ep or 1) > 1, "--enable-expert-parallel"),
            (_quantised_at_start("vllm", pool, model), "--quantization fp8"),
            (kv, f"--kv-cache-dtype {kv}"),
        ),
        f"--max-num-seqs {_per_group(pool.max_num_seqs, pool)}",
        f"--max-num-batched-tokens {_per_group(pool.max_batched_tokens, pool)}",
        "--enable-prefix-caching",
        *_when(
            (drafted, f'--speculative-config "{drafted}"'),
            (pool.role != "both", f'--kv-transfer-config "{transfer}"'),
        ),
        '--port "$PORT"',
    ]


def _sglang(pool: PoolPlan, model: Model) -> list[str]:
    spec = _spec(pool)
    algorithm = {"mtp": "NEXTN", "eagle": "EAGLE3", "ngram": "NGRAM"}[spec.method] if spec else ""
    kv = KV_DTYPES["sglang"].get(pool.kv)
    return [
        f'python -m sglang.launch_server --model-path "$MODELS/{model.id}"',
        f"--served-model-name {model.id}",
        f"--tp-size {(pool.tp or 1) * _groups(pool)}",
        *_when(
            ((pool.pp or 1) > 1, f"--pp-size {pool.pp}"),
            (_groups(pool) > 1, f"--dp-size {pool.dp} --enable-dp-attention"),
            ((pool.ep or 1) > 1, f"--ep-size {pool.ep}"),
            (kv, f"--kv-cache-dtype {kv}"),
        ),
        f"--max-running-requests {pool.max_num_seqs}",
        f"--chunked-prefill-size {pool.max_batched_tokens}",
        *_when(
            (algorithm, f"--speculative-algorithm {algorithm}"),
            (spec and spec.method == "eagle", '--speculative-draft-model-path "$DRAFT"'),
            (spec and spec.method != "ngram", f"--speculative-num-steps {spec.depth if spec else 0}"),
            (pool.role != "both", f"--disaggregation-mode {pool.role}"),
        ),
        '--port "$PORT"',
    ]


def _options(pool: PoolPlan) -> list[str]:
    """Keys of TensorRT-LLM's configuration file that no argument sets."""
    kv = KV_DTYPES["trtllm"].get(pool.kv)
    return _when((kv, f"kv_cache_config: {{dtype: {kv}}}"), (_groups(pool) > 1, "enable_attention_dp: true"))


def _trtllm(pool: PoolPlan, model: Model) -> list[str]:
    return [
        f'trtllm-serve "$MODELS/{model.id}"',
        f"--tp_size {(pool.tp or 1) * _groups(pool)}",
        *_when(((pool.pp or 1) > 1, f"--pp_size {pool.pp}"), ((pool.ep or 1) > 1, f"--ep_size {pool.ep}")),
        f"--max_batch_size {_per_group(pool.max_num_seqs, pool)}",
        f"--max_num_tokens {_per_group(pool.max_batched_tokens, pool)}",
        *_when((_options(pool) or pool.spec, '--extra_llm_api_options "$OPTIONS"')),
        '--port "$PORT"',
    ]
