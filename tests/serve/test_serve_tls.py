"""TLS to backends: whom the file trusts is asked; who shows another certificate gets not a byte of the request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.serve.config import read_gateway
from infermix.serve.gateway import Gateway
from infermix.serve.http1 import Connection, Server
from infermix.serve.openai import CHAT
from infermix.serve.pools import pool_specs
from tests.serve.fake_backend import STREAM_BODY, FakeBackend
from tests.serve.raw import body_of, post, run, send, serving, status_of

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with")


def certificate(folder: Path, name: str, host: str = "127.0.0.1") -> Path:
    """A certificate that signs itself, beside its key."""
    path = folder / f"{name}.pem"
    line = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    line += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{host}"]
    subprocess.run(
        [*line, "-keyout", str(path.with_suffix(".key")), "-out", str(path)], check=True, capture_output=True
    )
    return path


@contextlib.asynccontextmanager
async def tls_backend(shown: Path, backend: FakeBackend) -> AsyncIterator[int]:
    """A backend behind a certificate; its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(shown, shown.with_suffix(".key"))
    server = Server(backend.handle)
    listener = await server.loop.create_server(lambda: Connection(server), "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await server.drain(1.0)


@contextlib.asynccontextmanager
async def trusting(folder: Path, **cases: tuple[Path, Path]) -> AsyncIterator[tuple[dict[str, FakeBackend], int]]:
    """A gateway before backends, each as (certificate shown, certificates trusted); the gateway's port."""
    backends = {name: FakeBackend() for name in cases}
    rows: list[dict[str, Any]] = []
    async with contextlib.AsyncExitStack() as stack:
        for name, (shown, trusted) in cases.items():
            port = await stack.enter_async_context(tls_backend(shown, backends[name]))
            rows.append({"url": f"https://127.0.0.1:{port}", "name": name, "model": "m", "ca_file": trusted.name})
        listen = {"scrape_s": 0.0, "policy": "round_robin"}
        file = read_gateway({"gateway": listen, "backends": rows}, str(folder / "gateway.toml"))
        gateway = Gateway(file, pool_specs(file, catalog()), {})
        stack.callback(gateway.close)
        _, port = await stack.enter_async_context(serving(gateway.handle))
        yield backends, port


def test_only_a_certificate_that_is_trusted_is_sent_anything(tmp_path: Path) -> None:
    own, other = certificate(tmp_path, "own"), certificate(tmp_path, "other")
    away = certificate(tmp_path, "away", host="127.0.0.9")

    async def asked(**cases: tuple[Path, Path]) -> tuple[bytes, dict[str, FakeBackend]]:
        async with trusting(tmp_path, **cases) as (backends, port):
            answer = await send(port, post(CHAT, STREAM_BODY), wait_s=5.0)
            await asyncio.sleep(0)
            return answer, backends

    answer, _ = run(lambda: asked(good=(own, own)))
    assert status_of(answer) == 200 and body_of(answer).endswith(b"data: [DONE]\n\n")
    for shown, trusted, why in ((other, own, "self-signed certificate"), (away, away, "IP address mismatch")):
        answer, backends = run(lambda s=shown, t=trusted: asked(bad=(s, t)))  # type: ignore[misc]
        told = json.loads(body_of(answer))["error"]["message"]
        assert status_of(answer) == 502 and "last bad: certificate not trusted (" in told and why in told
        assert not backends["bad"].asked and not backends["bad"].headers
    answer, backends = run(lambda: asked(bad=(other, own), good=(own, own)))  # the next one is asked
    assert status_of(answer) == 200 and len(backends["good"].asked) == 1 and not backends["bad"].asked


def test_a_file_without_certificates_is_told(tmp_path: Path) -> None:
    def started(**row: str) -> None:
        backend = {"url": "https://127.0.0.1:1", "name": "b", "model": "m", **row}
        file = read_gateway({"backends": [backend]}, str(tmp_path / "gateway.toml"))

        async def inside() -> None:
            Gateway(file, pool_specs(file, catalog()), {})

        run(inside)

    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(InputError, match=r"backends\.b\.ca_file: no certificate in it; got 'empty\.pem'"):
        started(ca_file="empty.pem")
    with pytest.raises(InputError, match=r"backends\.b\.ca_file: cannot be read: No such file"):
        started(ca_file="gone.pem")
    with pytest.raises(InputError, match="a ca_file without TLS"):
        started(url="http://127.0.0.1:1", ca_file="empty.pem")
    with pytest.raises(InputError, match="prefill and decode apart are not routed"):
        started(role="prefill")
