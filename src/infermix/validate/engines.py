"""How serving engines schedule unless they are told otherwise, by the name that a measurement gives them."""

from __future__ import annotations

import re

import msgspec

WHOLE = 1 << 20
"""Chunk of engines that read prompts whole."""


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """Scheduling defaults of one engine."""

    id: str
    pattern: str
    """Of the names that measurements use, lower case."""
    mixed: bool
    """Whether one step decodes and reads prompts; else decoding waits while prompts are read."""
    chunk_tokens: int
    """Most tokens of a step with prompts in it."""
    max_seqs: int
    one_prompt: bool = False
    """Whether the budget of a step is set for about one prompt beside the decoding sequences."""
    reserved: float = 0.5
    """Share of an answer for which room is kept: engines that preempt fill memory to what contexts take on average."""
    balanced_steps: int = 0
    """Prompts wait until each group of data-parallel attention has one, so many steps at most; 0: they do not wait."""
    narrow_kv: bool = False
    """Whether the KV cache is 8 bits wide where the weights have no more."""


ENGINES = (
    Engine(id="vllm-2023", pattern=r"vllm \(2023\)", mixed=False, chunk_tokens=WHOLE, max_seqs=256),
    Engine(id="vllm-2024", pattern=r"vllm 0\.[2-5]\b.*|vllm", mixed=False, chunk_tokens=WHOLE, max_seqs=256),
    Engine(id="vllm-day-0", pattern=r"vllm nightly \d{4}-.*", mixed=True, chunk_tokens=8192, max_seqs=1024),
    Engine(id="vllm", pattern=r"vllm.*", mixed=True, chunk_tokens=8192, max_seqs=1024),
    Engine(id="sglang", pattern=r"sglang.*", mixed=False, chunk_tokens=8192, max_seqs=2048),
    Engine(id="tensorrt-llm-2024", pattern=r"tensorrt-llm( 0\..*)?|tensorrt .*", mixed=False, chunk_tokens=WHOLE,
           max_seqs=2048, narrow_kv=True),
    Engine(id="tensorrt-llm", pattern=r"(trtllm|tensorrt-llm).*", mixed=True, chunk_tokens=8192, max_seqs=2048,
           one_prompt=True, reserved=1.0, balanced_steps=60, narrow_kv=True),
    Engine(id="llama.cpp", pattern=r"llama\.cpp.*", mixed=False, chunk_tokens=WHOLE, max_seqs=256),
    Engine(id="deepspeed", pattern=r"deepspeed.*", mixed=False, chunk_tokens=WHOLE, max_seqs=256),
    Engine(id="neuronx", pattern=r"transformers-neuronx.*", mixed=False, chunk_tokens=WHOLE, max_seqs=256),
    Engine(id="habana", pattern=r".*habana.*", mixed=False, chunk_tokens=WHOLE, max_seqs=1024),
    Engine(id="sambaflow", pattern=r"sambaflow.*", mixed=False, chunk_tokens=WHOLE, max_seqs=256),
)  # fmt: skip

OTHER = Engine(id="other", pattern="", mixed=True, chunk_tokens=8192, max_seqs=1024)
"""Whoever is not named."""


SUBMISSION = Engine(id="submission", pattern="", mixed=True, chunk_tokens=8192, max_seqs=2048, narrow_kv=True)
"""What vendors tune for a benchmark."""


def engine_of(framework: str, date: str = "", scenario: str = "") -> Engine:
    """The engine that a measurement names; a bare name is read as of its date.

    >>> engine_of("vllm 0.19.0").id, engine_of("vLLM", "2024-09").id, engine_of("own").id
    ('vllm', 'vllm-2024', 'other')
    """
    if scenario.startswith("mlperf"):
        return SUBMISSION
    name = framework.lower().strip()
    recent = date[:4] >= "2025"
    for engine in ENGINES:
        if re.fullmatch(engine.pattern, name) and not (engine.id.endswith("-2024") and recent):
            return engine
    return OTHER
