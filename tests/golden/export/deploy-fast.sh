#!/bin/sh
# Pool fast: 2 x gpt-oss-120b on 6 x cs3 (3 systems in line).
# A sketch: it starts one instance. Start one for every entry of this pool in gateway.toml.
echo 'Cerebras WSE-3 / CS-3 runs none of vLLM, SGLang and TensorRT-LLM, as far as is known; its maker'"'"'s own server, or its hosted endpoint, goes into gateway.toml as engine = openai' >&2
exit 1
