"""``infermix silicon``: what a chip costs, what it takes to make so many, whether to build one."""

from __future__ import annotations

import click

from infermix.cli.output import console_out, one_line_errors, phases, write_json, write_text

_FILE = click.argument("file", type=click.Path(dir_okay=False))
_JSON = click.option("--json", "json_path", metavar="FILE", help="Write the answer as JSON (- for stdout).")


@click.group("silicon")
def silicon() -> None:
    """Chips: what one costs, what it takes to make it, whether to build one."""


@silicon.command("cost")
@_FILE
@_JSON
@click.option("--chip", "chip_path", metavar="FILE.toml", help="Write it as a chip of one's own, for a study's market.")
def cost(file: str, json_path: str | None, chip_path: str | None) -> None:
    """Cost of the chip that FILE describes: area, yield, parts, price, and every constant that it hangs on."""
    with one_line_errors():
        from infermix.report.silicon import print_cost
        from infermix.silicon.cost import cost as answer
        from infermix.silicon.cost import emitted

        found = answer(file)
        if chip_path:
            write_text(chip_path, emitted(file))
        print_cost(found, console_out(json_path == "-"))
        if json_path:
            write_json(json_path, found)


@silicon.command("supply")
@_FILE
@_JSON
def supply(file: str, json_path: str | None) -> None:
    """What the demand of FILE takes: chips, wafers, HBM, CoWoS, EUV tools, fabs, power, money; and back."""
    with one_line_errors():
        from infermix.report.silicon_supply import print_supply
        from infermix.silicon.supply import supply as answer

        found = answer(file)
        print_supply(found, console_out(json_path == "-"))
        if json_path:
            write_json(json_path, found)


@silicon.command("decide")
@_FILE
@_JSON
def decide(file: str, json_path: str | None) -> None:
    """Build, buy, wait, or own a fab: worth of each against the vendor's next chip, and what would turn it."""
    with one_line_errors():
        from infermix.report.silicon_decide import print_decision
        from infermix.silicon.decide import decide as answer

        found = answer(file)
        print_decision(found, console_out(json_path == "-"))
        if json_path:
            write_json(json_path, found)


@silicon.command("design")
@_FILE
@_JSON
@click.option("--chips", "folder", metavar="FOLDER", help="Write the best designs there as chips of one's own.")
def design(file: str, json_path: str | None, folder: str | None) -> None:
    """Which chip to build: screen the space of FILE, perf on the best, their worth in the fleet of a study."""
    with one_line_errors():
        from infermix.report.silicon_design import print_design
        from infermix.study import design as answer
        from infermix.study import write_designs

        with phases() as say:
            found = answer(file, progress=say)
        if json_path:
            write_json(json_path, found)
        if folder:
            write_designs(file, found, folder)
        print_design(found, console_out(json_path == "-"))
