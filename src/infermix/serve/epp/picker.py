"""The picker's decision: the gateway's own, as a list of addresses in the order in which they are to be tried.

Envoy carries the bytes. What the picker knows of load are its own picks, for as long as Envoy keeps their
streams to it open, and the engines' metrics.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from infermix.errors import InputError
from infermix.route.view import Ask
from infermix.serve.config import Backend, GatewayFile
from infermix.serve.homes import Beginning, Homes, beginning_of
from infermix.serve.live import Live, Placed
from infermix.serve.openai import ApiError, Usage, prompt_chars, read_wanted
from infermix.serve.signals import Signals, known_names, read_signals
from infermix.serve.upstream import site_of
from infermix.sim.state import PoolSpec

FIRST_ERROR_STATUS = 500


@dataclass(slots=True)
class Picked:
    """A request that was placed."""

    order: tuple[int, ...]
    """Instances, the first choice first."""
    placed: Placed
    signals: Signals
    model: str
    chars: int
    beginning: Beginning
    began_s: float
    body: bytes | None
    """The body with the name by which the backend knows the model; None: as it was."""
    headers_s: float = -1.0
    first_s: float = -1.0
    status: int = 0
    ended: bool = False


class Picker:
    """A fleet, and who of it takes the next request."""

    def __init__(self, file: GatewayFile, specs: list[PoolSpec], clock: Callable[[], float] = time.monotonic) -> None:
        self.file, self.live, self.clock = file, Live(file, specs), clock
        self.homes, self.known = Homes(), known_names(file)
        self.addresses = [address_of(backend) for backend in self.live.backends]
        self.instance_at = {address: j for j, address in enumerate(self.addresses)}
        self.sites = [site_of(backend, None, 2, file) for backend in self.live.backends]
        """Where the engines' own metrics are read."""
        self.most = file.limits.retries + 1

    def pick(
        self, headers: Mapping[bytes, bytes], path: str, body: bytes, subset: frozenset[str] | None = None
    ) -> Picked:
        """Who takes the request, and who if that one does not answer.

        Raises
        ------
        ApiError
            400 and 404 for requests that cannot be, 429 for a full fleet, 503 where nobody is ready.
        """
        live, now_s = self.live, self.clock()
        wanted = read_wanted(body, path)
        signals = read_signals(headers, wanted, self.known, None)
        chars, beginning = prompt_chars(wanted), beginning_of(wanted)
        tokens = live.tokens_of(wanted.model, chars)
        home = self.homes.find(beginning, signals.session)
        self._mark(wanted.model, signals, tokens, now_s, subset)
        cached = live.tokens_of(wanted.model, home.chars) if home.chars else 0
        ask = live.ask(signals, now_s, tokens, cached, beginning.prefix)
        order = self._order(ask, home.backend)
        first = order[0]
        placed = live.placed(first, ask, home.backend, signals.class_name)
        served_as = live.backends[first].upstream_model
        self.homes.settle(beginning, signals.session, first)
        renamed = None if served_as == wanted.model else _renamed(body, served_as)
        return Picked(order, placed, signals, wanted.model, chars, beginning, now_s, renamed)

    def _order(self, ask: Ask, home: int) -> tuple[int, ...]:
        """The policy's choice, then its choice with that one masked, and so on; all know the model by one name."""
        live = self.live
        first = live.choose(ask, home)
        if first < 0:
            raise _busy("no instance would be in time")
        order, j = [first], first
        served_as = live.backends[first].upstream_model
        while len(order) < self.most:
            live.mask(j)
            j = live.choose(ask, home)
            if j < 0:
                break
            if live.backends[j].upstream_model == served_as:
                order.append(j)
        return tuple(order)

    def _mark(self, model: str, signals: Signals, tokens: int, now_s: float, subset: frozenset[str] | None) -> None:
        """Mark who may take it; ApiError where nobody may."""
        live = self.live
        ready = live.mark(model, signals, tokens, now_s)
        if subset is not None:
            for j, address in enumerate(self.addresses):
                if address not in subset:
                    live.mask(j)
            ready = live.anybody()
        if not ready:
            if subset is None and self._is_full(model, now_s):
                raise _busy("every instance is full")
            raise ApiError(503, "no instance is ready", code="no_backend")
        shed_above = self.file.limits.shed_above
        if shed_above is not None and signals.priority < 0 and live.fullness() >= shed_above:
            raise _busy("the fleet is full, and this request may be shed")

    def _is_full(self, model: str, now_s: float) -> bool:
        """Whether somebody would be ready, if he had a place."""
        live = self.live
        return any(
            backend.model == model
            and live.breakers[j].may(now_s)
            and backend.max_inflight is not None
            and live.own[j] >= backend.max_inflight
            for j, backend in enumerate(live.backends)
        )

    def answers(self, picked: Picked, status: int, address: str) -> None:
        """The headers of the answer have come from an address ("": not known)."""
        live, now_s = self.live, self.clock()
        picked.status, picked.headers_s = status, now_s
        served = self.instance_at.get(address, picked.order[0])
        for j in picked.order[: picked.order.index(served)] if served in picked.order else ():
            live.went_wrong(j, now_s)
        if served != picked.placed.instance:
            moved = picked.placed.ask
            live.left(picked.placed)
            picked.placed = live.placed(served, moved, -1, picked.signals.class_name)
            self.homes.settle(picked.beginning, picked.signals.session, served)
        if status >= FIRST_ERROR_STATUS:
            live.went_wrong(served, now_s)
        elif status == 429:
            live.leave_alone(served, now_s + 1.0)
        else:
            live.went_well(served)

    def first(self, picked: Picked) -> None:
        """The first text has been seen."""
        if picked.first_s < 0.0:
            picked.first_s = self.clock()
            self.live.first(picked.placed)

    def ends(self, picked: Picked, usage: Usage | None) -> None:
        """The answer has been seen to its end."""
        if picked.ended:
            return
        now_s, live = self.clock(), self.live
        if usage is not None and usage.completion_tokens:
            tokens = usage.completion_tokens
            live.learn_lengths(picked.signals.class_name, picked.model, picked.chars, usage.prompt_tokens, tokens)
            if picked.first_s > 0.0:
                tpot_s = (now_s - picked.first_s) / max(tokens - 1, 1)
                live.learn_speed(picked.placed, picked.first_s - picked.began_s, tpot_s, tokens)
        self.left(picked)

    def left(self, picked: Picked) -> None:
        """It is not there any more."""
        if not picked.ended:
            picked.ended = True
            if not picked.status:
                self.live.was_given_up(picked.placed.instance)
            self.live.left(picked.placed)


def address_of(backend: Backend) -> str:
    """``IP:port`` of a backend, as Envoy knows its endpoints.

    Raises
    ------
    InputError
        https, or a name that no address is known of.
    """
    url = urlsplit(backend.url)
    if url.scheme != "http" or not url.hostname:
        what = "Envoy reaches its endpoints by address, without TLS"
        raise InputError(what, where=backend.name, value=backend.url, allowed="http://HOST:PORT")
    try:
        found = socket.getaddrinfo(url.hostname, url.port or 80, type=socket.SOCK_STREAM)
    except OSError:
        raise InputError("no address is known of this host", where=backend.name, value=backend.url) from None
    family, _, _, _, place = min(found, key=lambda row: row[0] != socket.AF_INET)
    host, port = str(place[0]), int(place[1])
    return f"{host}:{port}" if family == socket.AF_INET else f"[{host}]:{port}"


def _busy(message: str) -> ApiError:
    return ApiError(429, message, code="overloaded", headers=((b"retry-after", b"1"),))


def _renamed(body: bytes, model: str) -> bytes:
    raw = msgspec.json.decode(body)
    return msgspec.json.encode({**raw, "model": model})
