"""Settings of an engine beside its step times."""

from __future__ import annotations

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.errors import InputError
from infermix.sim.state import PoolSpec

BLOCK_TOKENS = 16
PLENTY_BLOCKS = 1 << 40
"""KV memory that never fills."""


class Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an engine makes up its steps.

    ``kv_tokens`` None: KV memory is not known, and taken to be enough.
    """

    max_num_seqs: int
    max_batched_tokens: int
    kv_tokens: int | None = None
    instances: int = 1

    def check(self) -> None:
        """Raise InputError for settings that cannot be."""
        for name in ("max_num_seqs", "max_batched_tokens", "instances"):
            if getattr(self, name) < 1:
                raise InputError("must be 1 or more", where=name, value=getattr(self, name))
        if self.kv_tokens is not None and self.kv_tokens < BLOCK_TOKENS:
            raise InputError("too little KV memory", where="kv_tokens", value=self.kv_tokens)

    @property
    def blocks(self) -> int:
        """KV memory in blocks."""
        return PLENTY_BLOCKS if self.kv_tokens is None else self.kv_tokens // BLOCK_TOKENS

    def pool(self, base_s: Floats, per_seq_s: float, kv_s: float, pair_s: float, classes: int) -> PoolSpec:
        """A pool with these step times; what policies are told of its speed is that of full batches."""
        seqs = min(self.max_num_seqs, self.max_batched_tokens)
        return PoolSpec(
            instances=self.instances,
            decode_s=base_s,
            mixed_s=base_s,
            per_seq_s=per_seq_s,
            kv_s=kv_s,
            pair_s=pair_s,
            load_s=0.0,
            block_tokens=BLOCK_TOKENS,
            blocks=self.blocks,
            max_num_seqs=seqs,
            max_batched_tokens=self.max_batched_tokens,
            serves=np.ones(classes, dtype=np.bool_),
            prefill_s_per_token=float(base_s[-1]) / self.max_batched_tokens,
            step_s=float(base_s[seqs]) + seqs * per_seq_s,
        )
