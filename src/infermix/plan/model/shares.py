"""Shares of vendors, kinds of chip and systems: of spend, of capacity, of output tokens."""

from __future__ import annotations

from typing import NamedTuple

from infermix.errors import NoAnswer
from infermix.plan.model.lp import Terms, joined, scaled
from infermix.plan.model.program import Program
from infermix.plan.rules import Share


class Amount(NamedTuple):
    """A part of what is shared out."""

    vendor: str
    kind: str
    system: str
    terms: Terms

    def belongs(self, share: Share) -> bool:
        """Whether it counts for the member of a share."""
        return (share.vendor or self.vendor, share.kind or self.kind, share.system or self.system) == self[:3]


def define_vendor_share(program: Program) -> None:
    """No vendor gets more than its share, over the day."""
    limits = program.question.limits
    if limits.max_vendor_share is None:
        return
    amounts = amounts_of(program, limits.vendor_share_of)
    for vendor in dict.fromkeys(amount.vendor for amount in amounts):
        excess = [scaled(a.terms, float(a.vendor == vendor) - limits.max_vendor_share) for a in amounts]
        program.lp.row(f"vendor_{vendor}", joined(excess), most=0.0)


def define_least_share_of_tokens(program: Program) -> None:
    """A kind of chip yields at least its share of all output tokens."""
    shares = program.question.limits.min_share_output_tokens.items()
    amounts = amounts_of(program, "output_tokens") if shares else []
    for kind, share in shares:
        if share > 0 and not any(amount.kind == kind for amount in amounts):
            raise NoAnswer(f"limits.min_share_output_tokens: no {kind} system on the market can serve any class")
        surplus = [scaled(amount.terms, float(amount.kind == kind) - share) for amount in amounts]
        program.lp.row(f"least_share_{kind}", joined(surplus), least=0.0)


def define_shares(program: Program) -> None:
    """Least and greatest shares of a vendor, a kind of chip or a system."""
    for k, share in enumerate(program.question.limits.shares):
        amounts = amounts_of(program, share.of)
        for bound, sense in ((share.least, 1.0), (share.most, -1.0)):
            if (sense > 0 and bound > 0) or (sense < 0 and bound < 1):
                over = [scaled(a.terms, sense * (float(a.belongs(share)) - bound)) for a in amounts]
                name = f"{'least' if sense > 0 else 'most'}_{k}_{share.member}"
                program.lp.row(name, joined(over), least=0.0)


def amounts_of(program: Program, measure: str) -> list[Amount]:
    """What is shared out, mean over the slots."""
    return {"spend": _spend, "capacity": _capacity, "output_tokens": _output_tokens}[measure](program)


def _spend(program: Program) -> list[Amount]:
    """USD an hour."""
    slots = enumerate(program.question.slots)
    return [
        Amount(vendor, kind, system, scaled(terms, slot.weight))
        for s, slot in slots
        for vendor, kind, system, terms in program.spend(s)
    ]


def _capacity(program: Program) -> list[Amount]:
    """Output tokens a second that instances could yield of the class of which they yield most."""
    found = []
    outputs = [demand.mean_output for demand in program.question.demands]
    for (i, s), n in program.instances.items():
        option = program.table.columns[i].option
        best = max(float(rate) * tokens for rate, tokens in zip(program.table.capacity[i, :, s], outputs, strict=True))
        if best > 0.0 and option.deployment.role != "prefill":
            weight = best * program.question.slots[s].weight
            found.append(Amount(option.offer.system.vendor, option.kind, option.offer.system.id, [(n, weight)]))
    return found


def _output_tokens(program: Program) -> list[Amount]:
    """Output tokens a second; a request that is handed over counts where it ends."""
    found = []
    demands, slots = program.question.demands, program.question.slots
    for (i, c, s), v in program.rate.items():
        option = program.table.columns[i].option
        if option.deployment.role != "prefill":
            terms = [(v, demands[c].mean_output * slots[s].weight)]
            found.append(Amount(option.offer.system.vendor, option.kind, option.offer.system.id, terms))
    for (a, c, s), v in program.bought.items():
        api = program.question.apis[a]
        found.append(Amount(api.vendor, "api", api.name, [(v, demands[c].mean_output * slots[s].weight)]))
    return found
