"""``infermix emulate``: OpenAI-compatible servers that answer at the modelled speed of their chips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from infermix.cli.extras import needs_extra
from infermix.cli.output import one_line_errors

if TYPE_CHECKING:
    from infermix.serve.emulator.config import Emulated


@click.command("emulate")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--speed", type=float, metavar="X", help="Every chip X times as fast as modelled.  [default: 1]")
@click.option("--prefix-cache", is_flag=True, help="Every pool has a prefix cache, whatever FILE says.")
@click.option("--faults", metavar="FILE", help="A TOML with [[faults]], in place of FILE's own.")
@click.option("--for", "for_s", type=float, metavar="S", help="Stop after S seconds.  [default: at Ctrl-C]")
def emulate(file: str, speed: float | None, prefix_cache: bool, faults: str | None, for_s: float | None) -> None:
    """Serve every instance of FILE at its own port: a gateway.toml, a plan.json, or a TOML with [fleet.NAME] tables.

    Each answers OpenAI's API at the modelled speed of its chips and has vLLM's metrics at /metrics.
    """
    with one_line_errors():
        with needs_extra("serve"):
            from infermix.serve.emulator.config import load_emulated
            from infermix.serve.emulator.run import run_emulator

        places, setting = load_emulated(file, speed=speed, prefix_cache=prefix_cache, faults=faults)
        run_emulator(places, setting, lambda: _say(places), for_s)


def _say(places: list[Emulated]) -> None:
    """Which pools listen where."""
    for pool in dict.fromkeys(place.pool for place in places):
        ones = [place for place in places if place.pool == pool]
        spec = ones[0].spec
        alone_s = float(spec.decode_s[1]) + spec.per_seq_s
        click.echo(
            f"{pool}: {len(ones)} of {ones[0].model} at {ones[0].host}:{ones[0].port}"
            + (f" to {ones[-1].port}" if len(ones) > 1 else "")
            + f", TPOT alone {alone_s * 1e3:.3g} ms",
            err=True,
        )
    click.echo("emulate: ready", err=True)
