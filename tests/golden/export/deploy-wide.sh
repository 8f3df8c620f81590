#!/bin/sh
# Pool wide: 1 x gpt-oss-120b on 1 x mi355x-x8 (dp 8, ep 8).
# A sketch: it starts one instance. Start one for every entry of this pool in gateway.toml.
# Use: MODELS=folder of checkpoints PORT=8000 sh wide.sh [vllm | sglang]; vllm unless told.
MODELS="${MODELS:?folder of the checkpoints}"
PORT="${PORT:-8000}"
case "${1:-vllm}" in
vllm)
    # runs here: https://docs.vllm.ai/en/latest/getting_started/installation/gpu/
    # arguments: https://docs.vllm.ai/en/latest/cli/serve/
    # needs a checkpoint in fp8 (the published one is in mxfp4)
    # $DRAFT is a draft model trained for this model
    exec vllm serve "$MODELS/gpt-oss-120b" \
        --served-model-name gpt-oss-120b \
        --tensor-parallel-size 1 \
        --data-parallel-size 8 \
        --enable-expert-parallel \
        --max-num-seqs 32 \
        --max-num-batched-tokens 1024 \
        --enable-prefix-caching \
        --speculative-config "{\"method\": \"eagle3\", \"model\": \"$DRAFT\", \"num_speculative_tokens\": 2}" \
        --port "$PORT" ;;
sglang)
    # runs here: https://docs.sglang.io/docs/hardware-platforms/overview.md
    # arguments: https://docs.sglang.io/advanced_features/server_arguments.html
    # needs a checkpoint in fp8 (the published one is in mxfp4)
    # $DRAFT is a draft model trained for this model
    exec python -m sglang.launch_server --model-path "$MODELS/gpt-oss-120b" \
        --served-model-name gpt-oss-120b \
        --tp-size 8 \
        --dp-size 8 --enable-dp-attention \
        --ep-size 8 \
        --max-running-requests 256 \
        --chunked-prefill-size 8192 \
        --speculative-algorithm EAGLE3 \
        --speculative-draft-model-path "$DRAFT" \
        --speculative-num-steps 2 \
        --port "$PORT" ;;
*)
    echo "no such engine here: $1; allowed: vllm | sglang" >&2
    exit 2 ;;
esac
