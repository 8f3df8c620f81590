"""``infermix serve``: the gateway in front of real servers."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
import msgspec

from infermix.cli.extras import needs_extra
from infermix.cli.output import one_line_errors
from infermix.errors import InputError

_OWN = ("listen", "workers", "policy", "decisions", "observe", "log")


@click.command("serve")
@click.argument("file", type=click.Path(dir_okay=False), required=False)
@click.option("--listen", metavar="HOST:PORT", help="Another address than the file's.")
@click.option("--workers", type=int, metavar="N", help="So many processes on one port.")
@click.option("--policy", metavar="NAME", help="Another routing policy than the file's.")
@click.option("--decisions", metavar="FILE", help="Write a decision log, for `infermix simulate --replay`.")
@click.option("--observe", metavar="FILE", help="Write a request log, for `backtest`, `simulate` and `plan`.")
@click.option("--log", metavar="FILE", help="Write a line of JSON for each request (- for stderr).")
@click.option("--compiled/--plain", default=None, help="Compile the policy, or not.  [default: as the file says]")
@click.option("--hash-key", metavar="ID", help="Read a new API key from stdin, print what goes into the environment.")
def serve(file: str | None, hash_key: str | None, **options: Any) -> None:
    """Serve an OpenAI-compatible API over the backends of FILE, each request where the policy sends it.

    SIGHUP reads FILE again, SIGTERM lets what is under way end. See docs/serve.md.
    """
    with one_line_errors():
        if hash_key is not None:
            _print_hash(hash_key)
            return
        if file is None:
            raise InputError("no gateway file", where="FILE", mend="infermix plan --out writes one")
        _serve(file, options)


def _serve(path: str, options: dict[str, Any]) -> None:
    with needs_extra("serve"):
        from infermix.serve.config import GatewayFile, load_gateway

    def load() -> GatewayFile:
        found = load_gateway(path)
        said = {name: value for name, value in options.items() if value is not None}
        for name in ("decisions", "observe", "log"):
            if name in said and said[name] != "-":
                said[name] = os.path.abspath(said[name])  # noqa: PTH100 - as typed, from here, not from the file
        return msgspec.structs.replace(found, gateway=msgspec.structs.replace(found.gateway, **said))

    if not load().gateway.compiled:
        os.environ["INFERMIX_JIT"] = "0"  # read when the policies are loaded, below
    with needs_extra("serve"):
        from infermix.serve.workers import serve as serve_file
    try:
        serve_file(load, _say)
    except OSError as fault:
        raise InputError(f"cannot listen: {fault.strerror or fault}", where=load().gateway.listen) from None


def _say(line: str) -> None:
    click.echo(f"infermix: {line}", err=True)


def _print_hash(name: str) -> None:
    from infermix.serve.keys import hash_key

    if ":" in name or "," in name or not name:
        raise InputError("an ID has no colon and no comma", where="--hash-key", value=name)
    key = sys.stdin.readline().strip()
    if len(key) < 16:
        raise InputError("a key has at least 16 characters", where="stdin", mend="head -c 24 /dev/urandom | base64")
    click.echo(f"{name}:{hash_key(key)}")
