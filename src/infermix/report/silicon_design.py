"""Tables of ``infermix silicon design``."""

from __future__ import annotations

import math

from rich.console import Console

from infermix.explore.designs import Candidate, Design
from infermix.report import words
from infermix.report.silicon import print_ledger, table, usd

SHOWN = 10


def print_design(found: Design, console: Console) -> None:
    """Print the best designs, where SRAM beats HBM, what changes are worth, what the fleet says."""
    best = found.candidates[0]
    mix = "" if best.mix_usd_per_mtok is None else f", {words.money(best.mix_usd_per_mtok)} per million output tokens"
    named = f"{found.name}: " if found.name else ""
    unit = f"{usd(best.unit_usd)} a unit at cost, confidence {found.confidence}"
    console.print(f"{named}{best.chip.id}{mix}; {unit}.", markup=False)
    screen, told = words.seconds(found.screen_s), words.seconds(found.perf_s)
    console.print(f"{found.designs:,} designs screened in {screen}, {found.feasible:,} can be made;")
    console.print(f"{found.looked_at} by perf in {told}.")
    console.print()
    works = list(best.usd_per_mtok)
    made = table("Designs, $/Mtok output", *works, "regret", "mm2", "W", "unit", "hull")
    for c in _shown(found):
        costs = [words.money(c.usd_per_mtok[name]) for name in works]
        regret = words.NONE if math.isinf(c.regret) else words.share(c.regret)
        cells = (
            regret,
            words.digits(c.die_mm2),
            words.digits(c.power_w),
            usd(c.unit_usd),
            "out" if c.outside else "in",
        )
        made.add_row(c.chip.id, *costs, *cells)
    console.print(made)
    told = ", ".join(f"{name}: {id_ or words.NONE}" for name, id_ in found.by_work.items())
    console.print(f"Best for {told}.", markup=False)
    for said in best.outside:
        console.print(f"{best.chip.id} lies outside real chips: {said}.", markup=False)
    _versus(found, console)
    _worth(found, console)
    if found.fleet:
        _fleet(found, console)
    print_ledger(found.ledger, found.sources, console, "an hour of the best chip")
    for line in found.assumptions:
        console.print(line, markup=False)


def _shown(found: Design) -> list[Candidate]:
    """The first few, and those that are best for a kind of work."""
    best = set(found.by_work.values())
    return [c for place, c in enumerate(found.candidates) if place < SHOWN or c.chip.id in best]


def _versus(found: Design, console: Console) -> None:
    """The cheapest of either kind at every speed and context."""
    console.print()
    speeds = sorted({row.tokens_per_s_user for row in found.versus})
    made = table(f"{found.versus[0].model}: $/Mtok", "", *(f"{speed:g}/s" for speed in speeds), "SRAM from")
    for context in sorted({row.context_tokens for row in found.versus}):
        rows = [row for row in found.versus if row.context_tokens == context]
        turn = found.crossover[str(context)]
        made.add_row(f"{context:,} tokens", "HBM", *(words.money(row.hbm_usd_per_mtok) for row in rows), "")
        said = words.NONE if turn is None else f"{turn:g}/s"
        made.add_row("", "SRAM", *(words.money(row.sram_usd_per_mtok) for row in rows), said)
    console.print(made)


def _worth(found: Design, console: Console) -> None:
    console.print()
    made = table("Worth of a change to the best", "$/Mtok", "against it")
    for worth in found.worth:
        against = words.NONE if worth.against is None else f"{worth.against:+.1%}"
        made.add_row(worth.change, words.money(worth.usd_per_mtok), against)
    console.print(made)


def _fleet(found: Design, console: Console) -> None:
    fleet = found.fleet
    console.print()
    made = table("In the fleet", "$/h", "worth $/h", "bound $/h", "worth by bound", "systems")
    base, bound = fleet["usd_per_hour"], fleet["bound_usd_per_hour"]
    made.add_row("bought chips alone", words.money(base), "", words.money(bound), "", "")
    for row in sorted(fleet["each"], key=lambda row: row["bound_usd_per_hour"])[:SHOWN]:
        cost = row["usd_per_hour"]
        told = words.NONE if math.isnan(cost) else words.money(base - cost)
        taken = words.NONE if math.isnan(row["taken"]) else words.digits(row["taken"])
        gain = words.money(bound - row["bound_usd_per_hour"])
        made.add_row(row["design"], words.money(cost), told, words.money(row["bound_usd_per_hour"]), gain, taken)
    console.print(made)
    console.print("Costs are with simulated capacities, not proved; bounds are queue-free.")
