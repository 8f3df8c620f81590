"""The whole program, group by group: read this file as its table of contents."""

from __future__ import annotations

from infermix.plan.model.change import define_starts
from infermix.plan.model.demand import define_api, define_deferrable, define_demand, define_unmet
from infermix.plan.model.pools import (
    define_capacity,
    define_handover,
    define_one_bracket,
    define_one_pair,
    define_pools,
    define_rates,
    define_used_pools,
)  # fmt: skip
from infermix.plan.model.program import Program
from infermix.plan.model.redundancy import define_system_loss, define_vendor_loss
from infermix.plan.model.shares import define_least_share_of_tokens, define_shares, define_vendor_share
from infermix.plan.model.supply import (
    define_budget,
    define_capital,
    define_contracts,
    define_delivery,
    define_forced_system,
    define_hosting,
    define_no_idle_systems,
    define_other_systems,
    define_power,
    define_supply,
    define_take_or_pay,
)  # fmt: skip
from infermix.plan.question import Question
from infermix.plan.table import Table


def build(question: Question, table: Table) -> Program:
    """The whole program."""
    program = Program(question, table)
    # pools and what they carry
    define_pools(program)
    define_one_bracket(program)
    define_rates(program)
    define_starts(program)
    define_capacity(program)
    define_used_pools(program)
    define_handover(program)
    define_one_pair(program)
    # who is served
    define_api(program)
    define_unmet(program)
    define_demand(program)
    define_deferrable(program)
    # what is bought or rented
    define_contracts(program)
    define_delivery(program)
    define_take_or_pay(program)
    define_hosting(program)
    define_supply(program)
    define_no_idle_systems(program)
    # limits
    define_power(program)
    define_budget(program)
    define_capital(program)
    define_vendor_share(program)
    define_least_share_of_tokens(program)
    define_shares(program)
    define_system_loss(program)
    define_vendor_loss(program)
    define_forced_system(program)
    define_other_systems(program)
    return program
