"""Choose a fleet: solve with optimistic capacities, simulate those that were chosen, solve again.

Capacities start as queue-free bounds. The program picks its columns; capacities that it used and that were not
simulated yet are simulated, which can only lower them; and the program is solved again. When every chosen capacity
is a simulated one, the choice is the optimum over the shortlist with simulated capacities: anything
else is at least as dear even with an optimistic one. Most options are thus never simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec

from infermix.errors import NoAnswer
from infermix.plan import model
from infermix.plan.cache import Store
from infermix.plan.capacity import SIZES, Capacities
from infermix.plan.duals import fractional_cost
from infermix.plan.model import Column, Solution, Table, make_table
from infermix.plan.options import Option, Options, able, find_options
from infermix.plan.question import Demand, Question
from infermix.plan.rules import Limits
from infermix.plan.ruling import ruled_by, with_slots
from infermix.plan.shortlist import shortlist

ROUNDS = 60
THREADS = 2
ROUGH = 0.01
"""Relative gap at which the program is solved while capacities are still being found."""
UNBOUNDED = 100_000
"""Instances of a column of the relaxation."""
ALIKE = 0.004
"""Capacities of two brackets that differ by less are not told apart in days: the lower one counts."""
MIXED = 4
"""Where pools may be apart, the last bracket in which a pool may be for several classes: large pools are smooth."""
DAY_GAP = 0.01
"""Relative gap to which the program of a day is solved."""
FRONTIER_GAP = 0.05
"""Relative gap to which programs with other promises are solved."""
Progress = Callable[[str], None]


@dataclass
class Planner:
    """A question with its options and what was simulated so far."""

    question: Question
    found: Options
    short: list[Option]
    capacities: Capacities = field(default_factory=Capacities)
    derate: dict[tuple[str, str], float] = field(default_factory=dict)
    """(option, class) → factor on its simulated capacity, below 1 after a proof that failed."""
    share_margin: float = 0.0
    """By how much shares are stricter than asked for, relatively, after a proof that missed one."""
    gap: float = 2e-3
    """Relative gap to which the final program is solved."""
    mixes: dict[tuple[object, ...], float] = field(default_factory=dict)
    """(option, instances, rates) → how much of the mix it holds."""
    apart: bool = False
    """Whether an option may have a pool for each class beside the one for all, as in days."""
    mixed: dict[str, float] = field(default_factory=dict)
    """Option → factor on the capacities of its pool for all classes where pools may be apart, below 1 where a mix did
    not hold."""

    def narrowed(self, question: Question) -> Planner:
        """A planner for a narrower or relaxed question that shares what was simulated."""
        offered = {o.system.id for o in question.offers}
        return Planner(
            question=question,
            found=self.found,
            short=[o for o in self.short if o.offer.system.id in offered],
            capacities=self.capacities,
            derate=dict(self.derate),
            share_margin=self.share_margin,
            mixes=self.mixes,
            apart=self.apart,
            mixed=dict(self.mixed),
        )

    def capacity(self, option: Option, demand: Demand, size: int) -> float:
        """Requests a second and instance, after what proofs and mixes took off."""
        return self.capacities.per_instance(option, demand, size) * self.derated(option, demand)

    def derated(self, option: Option, demand: Demand) -> float:
        """Factor that proofs and mixes took off."""
        return self.derate.get((option.name, demand.name), 1.0)

    def take_off(self, option: Option, factor: float) -> None:
        """Derate an option for every class."""
        for demand in self.question.demands:
            key = (option.name, demand.name)
            self.derate[key] = self.derate.get(key, 1.0) * factor

    @property
    def reasons(self) -> dict[str, dict[str, str]]:
        """Class → system → why it cannot serve the class."""
        return self.found.reasons

    @property
    def misfits(self) -> dict[str, str]:
        """System → why no model fits."""
        return self.found.bases.misfits

    def may_serve(self, option: Option, demand: Demand) -> bool:
        """Whether an option can hold a class's promise alone and idle."""
        return able(option, demand)


def make_planner(question: Question, store: Store | None = None) -> Planner:
    """Options and shortlist of a question, with capacities of earlier ones; NoAnswer when a class or model has none."""
    found = find_options(question)
    return Planner(question, found, shortlist(question, found), Capacities(store))


def replanned(planner: Planner, question: Question, changed: str) -> Planner:
    """A planner for the same market with another promise to one class; capacities of the others stay known."""
    keep = [name for name in question.class_names if name != changed]
    found = find_options(question, planner.found.bases)
    return Planner(
        question=question,
        found=found,
        short=shortlist(question, found),
        capacities=planner.capacities.copy_of_classes(keep),
        gap=FRONTIER_GAP,
    )


def simulate_near(planner: Planner, progress: Progress) -> None:
    """Simulate what will be asked for anyway: every bracket of the shortlist, up to what is needed."""
    jobs = [
        (option, demand, size)
        for option in planner.short
        for demand in planner.question.demands
        if planner.may_serve(option, demand)
        for size in SIZES
        if size <= demand.rate_per_s / planner.capacities.best_known(option, demand) + 1
        and not planner.capacities.known(option, demand, size)
    ]
    progress(f"capacities: {len(jobs)}")
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda job: planner.capacities.simulate(*job), jobs))
    for option in planner.short:
        for demand in planner.question.demands:
            if planner.may_serve(option, demand):
                planner.capacities.recall(option, demand)


def choose(planner: Planner, progress: Progress | None = None, *, rounds: int = ROUNDS) -> Solution | None:
    """Optimum over the shortlist with simulated capacities; None when the limits conflict.

    When the rounds run out, the best fleet among the capacities simulated so far.
    """
    gap = max(ROUGH, planner.gap)
    for round_number in range(rounds):
        solution = solve_once(planner, gap)
        if solution is None:
            return None
        wanted = _not_simulated(planner, solution)
        if not wanted and _mixes_hold(planner, solution):
            if min(gap, _own_gap(solution)) <= planner.gap:
                return solution
            gap = planner.gap
        if progress is not None and wanted:
            progress(f"capacities, round {round_number + 1}: {len(wanted)} simulated")
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda job: planner.capacities.simulate(*job), wanted))
    return _best_simulated(planner)


def _own_gap(solution: Solution) -> float:
    """How far the solver knows a solution to be from the optimum at most, relatively."""
    return (solution.loss_usd_per_hour - solution.bound_usd_per_hour) / max(abs(solution.loss_usd_per_hour), 1e-9)


def _best_simulated(planner: Planner) -> Solution | None:
    for _ in range(ROUNDS):
        solution = solve_once(planner, planner.gap, simulated_only=True)
        if solution is None or _mixes_hold(planner, solution):
            return solution
    raise NoAnswer(f"capacities did not settle in {ROUNDS} rounds")


def solve_once(planner: Planner, gap: float, *, simulated_only: bool = False) -> Solution | None:
    """The program with what is known now."""
    question = with_margin(planner)
    return model.solve(model.build(question, make_table(question, _columns(planner, simulated_only))), gap)


def with_margin(planner: Planner) -> Question:
    """The question, with shares stricter by what proofs that missed one added."""
    question = planner.question
    return (
        question.with_limits(_with_margin(question.limits, planner.share_margin)) if planner.share_margin else question
    )


def simulated_columns(planner: Planner) -> list[Column]:
    """All brackets of pools whose capacities were simulated."""
    return _columns(planner, simulated_only=True)


def current_table(planner: Planner) -> Table:
    """Columns with the capacities that are known now, optimistic ones where nothing was simulated."""
    return make_table(planner.question, _columns(planner, simulated_only=False))


def _with_margin(limits: Limits, margin: float) -> Limits:
    """Shares a little stricter than asked for: simulated tokens fall not quite where the program puts them."""

    def raised(least: float) -> float:
        return min(1.0, least * (1.0 + margin))

    def lowered(most: float) -> float:
        return most * (1.0 - margin) if most < 1.0 else most

    most = limits.max_vendor_share
    return msgspec.structs.replace(
        limits,
        min_share_output_tokens={kind: raised(least) for kind, least in limits.min_share_output_tokens.items()},
        max_vendor_share=None if most is None else lowered(most),
        shares=[msgspec.structs.replace(s, least=raised(s.least), most=lowered(s.most)) for s in limits.shares],
    )


def _columns(planner: Planner, simulated_only: bool) -> list[Column]:
    """A pool for every option and bracket; where pools may be apart, one for each class alone beside it."""
    columns = []
    for option in planner.short:
        classes = [d for d in planner.question.demands if planner.may_serve(option, d)]
        if not classes:
            continue
        sizes = [size for size in SIZES if size <= _most_instances(planner, option, classes)]
        if planner.apart:
            sizes = _worth_telling_apart(planner, option, classes, sizes)
        for least, beyond in zip(sizes, (*sizes[1:], SIZES[-1] * 4), strict=True):
            usable = [d for d in classes if not simulated_only or planner.capacities.known(option, d, least)]
            capacity = {d.name: planner.capacity(option, d, least) for d in usable}
            useful = {name: rate for name, rate in capacity.items() if rate > 0.0}
            if planner.apart:
                columns += [Column(option, least, beyond - 1, {name: rate}, (), name) for name, rate in useful.items()]
            if (len(useful) > 1 and least <= MIXED) or (useful and not planner.apart):
                factor = planner.mixed.get(option.name, 1.0)
                columns.append(Column(option, least, beyond - 1, {name: factor * r for name, r in useful.items()}))
    return columns


def _worth_telling_apart(planner: Planner, option: Option, classes: list[Demand], sizes: list[int]) -> list[int]:
    """Sizes at which some class gains on the size before; a bracket without that counts as part of the one below."""
    kept = [sizes[0]]
    for size in sizes[1:]:
        pairs = [(planner.capacity(option, d, size), planner.capacity(option, d, kept[-1])) for d in classes]
        if any(here > (1.0 + ALIKE) * below for here, below in pairs):
            kept.append(size)
    return kept


def _most_instances(planner: Planner, option: Option, classes: list[Demand]) -> int:
    """Pool sizes beyond twice what the whole demand takes, by the lowest capacity known, are of no use."""
    rates = [(d.rate_per_s, planner.capacities.lowest_known(option, d) * planner.derated(option, d)) for d in classes]
    return int(2 * sum(demand / rate for demand, rate in rates if rate > 0.0)) + 2


def _mixes_hold(planner: Planner, solution: Solution) -> bool:
    """Simulate the pools that serve several classes; derate those that do not hold their mix.

    Where pools may be apart, only the pool for all classes is derated.
    """
    held = True
    for choice in solution.choices:
        option = choice.column.option
        demands = [d for d in planner.question.demands if d.name in choice.rates]
        if len(demands) < 2:
            continue
        key = (option.name, choice.instances, tuple(round(r, 6) for r in choice.rates.values()))
        if key not in planner.mixes:
            planner.mixes[key] = planner.capacities.mix_factor(option, demands, choice.rates, choice.instances)
        if planner.mixes[key] < 1.0:
            factor = max(0.3, planner.mixes[key])
            if planner.apart:
                planner.mixed[option.name] = planner.mixed.get(option.name, 1.0) * factor
            else:
                planner.take_off(option, factor)
            held = False
    return held


def _not_simulated(planner: Planner, solution: Solution) -> list[tuple[Option, Demand, int]]:
    by_name = {d.name: d for d in planner.question.demands}
    used = [(c.column.option, by_name[name], c.column.least) for c in solution.choices for name in c.rates]
    return [job for job in used if not planner.capacities.known(*job)]


def lower_bound(planner: Planner) -> float:
    """Least cost of any fleet of able options: all of them, queue-free capacities, the same limits [USD/h].

    Instances that share a system may be fractions; options that another one of the same system matches or beats
    for every class are left out, and so are slots that others rule, which cannot change the optimum.
    """
    question = with_slots(planner.question, sorted(set(ruled_by(planner.question))))
    table = make_table(question, relaxed_columns(planner))
    solution = model.solve(model.build(question, table), tie_break=0.0)
    return solution.bound_usd_per_hour if solution is not None else float("inf")


def fractional_bound(planner: Planner) -> float:
    """As ``lower_bound``, but systems may be fractions, too: lower, and found at once [USD/h]."""
    return fractional_cost(model.build(planner.question, make_table(planner.question, relaxed_columns(planner))))


def relaxed_columns(planner: Planner) -> list[Column]:
    """Columns of the relaxation: undominated options, of any pool size, with queue-free capacities."""
    offered = {o.key for o in planner.question.offers}
    kept = [k for k in planner.found.kept if k.option.offer.key in offered]
    return [Column(k.option, 0, UNBOUNDED, k.capacity, k.rows) for k in kept]
