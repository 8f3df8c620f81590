"""What a policy may see. Both the simulator and a live gateway fill these two records.

There are no true output lengths here, and nothing that a real gateway could not know. Counters
are per instance and exact as of the last change of that instance (admission, finished step that
carried a prompt chunk, finished request); ``age_s`` says how old the reading is. Modelled speeds
are as old as the step table, prices and promises as old as the study: neither changes while a
gateway runs.
"""

from __future__ import annotations

from typing import NamedTuple

from infermix.arrays import Bools, Floats, Ints


class Promises(NamedTuple):
    """Arrays over classes: what was promised, and what waiting costs. As old as the study."""

    slo_ttft_s: Floats
    """Time to first token [s]; inf: not promised (so with the other targets)."""
    slo_ttft_s_per_token: Floats
    """Added to it for every uncached input token [s]."""
    slo_tpot_s: Floats
    """Time per output token after the first [s]."""
    slo_e2e_s: Floats
    """Time to last token [s]."""
    delay_usd_per_s: Floats
    """What a second until the last token costs the user [USD/s]; 0: nothing is known."""
    refuse_late: Bools
    """Whether a request that can no longer be in time may be refused."""


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
    """[class, pool] requests of the class sent to the pool so far; exact, the gateway's own count."""
    kv_capacity_tokens: Ints
    """Tokens that the KV cache holds; static."""
    step_base_s: Floats
    """Modelled seconds of a decode step: this, and the next two for what it carries; static, and a straight line
    through a curve (``docs/design/routing.md`` says how far off)."""
    step_per_seq_s: Floats
    """For each sequence."""
    step_per_kv_s: Floats
    """For each KV token read."""
    usd_per_s: Floats
    """Price of the instance, its share of whole systems [USD/s]; static. NaN: unknown, and then held to be dearer
    than every known price."""
    slo_ttft_s: Floats
    """[class] this and what follows: see ``Promises``."""
    slo_ttft_s_per_token: Floats
    slo_tpot_s: Floats
    slo_e2e_s: Floats
    delay_usd_per_s: Floats
    refuse_late: Bools


class Ask(NamedTuple):
    """What a gateway knows of a request when it arrives."""

    number: int
    class_id: int
    model_id: int
    session: int
    """Number of the conversation (-1: none)."""
    now_s: float
    input_tokens: int
    cached_tokens: int
    typical_output_tokens: float
    """Mean of the class so far known from history, not this request's length."""
    priority: int
    deadline_s: float
    """When the last token must be out, if the request says so (inf: it does not)."""
    u: float
    """A uniform number of this request."""
    prefix: int = -1
    """Hash of the first blocks of the prompt, equal where prompts begin alike (-1: not known)."""
