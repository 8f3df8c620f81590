#!/bin/sh
# Pool gpu: 3 x gpt-oss-120b on 1 x h200-x8 (tp 2).
# A sketch: it starts one instance. Start one for every entry of this pool in gateway.toml.
# Use: MODELS=folder of checkpoints PORT=8000 sh gpu.sh [vllm | sglang | trtllm]; vllm unless told.
MODELS="${MODELS:?folder of the checkpoints}"
PORT="${PORT:-8000}"
case "${1:-vllm}" in
vllm)
    # runs here: https://docs.vllm.ai/en/latest/getting_started/installation/gpu/
    # arguments: https://docs.vllm.ai/en/latest/cli/serve/
    exec vllm serve "$MODELS/gpt-oss-120b" \
        --served-model-name gpt-oss-120b \
        --tensor-parallel-size 2 \
        --kv-cache-dtype fp8 \
        --max-num-seqs 256 \
        --max-num-batched-tokens 8192 \
        --enable-prefix-caching \
        --port "$PORT" ;;
sglang)
    # runs here: https://docs.sglang.io/docs/hardware-platforms/overview.md
    # arguments: https://docs.sglang.io/advanced_features/server_arguments.html
    exec python -m sglang.launch_server --model-path "$MODELS/gpt-oss-120b" \
        --served-model-name gpt-oss-120b \
        --tp-size 2 \
        --kv-cache-dtype fp8_e4m3 \
        --max-running-requests 256 \
        --chunked-prefill-size 8192 \
        --port "$PORT" ;;
trtllm)
    # runs here: https://nvidia.github.io/TensorRT-LLM/supported-hardware.html
    # arguments: https://nvidia.github.io/TensorRT-LLM/commands/trtllm-serve/trtllm-serve.html
    # in the file $OPTIONS: kv_cache_config: {dtype: fp8}
    exec trtllm-serve "$MODELS/gpt-oss-120b" \
        --tp_size 2 \
        --max_batch_size 256 \
        --max_num_tokens 8192 \
        --extra_llm_api_options "$OPTIONS" \
        --port "$PORT" ;;
*)
    echo "no such engine here: $1; allowed: vllm | sglang | trtllm" >&2
    exit 2 ;;
esac
