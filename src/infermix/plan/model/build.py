"""The whole program, group by group: read this file as its table of contents."""

from __future__ import annotations

from infermix.plan.model.demand import define_demand
from infermix.plan.model.pools import (
    define_capacity,
    define_handover,
    define_one_bracket,
    define_pools,
    define_rates,
    define_used_pools,
)  # fmt: skip
from infermix.plan.model.program import Program
from infermix.plan.model.shares import define_least_share_of_tokens, define_vendor_share
from infermix.plan.model.supply import (
    define_budget,
    define_contracts,
    define_forced_system,
    define_hosting,
    define_power,
    define_supply,
)  # fmt: skip
from infermix.plan.question import Question
from infermix.plan.table import Table


def build(question: Question, table: Table) -> Program:
    """The whole program."""
    program = Program(question, table)
    define_pools(program)
    define_one_bracket(program)
    define_rates(program)
    define_capacity(program)
    define_used_pools(program)
    define_handover(program)
    define_demand(program)
    define_contracts(program)
    define_hosting(program)
    define_supply(program)
    define_power(program)
    define_budget(program)
    define_vendor_share(program)
    define_least_share_of_tokens(program)
    define_forced_system(program)
    return program
