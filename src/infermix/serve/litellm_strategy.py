"""The policy of a gateway file as LiteLLM's routing strategy: LiteLLM carries the bytes, infermix says to whom.

    router = litellm.Router(model_list=[...])          # a deployment for each backend of the file
    route_by(router, "gateway.toml")

A deployment is the backend whose name is its ``model_info.id``, or at whose address its ``api_base`` is. LiteLLM itself
is no dependency and is loaded only by ``route_by``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.serve.config import Backend, load_gateway
from infermix.serve.homes import Beginning, Homes, beginning_of
from infermix.serve.live import Live, Placed
from infermix.serve.openai import CHAT, ApiError, prompt_chars, read_wanted
from infermix.serve.pools import pool_specs, with_list_prices
from infermix.serve.signals import Signals, known_names, read_signals

TICKET, TRIED = "infermix_pick", "infermix_tried"
"""Keys of a request's metadata: the number of this try, and a list of all, which LiteLLM carries from try to try."""
_SIGNALS = ("service_tier", "user", "prompt_cache_key", "nvext", "max_tokens", "max_completion_tokens")


class Ticket(msgspec.Struct):
    """A request that LiteLLM has under way."""

    placed: Placed
    signals: Signals
    model: str
    chars: int
    beginning: Beginning
    began_s: float


class Picks:
    """Decides, and learns from what became of it. Calls may come from several threads."""

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.monotonic) -> None:
        file = with_list_prices(load_gateway(path), catalog())
        self.file, self.live, self.clock = file, Live(file, pool_specs(file, catalog())), clock
        self.homes, self.known = Homes(), known_names(file)
        self.under_way: dict[int, Ticket] = {}
        self._lock = threading.Lock()

    def pick(
        self, headers: Mapping[bytes, bytes], body: Mapping[str, Any], failed: Collection[tuple[int, int]] = ()
    ) -> tuple[int, int]:
        """(number of this try, the instance that takes it); ``failed`` are earlier tries of the same request.

        Raises
        ------
        ApiError
            400 and 404 for requests that cannot be, 503 where nobody is ready, 429 where the policy refuses.
        """
        wanted = read_wanted(msgspec.json.encode(body), CHAT)
        signals = read_signals(headers, wanted, self.known, None)
        chars, beginning = prompt_chars(wanted), beginning_of(wanted)
        with self._lock:
            live, now_s = self.live, self.clock()
            self._catch_up(now_s)
            tokens = live.tokens_of(wanted.model, chars)
            for number, _ in failed:
                self._failed(number)
            live.mark(wanted.model, signals, tokens, now_s)
            for _, instance in failed:
                live.mask(instance)
            if not live.anybody():
                raise ApiError(503, f"no backend of {wanted.model} is ready", code="no_backend")
            home = self.homes.find(beginning, signals.session)
            cached = live.tokens_of(wanted.model, home.chars) if home.chars else 0
            ask = live.ask(signals, now_s, tokens, cached, beginning.prefix)
            chosen = live.choose(ask, home.backend)
            if chosen < 0:
                raise ApiError(429, "the request can no longer be in time", code="late")
            placed = live.placed(chosen, ask, home.backend, signals.class_name)
            self.under_way[ask.number] = Ticket(placed, signals, wanted.model, chars, beginning, now_s)
            return ask.number, chosen

    def _catch_up(self, now_s: float) -> None:
        """LiteLLM tells of no first token: prompts count as read when that was predicted. Nor of who was given up."""
        for number, ticket in list(self.under_way.items()):
            if now_s - ticket.began_s > self.file.limits.total_s:
                self.live.was_given_up(ticket.placed.instance)
                self.live.left(self.under_way.pop(number).placed)
            elif now_s - ticket.began_s > ticket.placed.estimate.ttft_s:
                self.live.first(ticket.placed)

    def _failed(self, number: int) -> None:
        """A try has failed: LiteLLM says so, or asks again."""
        ticket = self.under_way.pop(number, None)
        if ticket is not None:
            self.live.left(ticket.placed)
            self.live.went_wrong(ticket.placed.instance, self.clock())

    def ended(self, number: int, *, well: bool, ttft_s: float = 0.0, e2e_s: float = 0.0, usage: Any = None) -> None:
        """A request is over; ``usage`` as the answer has it, ``ttft_s`` of a stream."""
        with self._lock:
            if not well:
                self._failed(number)
                return
            ticket = self.under_way.pop(number, None)
            if ticket is None:
                return
            live, placed = self.live, ticket.placed
            live.left(placed)
            live.went_well(placed.instance)
            self.homes.settle(ticket.beginning, ticket.signals.session, placed.instance)
            inputs, outputs = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
            if outputs > 0:
                live.learn_lengths(ticket.signals.class_name, ticket.model, ticket.chars, inputs, outputs)
            if ttft_s > 0.0:
                each_s = (e2e_s - ttft_s) / (outputs - 1) if outputs > 1 else 0.0
                live.learn_speed(placed, ttft_s, each_s, outputs)


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, Mapping) else getattr(usage, name, 0)
    return value if isinstance(value, int) else 0


def route_by(router: Any, path: str | Path) -> Picks:
    """Let the policy of a gateway file choose among the deployments of a ``litellm.Router``.

    Raises
    ------
    InputError
        LiteLLM is not installed, the file is faulty, or a backend has no deployment.
    """
    try:
        import litellm
        from litellm.integrations.custom_logger import CustomLogger
        from litellm.types.router import CustomRoutingStrategyBase
    except ModuleNotFoundError as fault:
        raise InputError(f"{fault.name} is not installed", mend="pip install litellm") from None
    picks = Picks(path)
    deployments = _deployments(picks.live.backends, router.model_list, str(path))

    class Strategy(CustomRoutingStrategyBase, CustomLogger):  # type: ignore[misc] # no dependency: bases are not known
        def get_available_deployment(
            self, model: str, messages: Any = None, input: Any = None, specific_deployment: Any = False,  # noqa: A002, ARG002
            request_kwargs: dict[str, Any] | None = None,
        ) -> Any:  # fmt: skip
            return _deployment(picks, deployments, model, messages, {} if request_kwargs is None else request_kwargs)

        async def async_get_available_deployment(self, *arguments: Any, **named: Any) -> Any:
            return self.get_available_deployment(*arguments, **named)

        def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            _over(picks, kwargs, response_obj, start_time, end_time, well=True)

        def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            _over(picks, kwargs, response_obj, start_time, end_time, well=False)

        async def async_log_success_event(self, *told: Any, **named: Any) -> None:
            self.log_success_event(*told, **named)

        async def async_log_failure_event(self, *told: Any, **named: Any) -> None:
            self.log_failure_event(*told, **named)

    strategy = Strategy()
    router.set_custom_routing_strategy(strategy)
    litellm.callbacks.append(strategy)
    return picks


def _deployments(backends: list[Backend], listed: list[dict[str, Any]], where: str) -> dict[str, dict[str, Any]]:
    """Name of each backend → its deployment."""
    found = {}
    for backend in backends:
        for one in listed:
            base = str(one.get("litellm_params", {}).get("api_base") or "")
            if one.get("model_info", {}).get("id") == backend.name or _address(base) == _address(backend.url):
                found[backend.name] = one
                break
        else:
            raise InputError(
                "no deployment of the router is this backend", where=f"{where}: backends.{backend.name}",
                value=backend.url, mend="give one this api_base, or the name as its model_info.id",
            )  # fmt: skip
    return found


def _address(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")


def _deployment(
    picks: Picks, deployments: dict[str, dict[str, Any]], model: str, messages: Any, request: dict[str, Any]
) -> Any:
    """The deployment for a request, whose metadata then say its number."""
    came = request.get("proxy_server_request") or {}
    headers = {str(k).lower().encode(): str(v).encode("latin-1", "replace") for k, v in came.get("headers", {}).items()}
    said = {name: request[name] for name in _SIGNALS if request.get(name) is not None}
    shared = request.get("metadata")
    tried = [] if shared is None else shared.setdefault(TRIED, [])
    number, instance = picks.pick(headers, {"model": model, "messages": messages or [], **said}, tried)
    tried.append((number, instance))
    request["metadata"] = {**(shared or {}), TICKET: number}  # a copy: each try has a number of its own
    return deployments[picks.live.backends[instance].name]


def _over(picks: Picks, told: Mapping[str, Any], answer: Any, began: datetime, ended: datetime, *, well: bool) -> None:
    """What LiteLLM tells of a request that is over."""
    number = ((told.get("litellm_params") or {}).get("metadata") or {}).get(TICKET)
    if number is None:
        return
    first = told.get("completion_start_time") if told.get("stream") else None
    ttft_s = (first - began).total_seconds() if isinstance(first, datetime) else 0.0
    usage = answer.get("usage") if hasattr(answer, "get") else getattr(answer, "usage", None)
    picks.ended(number, well=well, ttft_s=ttft_s, e2e_s=(ended - began).total_seconds(), usage=usage)
