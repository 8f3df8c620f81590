"""The gateway file: what is promised, which backends there are, how patient the gateway is. No secret is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from infermix.catalog.parse import check_keys, convert, toml
from infermix.errors import InputError, near_miss
from infermix.fleet import PoolRow
from infermix.route.names import check_policy
from infermix.serve.http1 import Limits

Engine = Literal["vllm", "sglang", "trtllm", "llama.cpp", "openai"]


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table ``[gateway]``: where to listen, how to decide, what to write down."""

    listen: str = "127.0.0.1:8080"
    policy: str = "least_wait"
    """A packaged policy, or ``FILE.py:FUNCTION`` relative to this file."""
    plan: str | None = None
    """The plan.json that the file was made from; for readers only."""
    workers: int = 1
    compiled: bool = False
    """Whether the policy is compiled: faster for many backends, for some 100 MB of memory."""
    sticky: bool = True
    """A session stays where its cache is unless moving is predicted to be sooner."""
    seed: int = 0
    keys_env: str | None = None
    """Variable of the environment that holds ``ID:SHA256`` of each API key, parted by commas; none: all are let in."""
    scrape_s: float = 1.0
    """Period of reading the backends' own metrics; 0: never."""
    drain_s: float = 30.0
    """What is under way when the gateway stops has so long to end."""
    usage_extension: bool = False
    """Whether every usage says chip, estimate and price; else only where ``x-infermix-usage: 1`` asks for it."""
    log: str | None = None
    """Structured log, a line of JSON for each request; `-`: stderr."""
    otel: bool = False
    """Whether spans and metrics go out by OpenTelemetry; its own variables say where. Needs the extra ``otel``."""
    decisions: str | None = None
    """Decision log, for ``infermix simulate --replay``."""
    observe: str | None = None
    """Request log, for ``backtest``, ``simulate`` and ``plan``."""


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table ``[classes.NAME]``: the class as the study has it, as far as a gateway needs it."""

    model: str
    ttft_s: float | None = None
    ttft_s_per_1k_uncached: float = 0.0
    tpot_s: float | None = None
    e2e_s: float | None = None
    attainment: float = 0.95
    value_of_time_usd_per_hour: float | None = None
    refuse_late: bool = False
    priority: int = 0
    typical_input_tokens: float = 1000.0
    """What a mean request has, until enough have been seen."""
    typical_output_tokens: float = 200.0


class Backend(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table ``[[backends]]``: one instance behind a URL. Keys of its deployment are those of a fleet's pools."""

    url: str
    name: str
    pool: str = ""
    """Instances of one pool share deployment and shares; none: its name."""
    model: str
    served_as: str | None = None
    engine: Engine = "vllm"
    key_env: str | None = None
    """Variable of the environment that holds the key of the backend."""
    ca_file: str | None = None
    """Certificates (PEM) that an https backend is trusted by, relative to this file; none: the system's."""
    usd_per_hour: float | None = None
    usd_per_mtok_input: float | None = None
    usd_per_mtok_cached: float | None = None
    usd_per_mtok_output: float | None = None
    price: str | None = None
    """Id of a list price of the catalogue (``infermix catalog list prices``), for the prices that are not stated."""
    provider: str = ""
    """Whose API it is, as metrics and headers name it where there is no system."""
    serves: dict[str, float] = {}
    """Class → share of its requests that the plan sends to the pool; empty: every class."""
    max_inflight: int | None = None
    """Requests that the backend is given at a time."""
    ttft_s: float | None = None
    """Without a system, what it takes alone: to the first token, and a token after it [s]."""
    tpot_s: float | None = None
    system: str | None = None
    tp: int | None = None
    pp: int | None = None
    ep: int | None = None
    dp: int | None = None
    stages: int | None = None
    weights: str | None = None
    kv: str = "bf16"
    role: str = "both"
    """Nothing else is served here: prefill and decode apart are the business of the engine's own router."""
    max_num_seqs: int = 256
    max_batched_tokens: int = 8192
    spec: str | None = None
    stack: str = "tuned"
    prefix_cache: bool = False

    @property
    def upstream_model(self) -> str:
        """The name by which the backend knows the model."""
        return self.served_as or self.model

    @property
    def pool_name(self) -> str:
        """The pool, or the backend's own name."""
        return self.pool or self.name

    def row(self, instances: int) -> PoolRow:
        """The pool as a fleet file would write it; 0 chips or stages mean: not said."""
        if self.system is None:
            raise InputError("a backend without a system has no deployment", where=self.name)
        known: dict[str, Any] = {name: getattr(self, name) for name in _DEPLOYMENT}
        counts: dict[str, Any] = {name: getattr(self, name) or None for name in ("tp", "pp", "ep", "dp", "stages")}
        return PoolRow(system=self.system, instances=instances, model=self.model, **known, **counts)


_DEPLOYMENT = ("weights", "kv", "role", "max_num_seqs", "max_batched_tokens", "spec", "stack", "serves", "prefix_cache")


class Patience(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table ``[limits]``: sizes, times, and what is done when a backend fails."""

    max_body_bytes: int = 16 << 20
    max_header_bytes: int = 32_768
    header_s: float = 10.0
    idle_s: float = 75.0
    connect_s: float = 2.0
    first_token_s: float = 60.0
    stall_factor: float = 50.0
    """A stream has stalled when nothing comes for so many modelled TPOT, and at least ``stall_least_s``."""
    stall_least_s: float = 5.0
    total_s: float = 600.0
    retries: int = 2
    """Further backends that are tried before the first byte."""
    resume: bool = False
    """Whether a chat stream that is cut goes on at another backend from the text so far."""
    queue_max: int = 1000
    queue_s: float = 30.0
    """Longest wait in the admission queue."""
    shed_above: float | None = None
    """New requests wait while those in flight are at least this share of all places; none: the backends queue."""
    breaker_failures: int = 5
    """Failures in a row that open a backend's breaker."""
    breaker_s: float = 5.0
    """An open breaker lets one request through after so long."""
    upstream_connections: int = 512
    """Idle connections kept to each backend."""

    def http(self) -> Limits:
        """The part that concerns clients' connections."""
        return Limits(
            max_header_bytes=self.max_header_bytes,
            max_body_bytes=self.max_body_bytes,
            header_s=self.header_s,
            idle_s=self.idle_s,
        )


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table ``[keys.ID]``: what the holder of an API key may use, and as whom it asks."""

    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    class_name: str | None = None
    """Class of its requests unless they say otherwise."""
    priority: int = 0


class GatewayFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole gateway file."""

    gateway: Listen = Listen()
    classes: dict[str, Promise] = {}
    backends: list[Backend]
    limits: Patience = Patience()
    keys: dict[str, Budget] = {}
    path: str = ""

    @property
    def folder(self) -> Path:
        """Where its relative paths begin."""
        return Path(self.path).parent

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen at."""
        host, _, port = self.gateway.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def models(self) -> list[str]:
        """Every model, in order of first mention."""
        return list(dict.fromkeys(b.model for b in self.backends))

    @property
    def pools(self) -> list[str]:
        """Every pool, in order of first mention."""
        return list(dict.fromkeys(b.pool_name for b in self.backends))


def load_gateway(path: str | Path) -> GatewayFile:
    """Read and check a gateway file.

    Raises
    ------
    InputError
        It cannot be read, or a key or value cannot be; one line says which.
    """
    where = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        said = fault.strerror if isinstance(fault, OSError) else "not UTF-8"
        raise InputError(f"cannot be read: {said}", where=where, mend="infermix plan --out writes one") from None
    return read_gateway(toml(text, where), where)


def read_gateway(raw: dict[str, Any], where: str) -> GatewayFile:
    """A gateway file from its parsed TOML."""
    if "path" in raw:
        raise InputError("unknown key", where=f"{where}: path", value=raw["path"])
    check_keys(raw, GatewayFile.__struct_fields__, where)
    _check_tables(raw, where)
    if not raw.get("backends"):
        raise InputError("no backends", where=where, mend="add [[backends]] with url, name and model")
    file = msgspec.structs.replace(convert(GatewayFile, raw, where), path=where)
    classes = file.classes or {"default": Promise(model=file.models[0])}
    file = msgspec.structs.replace(file, classes=classes)
    _check_gateway(file, where)
    _check_backends(file, where)
    _check_classes(file, where)
    return file


def _check_tables(raw: dict[str, Any], where: str) -> None:
    """Refuse unknown keys with the near miss, table by table."""
    of_tables: tuple[tuple[str, type[msgspec.Struct]], ...] = (("gateway", Listen), ("limits", Patience))
    for name, kind in of_tables:
        if isinstance(raw.get(name), dict):
            check_keys(raw[name], kind.__struct_fields__, f"{where}: {name}")
    of_rows: tuple[tuple[str, type[msgspec.Struct]], ...] = (("classes", Promise), ("keys", Budget))
    for name, kind in of_rows:
        for key, row in (raw.get(name) or {}).items() if isinstance(raw.get(name), dict) else ():
            if isinstance(row, dict):
                check_keys(row, kind.__struct_fields__, f"{where}: {name}.{key}")
    if isinstance(raw.get("backends"), list):
        for i, row in enumerate(raw["backends"]):
            if isinstance(row, dict):
                check_keys(row, Backend.__struct_fields__, f"{where}: backends[{i}]")


def _check_gateway(file: GatewayFile, where: str) -> None:
    check_policy(file.gateway.policy, f"{where}: gateway.policy")
    host, colon, port = file.gateway.listen.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 65536):
        raise InputError(
            "not an address", where=f"{where}: gateway.listen", value=file.gateway.listen, allowed="HOST:PORT"
        )
    if file.gateway.workers < 1:
        raise InputError("workers must be 1 or more", where=f"{where}: gateway.workers", value=file.gateway.workers)
    for name in ("connect_s", "first_token_s", "stall_factor", "total_s", "header_s", "idle_s", "breaker_s", "queue_s"):
        value = getattr(file.limits, name)
        if not 0 < value < float("inf"):
            raise InputError(f"{name} must be positive and finite", where=f"{where}: limits.{name}", value=value)
    for name in ("retries", "queue_max"):
        if getattr(file.limits, name) < 0:
            raise InputError(
                f"{name} must be 0 or more", where=f"{where}: limits.{name}", value=getattr(file.limits, name)
            )
    if not 0 <= file.gateway.scrape_s < float("inf"):
        raise InputError("scrape_s must be 0 or more", where=f"{where}: gateway.scrape_s", value=file.gateway.scrape_s)


def _check_backends(file: GatewayFile, where: str) -> None:
    seen: set[str] = set()
    for i, backend in enumerate(file.backends):
        here = f"{where}: backends[{i}]"
        if backend.name in seen:
            raise InputError("two backends of one name", where=f"{here}.name", value=backend.name)
        seen.add(backend.name)
        _check_url(backend.url, f"{here}.url")
        if backend.ca_file is not None and not backend.url.startswith("https:"):
            raise InputError(
                "a ca_file without TLS", where=f"{here}.ca_file", value=backend.url, allowed="https://HOST"
            )
        if backend.role != "both":
            raise InputError(
                "prefill and decode apart are not routed", where=f"{here}.role", value=backend.role, allowed="both",
                mend="put the engine's own router before such a pair, and name its URL; infermix simulate knows them",
            )  # fmt: skip
        for served in backend.serves:
            if served not in file.classes:
                raise InputError(
                    "unknown class", where=f"{here}.serves", value=served, allowed=", ".join(file.classes),
                    mend=near_miss(served, file.classes),
                )  # fmt: skip
        first = next(b for b in file.backends if b.pool_name == backend.pool_name)
        for name in ("model", "system", "serves", "engine", "tp", "pp", "ep", "dp", "stages", *_DEPLOYMENT):
            if getattr(first, name) != getattr(backend, name):
                raise InputError(
                    f"differs from {first.name}, of the same pool", where=f"{here}.{name}",
                    value=getattr(backend, name), allowed=repr(getattr(first, name)), mend="give it a pool of its own",
                )  # fmt: skip


def _check_url(url: str, where: str) -> None:
    parts = urlsplit(url)
    try:
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if parts.username is not None or parts.password is not None:
        raise InputError("no credentials in a URL", where=where, mend="name a variable with key_env")
    if not valid or parts.query or parts.fragment:
        raise InputError("not the URL of a server", where=where, value=url, allowed="http://HOST:PORT or https://HOST")


def _check_classes(file: GatewayFile, where: str) -> None:
    for name, promise in file.classes.items():
        if promise.model not in file.models:
            raise InputError(
                "no backend has this model", where=f"{where}: classes.{name}.model", value=promise.model,
                allowed=", ".join(file.models), mend=near_miss(promise.model, file.models),
            )  # fmt: skip
        for key in ("ttft_s", "tpot_s", "e2e_s"):
            value = getattr(promise, key)
            if value is not None and not value > 0:
                raise InputError(f"{key} must be positive", where=f"{where}: classes.{name}.{key}", value=value)
    for name, budget in file.keys.items():
        if budget.class_name is not None and budget.class_name not in file.classes:
            raise InputError(
                "unknown class", where=f"{where}: keys.{name}.class_name", value=budget.class_name,
                allowed=", ".join(file.classes),
            )  # fmt: skip
