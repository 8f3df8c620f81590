"""What to emulate: a file of its own, a gateway file, or a plan becomes instances with addresses and step tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from infermix.catalog.load import Catalog, catalog
from infermix.catalog.parse import check_keys, convert, toml
from infermix.errors import InputError
from infermix.fleet import Fleet, PoolRow, make_fleet, plan_rows
from infermix.serve.config import GatewayFile, load_gateway, read_gateway
from infermix.serve.emulator.faults import Fault, read_faults
from infermix.serve.emulator.lengths import Lengths
from infermix.serve.http1 import Limits
from infermix.serve.pools import instances_of, pool_specs
from infermix.sim.specs import specs_at
from infermix.sim.state import PoolSpec

FIRST_ADDRESS = "127.0.0.1:9101"
_KINDS = "a gateway.toml, a plan.json, or a TOML with [fleet.NAME] tables"
TYPICAL_CONTEXT_TOKENS = 1000.0
"""For what ``PoolSpec`` tells policies; engines do not read it."""


@dataclass(frozen=True)
class Emulated:
    """One instance to be: its address, the names of its model, its pool as arrays and scalars."""

    name: str
    pool: str
    host: str
    port: int
    model: str
    names: frozenset[str]
    spec: PoolSpec


@dataclass(frozen=True)
class Setting:
    """What all instances share."""

    faults: tuple[Fault, ...] = ()
    answers: Lengths = field(default_factory=Lengths)
    limits: Limits = field(default_factory=lambda: Limits(max_body_bytes=64 << 20))


class EmulateFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file made for the emulator."""

    model: str | None = None
    """Of pools that name none."""
    listen: str = FIRST_ADDRESS
    """Of the first instance; each further one has the next port."""
    speed: float = 1.0
    """Every chip is so many times as fast as modelled: below 1 a large fleet fits on a small machine."""
    gateway: str | None = None
    """A gateway file whose backends are emulated, in place of ``[fleet]``."""
    fleet: dict[str, PoolRow] = {}
    answers: Lengths = Lengths()
    faults: list[dict[str, Any]] = []


def load_emulated(
    path: str | Path, *, speed: float | None = None, prefix_cache: bool = False, faults: str | Path | None = None
) -> tuple[list[Emulated], Setting]:
    """What a file says is to be emulated.

    Parameters
    ----------
    speed
        In place of the file's.
    prefix_cache
        Whether every pool has a prefix cache, whatever the file says.
    faults
        Another file with ``[[faults]]``, in place of the file's own.

    Raises
    ------
    InputError
        The file cannot be read, or says something that cannot be.
    """
    where = str(path)
    text = _read(where)
    raw: dict[str, Any] = _json(text, where) if where.endswith(".json") else toml(text, where)
    facts, file = catalog(), EmulateFile()
    if where.endswith(".json"):
        places = _of_fleet(_planned(raw, where, facts), file.listen, where)
    elif "backends" in raw:
        places = _of_gateway(read_gateway(raw, where), facts)
    else:
        file = _own_file(raw, where)
        if file.gateway is not None:
            places = _of_gateway(load_gateway(Path(where).parent / file.gateway), facts)
        else:
            places = _of_fleet(_own_fleet(file, where, facts), file.listen, where)
    factor = file.speed if speed is None else speed
    places = [replace(place, spec=_at_speed(place.spec, factor, prefix_cache)) for place in places]
    rows, said_in = (file.faults, where) if faults is None else (_faults_of(str(faults)), str(faults))
    known = list(dict.fromkeys(name for place in places for name in (place.pool, place.name)))
    return places, Setting(read_faults(rows, said_in, known), file.answers)


def _read(where: str) -> str:
    try:
        return Path(where).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        said = fault.strerror if isinstance(fault, OSError) else "not UTF-8"
        raise InputError(f"cannot be read: {said}", where=where, allowed=_KINDS) from None


def _faults_of(where: str) -> Any:
    raw = toml(_read(where), where)
    check_keys(raw, ("faults",), where)
    return raw.get("faults", [])


def _json(text: str, where: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as fault:
        raise InputError(f"not valid JSON: {fault}", where=where) from None


def _planned(raw: Any, where: str, facts: Catalog) -> Fleet:
    """The fleet of a plan.json."""
    if not isinstance(raw, dict) or not isinstance(raw.get("fleet"), list) or not raw["fleet"]:
        raise InputError("no fleet in it", where=where, allowed='a plan with "fleet": [...]')
    rows = plan_rows(raw["fleet"], where)
    classes = tuple(dict.fromkeys(name for row in rows.values() for name in row.serves))
    return make_fleet(facts, rows, "", classes, where)


def _own_file(raw: dict[str, Any], where: str) -> EmulateFile:
    check_keys(raw, EmulateFile.__struct_fields__, where)
    for name, row in raw.get("fleet", {}).items() if isinstance(raw.get("fleet"), dict) else ():
        if isinstance(row, dict):
            check_keys(row, PoolRow.__struct_fields__, f"{where}: fleet.{name}")
    if isinstance(raw.get("answers"), dict):
        check_keys(raw["answers"], Lengths.__struct_fields__, f"{where}: answers")
    file = convert(EmulateFile, raw, where)
    if not file.fleet and file.gateway is None:
        raise InputError("nothing to emulate", where=where, allowed=_KINDS)
    if file.fleet and file.gateway is not None:
        raise InputError("both gateway and fleet", where=where, mend="leave one of them out")
    for name, value in (("speed", file.speed), ("answers.median_tokens", file.answers.median_tokens)):
        if not 0 < value < float("inf"):
            raise InputError("must be positive and finite", where=f"{where}: {name}", value=value)
    if not 0 <= file.answers.spread < 10:
        raise InputError("out of range", where=f"{where}: answers.spread", value=file.answers.spread, allowed="0 to 10")
    return file


def _own_fleet(file: EmulateFile, where: str, facts: Catalog) -> Fleet:
    for name, row in file.fleet.items():
        if row.model is None and file.model is None:
            raise InputError("no model", where=f"{where}: fleet.{name}", mend="say model for the pool or the file")
    classes = tuple(dict.fromkeys(name for row in file.fleet.values() for name in row.serves))
    return make_fleet(facts, file.fleet, file.model or "", classes, f"{where}: fleet")


def _of_fleet(fleet: Fleet, listen: str, where: str) -> list[Emulated]:
    """Instances at one port after the other."""
    host, colon, first = listen.rpartition(":")
    if not (colon and first.isdigit()):
        raise InputError("not an address", where=f"{where}: listen", value=listen, allowed="HOST:PORT")
    port, places = int(first), []
    for pool, spec in zip(fleet.pools, specs_at(fleet, (), TYPICAL_CONTEXT_TOKENS, "nominal"), strict=True):
        if pool.deployment.role != "both":
            raise InputError(
                "prefill and decode apart are not emulated", where=f"{where}: {pool.name}",
                value=pool.deployment.role, mend="infermix simulate knows them",
            )  # fmt: skip
        model = pool.deployment.model.id
        for k in range(pool.instances):
            places.append(Emulated(f"{pool.name}/{k}", pool.name, host, port, model, frozenset({model}), spec))
            port += 1
    if port > 65536:
        raise InputError("more instances than ports", where=f"{where}: listen", value=listen)
    return places


def _of_gateway(file: GatewayFile, facts: Catalog) -> list[Emulated]:
    """Backends at their URLs; those of other machines' APIs (https) are left out."""
    specs = dict(zip(file.pools, pool_specs(file, facts), strict=True))
    places = []
    for backend in instances_of(file):
        url = urlsplit(backend.url)
        if url.scheme != "http":
            continue
        names = frozenset({backend.model, backend.upstream_model})
        host, port, model = url.hostname or "127.0.0.1", url.port or 80, backend.upstream_model
        places.append(Emulated(backend.name, backend.pool_name, host, port, model, names, specs[backend.pool_name]))
    if not places:
        raise InputError("no backend with an http URL", where=file.path)
    _check_ports(places, file.path)
    return places


def _check_ports(places: Sequence[Emulated], where: str) -> None:
    seen: dict[tuple[str, int], str] = {}
    for place in places:
        other = seen.setdefault((place.host, place.port), place.name)
        if other != place.name:
            raise InputError(
                f"{other} and {place.name} have one address", where=where, value=f"{place.host}:{place.port}"
            )


def _at_speed(spec: PoolSpec, speed: float, prefix_cache: bool) -> PoolSpec:
    """The same pool, so many times as fast."""
    if not 0 < speed < float("inf"):
        raise InputError("must be positive and finite", where="--speed", value=speed)
    times = ("per_seq_s", "kv_s", "pair_s", "load_s", "host_load_s", "host_latency_s", "remote_load_s",
             "remote_latency_s", "prefill_s_per_token", "step_s")  # fmt: skip
    faster: dict[str, Any] = {name: getattr(spec, name) / speed for name in times}
    if prefix_cache and not spec.prefix_cache:
        faster |= {"prefix_cache": True, "load_s": 0.0}
    return replace(spec, decode_s=spec.decode_s / speed, mixed_s=spec.mixed_s / speed, **faster)
