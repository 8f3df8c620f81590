"""``infermix``: one command per file; here they meet, and here alone the process exits."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from infermix import __version__
from infermix.cli.output import one_line
from infermix.errors import InfermixError

COMMANDS = {
    "backtest": "how well a deployment's log is predicted, and what-ifs on it",
    "calibrate": "efficiencies from operator tables and measured rows, step times of a running server",
    "catalog": "what is known: chips, systems, models, prices, each figure with its source",
    "emulate": "OpenAI-compatible servers at the modelled speed of any chip",
    "epp": "an endpoint picker behind Envoy, by the same policy",
    "perf": "how fast a model is on a system",
    "top": "what a running gateway does: pools, speeds, promises kept, money per hour",
    "plan": "what to buy, who is served by what, and what it costs, proved",
    "quote": "a vendor's offer against your traffic: break-even, odds, what to ask for",
    "serve": "live: an OpenAI-compatible gateway that routes by the policy of the plan",
    "silicon": "what a chip costs, what it takes to make it, whether to build one",
    "validate": "how far predictions lie from what was measured",
    "simulate": "what happens to a fleet under traffic",
    "workload": "what traffic looks like: traces and profiles",
}


class Lazy(click.Group):
    """Commands are imported when they are called, so that ``--help`` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"infermix.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="infermix %(version)s")
def infermix() -> None:
    """Plan, simulate and price AI inference on more than one kind of chip."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line: exit 0 answered, 1 infeasible or not proved, 2 malformed input."""
    try:
        infermix.main(args=arguments, standalone_mode=False)
    except InfermixError as fault:
        _fail(str(fault), fault.exit_code)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.Abort:
        _fail("interrupted", 130)
    except click.ClickException as fault:
        hint = f"; see {fault.ctx.command_path} --help" if isinstance(fault, click.UsageError) and fault.ctx else ""
        _fail(fault.format_message().rstrip(".") + hint, fault.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(0)


def _fail(message: str, code: int) -> None:
    click.echo(f"infermix: {one_line(message)}", err=True)
    sys.exit(code)
