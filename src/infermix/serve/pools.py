"""Backends of a gateway file as pools: what their chips take for a step, as simulator and policies have it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from infermix.catalog.load import Catalog
from infermix.errors import InputError, located, near_miss
from infermix.fleet import Fleet, make_fleet
from infermix.serve.config import Backend, GatewayFile
from infermix.sim.specs import specs_at
from infermix.sim.state import PoolSpec
from infermix.units import SECONDS_PER_HOUR

UNKNOWN_TTFT_S, UNKNOWN_TPOT_S = 0.5, 0.02
"""Of a backend of which nothing is known; what is measured corrects it soon."""
TYPICAL_PROMPT_TOKENS = 1000


def instances_of(file: GatewayFile) -> list[Backend]:
    """Backends in the order of instances: pool by pool, as they are written."""
    return [b for name in file.pools for b in file.backends if b.pool_name == name]


def with_list_prices(file: GatewayFile, catalog: Catalog) -> GatewayFile:
    """The file with prices of tokens from the catalogue where a backend names one; what it states itself stays."""
    return msgspec.structs.replace(file, backends=[_priced(b, catalog, file.path) for b in file.backends])


def _priced(backend: Backend, catalog: Catalog, where: str) -> Backend:
    if backend.price is None:
        return backend
    here = f"{where}: backends.{backend.name}.price"
    if backend.price not in catalog.prices:
        raise InputError(
            "unknown price", where=here, value=backend.price, mend=near_miss(backend.price, catalog.prices)
        )
    found = catalog.prices[backend.price]
    if found.input_usd_per_mtok is None or found.output_usd_per_mtok is None:
        raise InputError("not a price of tokens", where=here, value=backend.price, allowed="an offer of basis api")
    stated = (backend.usd_per_mtok_input, backend.usd_per_mtok_output)
    read, written = (
        figure.value if own is None else own
        for own, figure in zip(stated, (found.input_usd_per_mtok, found.output_usd_per_mtok), strict=True)
    )
    provider = backend.provider or found.provider
    return msgspec.structs.replace(backend, usd_per_mtok_input=read, usd_per_mtok_output=written, provider=provider)


def fleet_of(file: GatewayFile, catalog: Catalog) -> Fleet:
    """The pools that have a system, as a fleet."""
    rows = {}
    for name in file.pools:
        members = [b for b in file.backends if b.pool_name == name]
        if members[0].system is not None:
            rows[name] = members[0].row(len(members))
    return make_fleet(catalog, rows, file.models[0], tuple(file.classes), f"{file.path}: backends")


def pool_specs(file: GatewayFile, catalog: Catalog) -> list[PoolSpec]:
    """Every pool as arrays and scalars, in the order of ``file.pools``."""
    names = tuple(file.classes)
    with located(file.path):
        fleet = fleet_of(file, catalog)
    modelled = dict(
        zip((p.name for p in fleet.pools), specs_at(fleet, names, typical_context(file), "nominal"), strict=True)
    )
    specs = []
    for name in file.pools:
        members = [b for b in file.backends if b.pool_name == name]
        spec = modelled[name] if name in modelled else _flat(members, names)
        hourly = members[0].usd_per_hour
        specs.append(replace(spec, usd_per_s=np.nan if hourly is None else hourly / SECONDS_PER_HOUR))
    return specs


def typical_context(file: GatewayFile) -> float:
    """Context halfway through the answer of a mean request, every class alike [tokens]."""
    classes = file.classes.values()
    return sum(c.typical_input_tokens + 0.5 * c.typical_output_tokens for c in classes) / len(file.classes)


def _flat(members: list[Backend], classes: tuple[str, ...]) -> PoolSpec:
    """A backend of which only two times are known: it reads and writes at the same speed at every load."""
    backend = members[0]
    tpot_s = backend.tpot_s or UNKNOWN_TPOT_S
    per_token_s = (backend.ttft_s or UNKNOWN_TTFT_S) / TYPICAL_PROMPT_TOKENS
    most = backend.max_batched_tokens
    return PoolSpec(
        instances=len(members),
        decode_s=np.full(most + 1, tpot_s),
        mixed_s=np.linspace(tpot_s, tpot_s + most * per_token_s, most + 1),
        per_seq_s=0.0,
        kv_s=0.0,
        pair_s=0.0,
        load_s=0.0,
        block_tokens=16,
        blocks=1 << 24,
        max_num_seqs=backend.max_num_seqs,
        max_batched_tokens=most,
        serves=np.array([not backend.serves or c in backend.serves for c in classes]),
        prefill_s_per_token=per_token_s,
        step_s=tpot_s,
    )
