"""Shares of vendors and kinds of chip."""

from __future__ import annotations

from infermix.errors import NoAnswer
from infermix.plan.model.lp import Terms, joined, scaled
from infermix.plan.model.program import Program


def define_vendor_share(program: Program) -> None:
    """No vendor gets more than its share of the spend, or of the output tokens, over the day."""
    limits = program.question.limits
    if limits.max_vendor_share is None:
        return
    amounts = _spend(program) if limits.vendor_share_of == "spend" else _output_tokens(program)
    for vendor in dict.fromkeys(vendor for vendor, _, _ in amounts):
        excess = [scaled(terms, float(mine == vendor) - limits.max_vendor_share) for mine, _, terms in amounts]
        program.lp.row(f"vendor_{vendor}", joined(excess), most=0.0)


def define_least_share_of_tokens(program: Program) -> None:
    """A kind of chip yields at least its share of all output tokens."""
    amounts = _output_tokens(program)
    for kind, share in program.question.limits.min_share_output_tokens.items():
        if share > 0 and not any(mine == kind for _, mine, _ in amounts):
            raise NoAnswer(f"limits.min_share_output_tokens: no {kind} system on the market can serve any class")
        surplus = [scaled(terms, float(mine == kind) - share) for _, mine, terms in amounts]
        program.lp.row(f"least_share_{kind}", joined(surplus), least=0.0)


Amount = tuple[str, str, Terms]
"""(vendor, kind of chip, how much)."""


def _spend(program: Program) -> list[Amount]:
    """USD an hour, mean over the slots."""
    found = []
    for s, slot in enumerate(program.question.slots):
        for (offer, _), (vendor, terms) in zip(program.contracts, program.spend(s), strict=True):
            found.append((vendor, offer.chip.kind, scaled(terms, slot.weight)))
    return found


def _output_tokens(program: Program) -> list[Amount]:
    """Output tokens a second, mean over the slots; a request that is handed over counts where it ends."""
    found = []
    demands, slots = program.question.demands, program.question.slots
    for (i, c, s), v in program.rate.items():
        option = program.table.columns[i].option
        if option.deployment.role != "prefill":
            amount = [(v, demands[c].mean_output * slots[s].weight)]
            found.append((option.offer.system.vendor, option.kind, amount))
    return found
