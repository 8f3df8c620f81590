"""``infermix quote``: a vendor's offer against one's own traffic."""

from __future__ import annotations

import click

from infermix.cli.first_compile import first_compile_said
from infermix.cli.output import console_out, one_line_errors, phases, write_json


@click.command("quote")
@click.argument("study", type=click.Path(dir_okay=False))
@click.option("--offer", required=True, metavar="FILE", help="The vendor's offer, a TOML file.")
@click.option("--json", "json_path", metavar="FILE", help="Write the answer as JSON (- for stdout).")
def quote(study: str, offer: str, json_path: str | None) -> None:
    """Whether to take the offer of FILE for the traffic of STUDY: break-even price, odds, what to ask for instead.

    Exits with 1 when tokens are offered that are slower than promised, or no fleet of the market can serve the study.
    """
    with one_line_errors():
        from infermix.report.quote import print_quote
        from infermix.study import quote as answer

        with phases() as say, first_compile_said():
            found = answer(study, offer, progress=say)
        if json_path:
            write_json(json_path, found)
        print_quote(found, console_out(json_path == "-"))
