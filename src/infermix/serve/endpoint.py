"""One running OpenAI-compatible server: where it is, which model it serves, and one question to it.

Only the standard library: a connection of its own for every question, so that no question waits for another one.
Keys come from the environment and go into one header; they are in no message, log or result.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import msgspec

from infermix.errors import InputError
from infermix.serve.stream import Answer, read_answer

KEY_VARIABLE = "OPENAI_API_KEY"
APIS = {"chat": "/chat/completions", "completions": "/completions"}
FIRST_ERROR_STATUS = 400


@dataclass(frozen=True)
class Endpoint:
    """Where questions go.

    Attributes
    ----------
    base
        Path before ``/models``; ``/v1`` where the URL has none.
    api
        ``chat`` or ``completions``.
    timeout_s
        Longest silence that is waited for [s].
    clock
        What answers are stamped with [s].
    """

    secure: bool
    host: str
    port: int | None
    base: str
    api: str
    timeout_s: float
    key: str | None = field(default=None, repr=False)
    clock: Callable[[], float] = time.perf_counter

    @property
    def name(self) -> str:
        """The URL as it may be shown."""
        port = "" if self.port is None else f":{self.port}"
        return f"{'https' if self.secure else 'http'}://{self.host}{port}{self.base}"

    def connect(self) -> HTTPConnection:
        """A fresh connection."""
        if self.secure:
            context = ssl.create_default_context()
            return HTTPSConnection(self.host, self.port, timeout=self.timeout_s, context=context)
        return HTTPConnection(self.host, self.port, timeout=self.timeout_s)

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        key = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        return {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **key}


def open_endpoint(
    url: str,
    *,
    api: str = "chat",
    timeout_s: float = 120.0,
    key_variable: str = KEY_VARIABLE,
    environment: Mapping[str, str] = os.environ,
) -> Endpoint:
    """The endpoint at a URL; the key is the value of an environment variable, none where it is not set.

    Raises
    ------
    InputError
        Not an http URL, credentials in it, or an unknown API.

    >>> open_endpoint("http://127.0.0.1:8000", environment={}).name
    'http://127.0.0.1:8000/v1'
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise InputError("no credentials in the URL", where="--endpoint", mend=f"set {key_variable} instead")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("not the URL of a server", where="--endpoint", value=url, allowed="http://HOST:PORT/v1")
    try:
        port = parts.port
    except ValueError:
        raise InputError("not a port", where="--endpoint", value=url, allowed="0 to 65535") from None
    if parts.query or parts.fragment:
        raise InputError("the URL has a query", where="--endpoint", allowed="http://HOST:PORT/v1")
    if api not in APIS:
        raise InputError("unknown API", where="--api", value=api, allowed=", ".join(APIS))
    if not timeout_s > 0:
        raise InputError("must be positive", where="--timeout", value=timeout_s)
    key = environment.get(key_variable) or None
    if key is not None and not (key.isascii() and key.isprintable()):
        raise InputError("the key has characters that a header cannot carry", where=key_variable)
    base = parts.path.rstrip("/") or "/v1"
    return Endpoint(parts.scheme == "https", parts.hostname, port, base, api, timeout_s, key)


def served_models(endpoint: Endpoint) -> list[str]:
    """Names of the models that the server lists.

    Raises
    ------
    InputError
        The server does not answer, refuses, or lists nothing.
    """
    connection = endpoint.connect()
    try:
        connection.request("GET", f"{endpoint.base}/models", headers=endpoint.headers())
        response = connection.getresponse()
        body = response.read()
    except (OSError, HTTPException) as fault:
        raise InputError(
            f"the server does not answer: {told(fault)}", where=endpoint.name, mend="check the address and the port"
        ) from None
    finally:
        connection.close()
    if response.status >= FIRST_ERROR_STATUS:
        mend = f"set {KEY_VARIABLE}, or name its variable with --key-env" if response.status in (401, 403) else ""
        raise InputError(
            f"the server refuses to list its models: HTTP {response.status}", where=endpoint.name, mend=mend
        )
    try:
        listed = msgspec.json.decode(body)
        names = [str(entry["id"]) for entry in listed["data"]]
    except (msgspec.DecodeError, KeyError, TypeError):
        names = []
    if not names:
        raise InputError("the server lists no model", where=endpoint.name, mend="name it with --served-model")
    return names


def ask(endpoint: Endpoint, model: str, prompt: str, output_tokens: int, *, force: bool) -> Answer:
    """Ask for an answer of so many tokens and stamp what comes when; a failure is an answer that says why.

    Parameters
    ----------
    force
        Whether the answer must have its full length (``ignore_eos``, which not every server knows).
    """
    connection = endpoint.connect()
    sent_s = endpoint.clock()
    try:
        body = msgspec.json.encode(question(endpoint.api, model, prompt, output_tokens, force))
        connection.request("POST", endpoint.base + APIS[endpoint.api], body=body, headers=endpoint.headers())
        response = connection.getresponse()
        if response.status != 200:
            return Answer(sent_s, failure=_refusal(response))
        return read_answer(response, sent_s, endpoint.clock)
    except (OSError, HTTPException) as fault:
        return Answer(sent_s, failure=told(fault))
    finally:
        connection.close()


def question(api: str, model: str, prompt: str, output_tokens: int, force: bool) -> dict[str, Any]:
    """The body of a question."""
    what = {"prompt": prompt} if api == "completions" else {"messages": [{"role": "user", "content": prompt}]}
    full = {"ignore_eos": True} if force else {}
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    return {"model": model, "max_tokens": output_tokens, "temperature": 0.0, **what, **stream, **full}


def told(fault: Exception) -> str:
    """A fault of the connection in a few words.

    >>> told(ConnectionRefusedError(111, "Connection refused"))
    'Connection refused'
    """
    if isinstance(fault, TimeoutError):
        return "no answer in time"
    if isinstance(fault, OSError) and fault.strerror:
        return str(fault.strerror)
    return str(fault) or type(fault).__name__


def _refusal(response: HTTPResponse) -> str:
    """The status and, where the body says one, the reason."""
    try:
        said = msgspec.json.decode(response.read(10_000))
        error = said.get("error", said)
        reason = error.get("message", "") if isinstance(error, dict) else error
    except (msgspec.DecodeError, AttributeError, OSError, HTTPException):
        reason = ""
    return f"HTTP {response.status}" + (f": {str(reason)[:100]}" if reason else "")
