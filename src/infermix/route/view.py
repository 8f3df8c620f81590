"""What a policy may see. Both the simulator and a live gateway fill these two records.

There are no true output lengths here, and nothing that a real gateway could not know. Counters
are per instance and exact as of the last change of that instance (admission, finished step that
carried a prompt chunk, finished request); ``age_s`` says how old the reading is.
"""

from __future__ import annotations

from typing import NamedTuple

from infermix.arrays import Bools, Floats, Ints


class FleetView(NamedTuple):
    """Arrays over instances unless said otherwise."""

    pool: Ints
    """Pool of each instance."""
    eligible: Bools
    """May take this request: right model, class served here, prompt fits, not masked."""
    inflight: Ints
    """Requests accepted and not finished."""
    waiting: Ints
    """Of these, not admitted to the batch (or preempted)."""
    running: Ints
    """Of these, in the batch."""
    queued_tokens: Ints
    """Prompt tokens accepted, not cached, and not computed yet."""
    context_tokens: Ints
    """Prompt tokens of all requests in flight."""
    max_num_seqs: Ints
    role: Ints
    """0 both, 1 prefill, 2 decode."""
    prefill_s_per_token: Floats
    """Modelled seconds per uncached prompt token in a full chunk."""
    step_s: Floats
    """Modelled seconds of a decode step with a full batch at the typical context."""
    age_s: Floats
    """Age of the counters."""
    share: Floats
    """[class, pool] the share of the class that the plan sends to the pool."""
    sent: Ints
    """[class, pool] requests of the class sent to the pool so far."""


class Ask(NamedTuple):
    """What a gateway knows of a request when it arrives."""

    number: int
    class_id: int
    model_id: int
    session: int
    now_s: float
    input_tokens: int
    cached_tokens: int
    typical_output_tokens: float
    """Mean of the class so far known from history, not this request's length."""
    priority: int
    deadline_s: float
    u: float
    """A uniform number of this request."""
