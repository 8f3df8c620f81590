"""Runs a gateway: one process or several on one port, reload on SIGHUP, drain on SIGTERM, workers that die replaced."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from infermix.catalog.load import catalog
from infermix.errors import InfermixError
from infermix.serve.config import GatewayFile
from infermix.serve.gateway import Gateway
from infermix.serve.http1 import Server
from infermix.serve.merge import Snapshots
from infermix.serve.pools import pool_specs, with_list_prices
from infermix.serve.scrape import scrape_forever
from infermix.serve.shared import Shared
from infermix.sim.state import PoolSpec

LEAST_LIFE_S = 1.0
"""A worker that dies sooner is started again after a pause."""
GC_THRESHOLD = (20_000, 20, 50)
"""Requests leave few circles behind; looking for them after every 700 objects takes a tenth of the time."""
Load = Callable[[], GatewayFile]


def serve(load: Load, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``load`` reads the file, now and at every reload."""
    file = with_list_prices(load(), catalog())
    specs = pool_specs(file, catalog())
    if file.gateway.workers == 1:
        _run_loop(_work(file, specs, load, say, 0, None, None))
        return
    _Master(file, specs, load, say).run()


def _run_loop(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
        return
    uvloop.run(work)


async def _work(
    file: GatewayFile,
    specs: list[PoolSpec],
    load: Load,
    say: Callable[[str], None],
    worker: int,
    shared: Shared | None,
    snapshots: Snapshots | None,
) -> None:
    """One worker's life."""
    worker_life = _Worker(file, specs, load, say, worker, shared, snapshots)
    await worker_life.run()


class _Worker:
    """A server whose gateway may be replaced while it runs."""

    def __init__(
        self, file: GatewayFile, specs: list[PoolSpec], load: Load, say: Callable[[str], None], worker: int,
        shared: Shared | None, snapshots: Snapshots | None,
    ) -> None:  # fmt: skip
        self._load, self._say, self._number, self._shared, self._snapshots = load, say, worker, shared, snapshots
        self._stop = asyncio.Event()
        self.gateway = self._made(file, specs)
        self.server = Server(self.gateway.handle, file.limits.http())
        self.server.on_refused = self.gateway.books.misread
        self._tasks: set[asyncio.Task[None]] = set()

    def _made(self, file: GatewayFile, specs: list[PoolSpec]) -> Gateway:
        gateway = Gateway(file, specs, worker=self._number)
        if self._shared is not None:
            gateway.live.share(self._shared, self._number)
        if self._snapshots is not None:
            gateway.books.join(self._snapshots, self._shared)
        return gateway

    async def run(self) -> None:
        """Listen until told to stop, then let what is under way end."""
        loop = asyncio.get_running_loop()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        host, port = self.gateway.file.address
        port = await self.server.listen(host, port, reuse_port=self._shared is not None)
        self._spawn(scrape_forever(self.gateway))
        self._say(_greeting(self.gateway.file, host, port, self._number))
        await self._stop.wait()
        self.gateway.ready = False
        cut = await self.server.drain(self.gateway.file.gateway.drain_s)
        if cut:
            self._say(f"worker {self._number}: {cut} connections were cut at the end of the drain")
        for task in self._tasks:
            task.cancel()
        self.gateway.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _reload(self) -> None:
        """Read the file again: new requests go by it, those under way end as they began."""
        try:
            file = with_list_prices(self._load(), catalog())
            gateway = self._made(file, pool_specs(file, catalog()))
        except InfermixError as fault:
            self._say(f"reload refused, going on as before: {fault}")
            return
        before, self.gateway = self.gateway, gateway
        gateway.inherit(before)
        self.server.handler, self.server.on_refused = gateway.handle, gateway.books.misread
        for task in list(self._tasks):
            task.cancel()
        self._spawn(scrape_forever(gateway))
        self._spawn(_retired(before))
        self._say(f"worker {self._number}: reloaded, {len(file.backends)} backends")


async def _retired(gateway: Gateway) -> None:
    """Close a gateway when nothing is under way in it any more."""
    with contextlib.suppress(asyncio.CancelledError):
        while any(gateway.live.own) or len(gateway.queue):
            await asyncio.sleep(0.05)
    gateway.close()


def _greeting(file: GatewayFile, host: str, port: int, worker: int) -> str:
    many = len(file.backends)
    pools = len(file.pools)
    what = f"{many} backend{'s' * (many > 1)} in {pools} pool{'s' * (pools > 1)}, policy {file.gateway.policy}"
    return f"serving http://{host}:{port} ({what}), worker {worker}, pid {os.getpid()}"


class _Master:
    """Starts workers and keeps them at their number."""

    def __init__(self, file: GatewayFile, specs: list[PoolSpec], load: Load, say: Callable[[str], None]) -> None:
        self._file, self._specs, self._load, self._say = file, specs, load, say
        self._shared = Shared(file.gateway.workers, len(file.backends))
        self._folder = tempfile.TemporaryDirectory(prefix="infermix-serve-")
        self._pids: dict[int, tuple[int, float]] = {}
        self._stopping = False

    def run(self) -> None:
        """Until told to stop and all workers have."""
        host, port = self._file.address
        holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, port))  # held without listening: workers share it, nobody else gets it
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._pass_on)
        for worker in range(self._file.gateway.workers):
            self._start(worker)
        while self._pids:
            try:
                pid, status = os.wait()
            except InterruptedError:
                continue
            self._ended(pid, status)
        holder.close()
        self._folder.cleanup()

    def _start(self, worker: int) -> None:
        pid = os.fork()
        if pid:
            self._pids[pid] = (worker, time.monotonic())
            return
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            snapshots = Snapshots(Path(self._folder.name), worker)
            _run_loop(_work(self._file, self._specs, self._load, self._say, worker, self._shared, snapshots))
            code = 0
        except InfermixError as fault:
            self._say(str(fault))
            code = 2
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _ended(self, pid: int, status: int) -> None:
        """A worker has ended: start it again unless it was meant to."""
        worker, began_s = self._pids.pop(pid, (-1, 0.0))
        if worker < 0 or self._stopping:
            return
        lost = self._shared.bury(worker)
        self._say(
            f"worker {worker} (pid {pid}) died with status {status}; {lost} requests were under way; starting anew"
        )
        if time.monotonic() - began_s < LEAST_LIFE_S:
            time.sleep(LEAST_LIFE_S)
        self._start(worker)

    def _pass_on(self, number: int, _frame: Any) -> None:
        """Signals go to every worker."""
        if number != signal.SIGHUP:
            self._stopping = True
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
