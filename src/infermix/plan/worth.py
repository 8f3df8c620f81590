"""What a request is worth where it is served: its price at that speed, and the time that it saves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from infermix.plan.offers import Api
from infermix.plan.options import Option
from infermix.plan.question import Demand
from infermix.units import SECONDS_PER_HOUR, TOKENS_PER_MTOK
from infermix.workload.worth import Worth


class Speed(NamedTuple):
    """What a user of a class sees."""

    ttft_s: float
    tokens_per_s: float


def speed_of(option: Option, demand: Demand) -> Speed:
    """Speed of an option whose batch is full, as far as its memory holds contexts of the class: a cautious one."""
    table = option.table
    inputs, cached, outputs = (float(column.mean()) for column in demand.lengths)
    context, chunk = inputs + outputs / 2, option.deployment.max_batched_tokens
    batch = int(max(1, min(option.deployment.max_num_seqs, table.blocks * table.block_tokens // max(context, 1.0))))
    step = table.decode_s[min(batch, len(table.decode_s) - 1)] + batch * (table.per_seq_s + table.kv_s * context)
    fresh = inputs - cached
    full, rest = divmod(fresh, chunk)
    first = full * table.mixed_s[chunk] + table.mixed_s[int(rest)] * (rest > 0)
    pairs = fresh * cached + fresh * (fresh + 1) / 2
    ttft = first + table.kv_s * inputs + table.pair_s * pairs + table.load_s * cached
    return Speed(float(ttft), float(table.tokens_per_step / step))


def usd_per_request(demand: Demand, speed: Speed) -> float:
    """What serving a mean request at a speed brings in [USD]."""
    worth = demand.cls.worth or Worth()
    inputs, _, outputs = (float(column.mean()) for column in demand.lengths)
    price = outputs * worth.output_price_usd_per_mtok(speed.tokens_per_s) + inputs * worth.input_usd_per_mtok
    hour = demand.cls.value_of_time_usd_per_hour or 0.0
    return price / TOKENS_PER_MTOK + hour * saved_s(demand, speed) / SECONDS_PER_HOUR


def saved_s(demand: Demand, speed: Speed) -> float:
    """Waiting that a mean request is spared against the reference: prefill and decode; tools and thought take as long.

    The reference is the class's ``reference_tokens_per_s``, else what it was promised.
    """
    slo, reference = demand.cls.slo, reference_tokens_per_s(demand)
    saved = 0.0 if slo.ttft_s is None else slo.ttft_s - speed.ttft_s
    if reference is None:
        return saved
    tokens = max(0.0, demand.mean_output - 1.0)
    return saved + tokens * (1.0 / reference - 1.0 / speed.tokens_per_s)


def reference_tokens_per_s(demand: Demand) -> float | None:
    """Speed that time is saved against."""
    worth, slo = demand.cls.worth or Worth(), demand.cls.slo
    if worth.reference_tokens_per_s is not None:
        return worth.reference_tokens_per_s
    return None if slo.tpot_s is None else 1.0 / slo.tpot_s


def response(demand: Demand, speed: Speed) -> float:
    """Requests that a user sends at a speed, over those at the reference."""
    worth, reference = demand.cls.worth or Worth(), reference_tokens_per_s(demand)
    if reference is None or worth.response == 0.0:
        return 1.0
    return float(np.power(speed.tokens_per_s / reference, worth.response))


def speed_of_api(api: Api) -> Speed:
    """Its list speed."""
    return Speed(api.ttft_s, api.tokens_per_s)
