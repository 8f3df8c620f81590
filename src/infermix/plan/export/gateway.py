"""The gateway's configuration: who listens, by which policy, which servers stand behind it, what was promised."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from infermix.catalog.load import Catalog
from infermix.catalog.query import find_model
from infermix.plan.export.engines import engines_of
from infermix.plan.problem import Study
from infermix.plan.question import Demand, demands
from infermix.plan.resolve import apis_of
from infermix.plan.result import Plan, PoolPlan

LISTEN = "127.0.0.1:8080"
FIRST_PORT = 9101
SAMPLE = 2_000
"""Requests of each class from which the mean request is taken."""
ROUTER = (
    "# Prefill and decode apart: the gateway has no such roles. A router in front of these pools pairs their\n"
    "# instances, which deploy/ starts; its address goes here. Times are those that were simulated."
)
KEYS_ENV = "INFERMIX_KEYS"
DEPLOYMENT = ("tp", "pp", "ep", "dp", "stages", "weights", "kv", "role", "max_num_seqs", "max_batched_tokens", "spec")
"""Keys of a pool that say what one instance of it is."""


def gateway_toml(plan: Plan, study: Study, facts: Catalog, folder: Path) -> str:
    """Text of ``gateway.toml`` for a folder that also holds ``plan.json``.

    Addresses are placeholders on this machine, one port an instance; of keys only the names of the environment
    variables that hold them are written.
    """
    heading = (
        "# Written by `infermix plan --out`. Put your servers' addresses in place of the urls. No key stands\n"
        "# here: where a server asks for one, `key_env` names the variable of the environment that holds it."
    )
    if plan.status == "not_proved":
        heading += "\n# THE PLAN IS NOT PROVED: a promise or a limit was missed when it was simulated."
    parts = [heading, _table("gateway", _gateway(plan, study, folder))]
    asked = demands(study, find_model(study.model, facts), sample=SAMPLE)
    parts += [_table(f"classes.{_key(demand.name)}", _promise(study, demand)) for demand in asked]
    port, paired = FIRST_PORT, {name for pair in plan.pairs for name in (pair.prefill, pair.decode)}
    for pool in plan.fleet:
        if pool.name in paired:
            continue
        serves = {name: share * (1.0 - _sent_away(plan, name)) for name, share in pool.serves.items()}
        parts += [
            _table("backends", _backend(pool, facts, port + i, i) | {"serves": serves}, array=True)
            for i in range(pool.instances)
        ]
        port += pool.instances
    for row in _routers(plan, port):
        parts.append("\n".join([ROUTER, _table("backends", row, array=True)]))
    parts += [_table("backends", row, array=True) for row in _endpoints(plan, study, facts)]
    return "\n\n".join(parts) + "\n"


def _gateway(plan: Plan, study: Study, folder: Path) -> dict[str, object]:
    policy = plan.policy
    if ":" in policy:
        file, _, function = policy.rpartition(":")
        policy = f"{os.path.relpath(study.base_dir / file, folder)}:{function}"
    return {"listen": LISTEN, "policy": policy, "plan": "plan.json", "workers": 1, "keys_env": KEYS_ENV}


def _promise(study: Study, demand: Demand) -> dict[str, object]:
    """The promises of a class, its mean request, and what else a policy weighs; what is not promised is left out."""
    cls = demand.cls
    inputs, _, outputs = (float(column.mean()) for column in demand.lengths)
    slo = {key: value for key, value in msgspec.to_builtins(cls.slo).items() if value}
    worth = cls.value_of_time_usd_per_hour
    return {
        "model": cls.model or study.model,
        **slo,
        "typical_input_tokens": float(round(inputs)),
        "typical_output_tokens": float(round(outputs)),
        **({"value_of_time_usd_per_hour": worth} if worth is not None else {}),
        **({"priority": cls.priority} if cls.priority else {}),
    }


def _backend(pool: PoolPlan, facts: Catalog, port: int, instance: int) -> dict[str, object]:
    runs = engines_of(facts.chips[pool.chip])
    layout = {key: getattr(pool, key) for key in DEPLOYMENT}
    return {
        "url": f"http://127.0.0.1:{port}",
        "name": f"{pool.name}/{instance}",
        "pool": pool.name,
        "system": pool.system,
        "model": pool.model,
        "engine": runs[0].engine if runs else "openai",
        **{key: value for key, value in layout.items() if value is not None},
        "serves": pool.serves,
        "usd_per_hour": round(pool.usd_per_hour / pool.instances, 6),
    }


def _routers(plan: Plan, port: int) -> list[dict[str, object]]:
    """A backend for all pools that hand over to each other."""
    groups: list[set[str]] = []
    for pair in plan.pairs:
        mine = {pair.prefill, pair.decode}
        for group in [group for group in groups if group & mine]:
            groups.remove(group)
            mine |= group
        groups.append(mine)
    return [_router(plan, [p for p in plan.fleet if p.name in group], port + i) for i, group in enumerate(groups)]


def _router(plan: Plan, pools: list[PoolPlan], port: int) -> dict[str, object]:
    readers = [pool.name for pool in pools if pool.role == "prefill"]
    serves = {name: sum(s.get(pool, 0.0) for pool in readers) for name, s in plan.serves.items()}
    serves = {name: share for name, share in serves.items() if share}
    first = plan.classes[next(iter(serves))]
    return {
        "url": f"http://127.0.0.1:{port}",
        "name": "+".join(pool.name for pool in pools),
        "model": pools[0].model,
        "engine": "openai",
        "ttft_s": first.ttft_s["p50"],
        "tpot_s": first.tpot_s["p50"],
        "max_inflight": sum(pool.instances * pool.max_num_seqs for pool in pools if pool.role == "decode"),
        "serves": serves,
        "usd_per_hour": round(sum(pool.usd_per_hour for pool in pools), 6),
    }


def _sent_away(plan: Plan, class_name: str) -> float:
    """Share of a class that endpoints of others serve; a plan's pools share out the rest."""
    return min(1.0, sum(bought.serves.get(class_name, 0.0) for bought in plan.api))


def _endpoints(plan: Plan, study: Study, facts: Catalog) -> list[dict[str, object]]:
    """Somebody else's endpoints that the plan buys of, at their list prices and speeds."""
    if study.market is None or not plan.api:
        return []
    known = {api.name: api for api in apis_of(study, facts, study.market, find_model(study.model, facts))}
    return [
        {
            "url": f"https://{_host(bought.name)}.invalid/v1",
            "name": bought.name,
            "model": bought.model,
            "engine": "openai",
            "key_env": key_name(bought.name),
            "ttft_s": known[bought.name].ttft_s,
            "tpot_s": 1.0 / known[bought.name].tokens_per_s,
            "serves": bought.serves,
            "usd_per_mtok_input": known[bought.name].input_usd_per_mtok,
            "usd_per_mtok_cached": known[bought.name].cached_usd_per_mtok,
            "usd_per_mtok_output": known[bought.name].output_usd_per_mtok,
        }
        for bought in plan.api
        if any(bought.serves.values())
    ]


def _host(name: str) -> str:
    """A name as hosts are called; ``.invalid`` behind it leads nowhere until the address is put in."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-") or "api"


def key_name(api: str) -> str:
    """Environment variable for the key of somebody else's endpoint.

    >>> key_name("groq-llama")
    'GROQ_LLAMA_KEY'
    """
    word = "".join(c if c.isascii() and c.isalnum() else "_" for c in api.upper())
    return f"{'API_' if word[:1].isdigit() else ''}{word}_KEY"


def _table(name: str, rows: dict[str, object], *, array: bool = False) -> str:
    heading = f"[[{name}]]" if array else f"[{name}]"
    return "\n".join([heading, *(f"{key} = {toml_value(value)}" for key, value in rows.items())])


def toml_value(value: object) -> str:
    r"""A value as TOML writes it.

    >>> toml_value({"coding": 1.0, 'a "b"': 0.5})
    '{ coding = 1.0, "a \\"b\\"" = 0.5 }'
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return msgspec.json.encode(value).decode()
    if isinstance(value, dict):
        return f"{{ {_joined(f'{_key(k)} = {toml_value(v)}' for k, v in value.items())} }}" if value else "{}"
    return repr(value)


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _key(name: str) -> str:
    """A key, in quotes where TOML wants them."""
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else msgspec.json.encode(name).decode()
