"""Prefill and decode on different machines: what a prompt's KV cache weighs, and how long it travels."""

from __future__ import annotations

import msgspec

from infermix.catalog.records import Figure
from infermix.errors import InputError, NoAnswer
from infermix.perf import model_cost
from infermix.perf.deployment import Deployment


class Transfer(msgspec.Struct, kw_only=True):
    """One prompt's way from the machine that read it to the machine that answers."""

    bytes: float
    """KV cache of the prompt, windows and states included, in the dtype of the receiving machine."""
    bytes_per_s: float
    """Rate of the slower side: its scale-out network, all chips of an instance together."""
    seconds: float
    slower: str
    """Id of the system whose network is the slower one."""


def kv_transfer(prefill: Deployment, decode: Deployment, input_tokens: int) -> Transfer:
    """What handing over a prompt takes when nothing else travels [s].

    Raises
    ------
    InputError
        The two run different models.
    NoAnswer
        A chip's network rate is not known.

    Notes
    -----
    Both sides send and receive with every chip of the instance at once; machines with their own off-chip rate
    (wafers, cards) with that.
    """
    if prefill.model.id != decode.model.id:
        raise InputError("prefill and decode run different models", value=(prefill.model.id, decode.model.id))
    model, kv = decode.model, decode.kv
    size = input_tokens * model_cost.kv_bytes_per_token(model, kv) + model_cost.kv_bytes_per_sequence(model, kv)
    rates = {d.system.id: network_bytes_per_s(d) for d in (prefill, decode)}
    slower = min(rates, key=lambda id_: rates[id_])
    return Transfer(bytes=size, bytes_per_s=rates[slower], seconds=size / rates[slower], slower=slower)


def network_bytes_per_s(d: Deployment) -> float:
    """Rate of one direction into or out of an instance [bytes/s]."""
    offchip: Figure | None = d.efficiency.figures.get("offchip_bytes_per_s")
    if d.is_pipeline and offchip is not None:
        return d.stages * offchip.value
    if d.chip.scaleout_bytes_per_s is None:
        raise NoAnswer(f"{d.chip.id}: the catalogue lacks scaleout_bytes_per_s, so no time of transfer can be told")
    return d.chips * d.efficiency.figures["internode_bytes"].value * d.chip.scaleout_bytes_per_s.value
