"""``infermix epp``: an endpoint picker behind Envoy."""

from __future__ import annotations

import os

import click

from infermix.cli.extras import needs_extra
from infermix.cli.output import one_line_errors


@click.command("epp")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--listen", default="127.0.0.1:9002", show_default=True, metavar="HOST:PORT", help="gRPC, for Envoy.")
@click.option("--http", metavar="HOST:PORT", help="/metrics, /healthz and /readyz there, too.")
@click.option("--print-envoy", is_flag=True, help="Print a configuration of Envoy and end.")
@click.option(
    "--mode",
    type=click.Choice(["buffered", "duplex"]),
    default="buffered",
    show_default=True,
    help="For --print-envoy.",
)
@click.option("--fail-open", is_flag=True, help="For --print-envoy: without a picker any backend, not an error.")
@click.option("--replica", multiple=True, metavar="HOST:PORT", help="For --print-envoy: further pickers.")
@click.option("--for", "for_s", type=float, metavar="S", help="Stop after S seconds.  [default: at Ctrl-C]")
def epp(
    file: str,
    listen: str,
    http: str | None,
    print_envoy: bool,
    mode: str,
    fail_open: bool,
    replica: tuple[str, ...],
    for_s: float | None,
) -> None:
    """Pick the backend of every request that Envoy asks about, by the policy of FILE, a gateway.toml.

    The same decision as `infermix serve` makes; Envoy carries the bytes, pickers are replicas.
    """
    with one_line_errors():
        with needs_extra("serve"):
            from infermix.serve.config import load_gateway

        found = load_gateway(file)
        if not found.gateway.compiled:
            os.environ["INFERMIX_JIT"] = "0"  # read when the policies are loaded, below
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong is said here, in one line
        with needs_extra("serve,epp"):
            from infermix.serve.epp.envoy import Mode, envoy_yaml
            from infermix.serve.epp.picker import address_of
            from infermix.serve.epp.run import run_picker
            from infermix.serve.pools import instances_of

        if print_envoy:
            addresses = [address_of(backend) for backend in instances_of(found)]
            kind: Mode = "duplex" if mode == "duplex" else "buffered"
            click.echo(envoy_yaml(found, addresses, [listen, *replica], mode=kind, fail_open=fail_open), nl=False)
            return
        run_picker(found, listen, http, lambda port: click.echo(f"epp: ready at port {port}", err=True), for_s)
