"""A space of designs as columns, and the fast screen over all of them at once (E1 to E16)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import msgspec
import numpy as np

from infermix.arrays import Bools, Floats, Ints, check_equal_lengths
from infermix.catalog.records import Efficiency, Model
from infermix.cost.tco import annuity_usd_per_hour, energy_usd_per_hour
from infermix.silicon import defects, die, package, screen, wafer
from infermix.silicon.build import MEGA, TERA
from infermix.silicon.chip import Chip
from infermix.silicon.constants import Constants
from infermix.silicon.draw import exact
from infermix.silicon.record import FAMILIES
from infermix.units import SECONDS_PER_HOUR, TOKENS_PER_MTOK

GROUPS = (1, 2, 4, 8)
"""Chips that share a layer."""
BATCHES = (1, 4, 12, 48, 100)
"""Sequences of a step that are tried, times the chips of a group."""
CHUNK = 2**14
THREADS = 2
CORES = 128
"""Cores that a designed die is divided into; spares are a share of them."""


class Space(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is searched: every combination of these."""

    node: list[str]
    sram_mb: list[float]
    tflops: list[float]
    hbm: list[str] = []
    stacks: list[int] = []
    """Beside 0 where ``sram_only`` is true."""
    sram_only: bool = True
    links: list[float]
    dies: list[int] = msgspec.field(default_factory=lambda: [1])
    spare_share: list[float] = msgspec.field(default_factory=lambda: [0])


class Work(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One kind of request in the mix."""

    model: str
    input_tokens: int
    cached_tokens: int = 0
    output_tokens: int
    tokens_per_s_user: float
    ttft_s: float
    share: float = 1
    """Of the output tokens."""


class Money(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Terms of a chip's hour, at the price that a partner's margin leaves."""

    gross_margin: float
    system_usd_per_chip: float
    life_years: float
    finance_rate: float
    usd_per_kwh: float
    load: float


@dataclass(frozen=True)
class Designs:
    """Designs as columns; rates are of the whole package."""

    node: Ints
    hbm: Ints
    """Index of the memory; -1 for none."""
    stacks: Floats
    sram_mb: Floats
    tflops: Floats
    links: Floats
    dies: Floats
    spare_share: Floats

    def __post_init__(self) -> None:
        """Columns are equally long."""
        check_equal_lengths(self)

    def __len__(self) -> int:
        return len(self.node)

    def at(self, rows: Ints | slice) -> Designs:
        """Some of the designs."""
        return Designs(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class Screened:
    """What the screen says of every design."""

    die_mm2: Floats
    unit_usd: Floats
    power_w: Floats
    mem_bytes: Floats
    """That hold weights: HBM, or SRAM where there is none."""
    mem_bytes_per_s: Floats
    usd_per_hour: Floats
    feasible: Bools
    usd_per_mtok: Floats
    """Rows are kinds of work; infinite where a promise cannot be held."""


def designs_of(space: Space) -> Designs:
    """Every combination, one row each; memories only where there are stacks."""
    memories = [(m, s) for m in range(len(space.hbm)) for s in space.stacks if s > 0]
    memories += [(-1, 0)] if space.sram_only else []
    axes = (range(len(space.node)), range(len(memories)), space.sram_mb, space.tflops, space.links, space.dies,
            space.spare_share)  # fmt: skip
    node, memory, *rest = (column.ravel() for column in np.meshgrid(*map(np.asarray, axes), indexing="ij"))
    kinds = np.array(memories, dtype=np.int64).reshape(-1, 2)[memory.astype(np.int64)]
    sram, tflops, links, count, spare = (column.astype(np.float64) for column in rest)
    stacks = kinds[:, 1].astype(np.float64)
    return Designs(node.astype(np.int64), kinds[:, 0], stacks, sram, tflops, links, count, spare)


def chip_of(space: Space, designs: Designs, row: int, gross_margin: float | None = None) -> Chip:
    """One design as a chip that can be built, priced and recorded."""
    memory = int(designs.hbm[row])
    spare = round(float(designs.spare_share[row]) * CORES)
    node = space.node[int(designs.node[row])]
    words = f"{node}-{'sram' if memory < 0 else f'{int(designs.stacks[row])}{space.hbm[memory]}'}"
    size = f"{designs.sram_mb[row]:g}mb-{designs.tflops[row]:g}tf-{designs.links[row]:g}l"
    tail = f"{f'-{int(designs.dies[row])}d' if designs.dies[row] > 1 else ''}{f'-s{spare}' if spare else ''}"
    return Chip(
        id=f"{words}-{size}{tail}".replace(".", "p"),
        name=f"{words} {size}{tail}",
        node=node,
        dies=int(designs.dies[row]),
        tflops=float(designs.tflops[row]),
        sram_mb=float(designs.sram_mb[row]),
        hbm="" if memory < 0 else space.hbm[memory],
        stacks=int(designs.stacks[row]),
        links=float(designs.links[row]),
        cores=CORES if spare else 0,
        cores_needed=CORES - spare if spare else 0,
        package="cowos" if memory >= 0 or designs.dies[row] > 1 else "organic",
        gross_margin=gross_margin,
    )


class _Columns:
    """Constants of nodes, memories and packages as columns of a batch of designs."""

    def __init__(self, space: Space, designs: Designs, table: Constants) -> None:
        self.space, self.designs, self.table = space, designs, table
        self.cowos: Bools = (designs.hbm >= 0) | (designs.dies > 1)

    def node(self, name: str) -> Floats:
        known = np.array([self.table[f"nodes/{node}/{name}"].value for node in self.space.node])
        return known[self.designs.node]

    def memory(self, name: str) -> Floats:
        known = np.array([*(self.table[f"memory/{hbm}/{name}"].value for hbm in self.space.hbm), 0])
        return known[self.designs.hbm]

    def package(self, name: str) -> Floats:
        ends = (self.table[f"packages/cowos/{name}"].value, self.table[f"packages/organic/{name}"].value)
        return np.where(self.cowos, *ends)

    def process(self, name: str) -> Floats:
        return exact(self.table[f"process/{name}"].value)

    def value(self, id_: str) -> Floats:
        return exact(self.table[id_].value)


def screened(
    space: Space, designs: Designs, works: Sequence[tuple[Work, Model]], money: Money, table: Constants,
    families: dict[str, Efficiency],
) -> Screened:  # fmt: skip
    """Screen all designs, in chunks on two threads."""
    parts = [slice(start, start + CHUNK) for start in range(0, len(designs), CHUNK)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda part: _screen(space, designs.at(part), works, money, table, families), parts))
    return Screened(**{f.name: np.concatenate([getattr(x, f.name) for x in found], axis=-1) for f in fields(Screened)})


def _screen(
    space: Space, designs: Designs, works: Sequence[tuple[Work, Model]], money: Money, table: Constants,
    families: dict[str, Efficiency],
) -> Screened:  # fmt: skip
    c = _Columns(space, designs, table)
    one = _die_mm2(c)
    unit = _unit_usd(c, one)
    holds = designs.hbm < 0
    sram_rate = np.where(holds, designs.sram_mb * MEGA * c.process("sram_refills_per_s"), 0)
    hbm_rate = designs.stacks * c.memory("stack_bytes_per_s")
    links = designs.links * c.process("link_bandwidth")
    watts = die.power_w(
        designs.tflops * TERA, c.node("joule_per_flop"), sram_rate, c.process("sram_pj"), hbm_rate, c.memory("energy"),
        2 * links, c.process("link_pj"),
    )  # fmt: skip
    hourly = _usd_per_hour(unit, watts, money, table)
    size = np.where(holds, designs.sram_mb * MEGA, designs.stacks * c.memory("stack_bytes"))
    rate = np.where(holds, sram_rate, hbm_rate)
    feasible = _feasible(c, one, watts)
    costs = np.array([_work(c, work, model, size, rate, links, families) for work, model in works])
    return Screened(
        one, unit, watts, size, rate, hourly, feasible, np.where(feasible, costs * hourly / money.load, np.inf)
    )


def _die_mm2(c: _Columns) -> Floats:
    """Area of one die (E10)."""
    d = c.designs
    used = die.core_mm2(
        d.sram_mb * MEGA, c.node("sram_mm2_per_byte"), d.tflops * TERA, c.node("mac_mm2_s_per_flop"), d.stacks,
        c.node("hbm_phy_mm2"), d.links, c.process("link_mm2"), d.dies * c.process("uncore_mm2"),
    )  # fmt: skip
    return die.die_mm2(used / d.dies, c.process("core_utilisation"), c.process("pad_ring_mm"))


def _unit_usd(c: _Columns, one: Floats) -> Floats:
    """Parts of a unit (E2, E4, E6, E9, E11, E12): closed forms in place of the grid."""
    d = c.designs
    rim = (c.process("wafer_diameter_mm"), c.process("scribe_mm"), c.process("edge_mm"))
    hits = one * c.node("defects_per_mm2")
    good = _good(c, hits)
    per = np.maximum(wafer.dies_circle_scribed(one, *rim), 1)
    logic = die.die_usd(c.node("wafer_usd"), per, good) * (1 + c.process("test_overhead"))
    logic = d.dies * (logic + one * c.package("bump_usd_per_mm2"))
    hbm = d.stacks * c.memory("stack_usd")
    stack = c.value("memory/stack/width_mm") * c.value("memory/stack/length_mm")
    base = c.package("interposer_over_dies") * (d.dies * one + d.stacks * stack)
    interposer = c.package("interposer_wafer_usd") / np.maximum(wafer.dies_circle_scribed(base, *rim), 1)
    substrate = base * c.package("substrate_over_interposer") * c.package("substrate_usd_per_mm2")
    interposers = defects.negative_binomial(base * c.package("defects_per_mm2"), c.package("clustering"))
    bonds = package.bonds(c.package("bond_yield"), d.dies + d.stacks)
    yields = package.Yields(interposers, bonds, c.package("substrate_bond_yield"))
    lost = package.wasted_usd(logic + hbm, yields) + package.interposer_loss_usd(interposer, substrate, yields)
    return logic + hbm + interposer + substrate + lost + c.package("test_usd")


def _good(c: _Columns, hits: Floats) -> Floats:
    """Yield with so many spare cores (E4, E6)."""
    good = defects.negative_binomial(hits, c.process("clustering"))
    share = c.process("harvest_share")
    for spare in np.unique(c.designs.spare_share):
        cores = round(float(spare) * CORES)
        rows = c.designs.spare_share == spare
        if cores and rows.any():
            rest = defects.negative_binomial(hits[rows] * (1 - share), c.process("clustering"))
            good[rows] = defects.harvest(hits[rows], share, CORES, CORES - cores, rest)
    return good


def _feasible(c: _Columns, one: Floats, watts: Floats) -> Bools:
    """Within a field of the scanner, the shoreline, and what can be cooled."""
    width = np.minimum(np.sqrt(one), c.process("field_width_mm"))
    height = one / width
    shore = c.designs.dies * die.most_stacks(np.maximum(width, height), c.value("memory/stack/length_mm"))
    fits: Bools = (height <= c.process("field_height_mm")) & (c.designs.stacks <= shore)
    return fits & (watts / (one * c.designs.dies) <= c.process("max_w_per_mm2"))


def _usd_per_hour(unit: Floats, watts: Floats, money: Money, table: Constants) -> Floats:
    """Cost of a chip's hour: price and share of the server paid back, power at the wall."""
    each = package.price_usd(unit, exact(money.gross_margin)) + money.system_usd_per_chip
    paid = annuity_usd_per_hour(1, money.life_years, money.finance_rate)
    wall = table["site/centre/it_over_chip_w"].value * table["site/centre/pue"].value
    return each * paid + watts * energy_usd_per_hour(wall, money.usd_per_kwh)


def _work(
    c: _Columns, work: Work, model: Model, size: Floats, rate: Floats, links: Floats, families: dict[str, Efficiency]
) -> Floats:
    """Chip-hours for a million output tokens at the cheapest mapping that holds the promise."""
    streams = _streaming(c, work, model, size, rate, links, families[FAMILIES["asic_hbm"]])
    holds = _holding(c, work, model, size, rate, families[FAMILIES["sram_asic"]])
    return np.where(c.designs.hbm < 0, holds, streams) * TOKENS_PER_MTOK / SECONDS_PER_HOUR


def _shape(work: Work, model: Model, batch: float) -> tuple[float, float, float]:
    """Bytes of 8-bit weights held, of those that a batch reads, and of KV cache of one request, 8 bit."""
    total, active = model.params.value, model.active_params.value
    read = total * (1 - (1 - active / total) ** batch) if active < total else total
    return total, max(read, active), model.kv_elements_per_token.value * (work.input_tokens + work.output_tokens)


def _streaming(
    c: _Columns, work: Work, model: Model, size: Floats, rate: Floats, links: Floats, family: Efficiency
) -> Floats:
    """Chip-seconds a token of machines that stream weights (E16, with the figures of a family)."""
    f = {name: figure.value for name, figure in family.figures.items()}
    layer = f["moe_layer_s" if model.experts else "layer_s"]
    flop = 2 * c.designs.tflops * TERA * f["gemm_flop_fp8"]
    best = np.full(len(c.designs), np.inf)
    fresh = (work.input_tokens - work.cached_tokens) * 2 * model.active_params.value
    for group, batch in itertools.product(GROUPS, BATCHES):
        count = batch * group
        held, read, kv = _shape(work, model, count)
        step = screen.Work(exact(read + count * kv), exact(2 * count * model.active_params.value), exact(model.layers),
                           exact(2 * count * model.hidden))  # fmt: skip
        time = screen.memory_s(step, exact(group), np.maximum(rate * f["gemm_bytes"], 1), flop)
        time = time + model.layers * layer + f["host_s"]
        if group > 1:
            time = time + screen.sync_s(step, exact(group), exact(f["allreduce_start_s"]), np.maximum(links, 1))
        able = (held + count * kv <= group * size * f["memory_use"]) & (time * work.tokens_per_s_user <= 1)
        able &= fresh / (group * flop) <= work.ttft_s
        cost = group * time / count + fresh / flop / work.output_tokens
        best = np.minimum(best, np.where(able, cost, np.inf))
    return best


def _holding(c: _Columns, work: Work, model: Model, size: Floats, rate: Floats, family: Efficiency) -> Floats:
    """Chip-seconds a token of machines that hold weights and KV cache in SRAM, layers in line (E16)."""
    f = {name: figure.value for name, figure in family.figures.items()}
    flop = 2 * c.designs.tflops * TERA * f["gemm_flop"]
    best = np.full(len(c.designs), np.inf)
    fresh = (work.input_tokens - work.cached_tokens) * 2 * model.active_params.value
    layer = f["layer_s"] * (f["moe_layer_factor"] if model.experts else 1)
    for batch in BATCHES:
        held, _, kv = _shape(work, model, 1)
        chips = np.ceil((held + batch * kv) / np.maximum(size * f["memory_use"], 1))
        active = model.active_params.value
        time = (active + kv) / np.maximum(rate, 1) + 2 * active / flop + model.layers * layer + chips * f["hop_s"]
        able = (time * work.tokens_per_s_user <= 1) & (fresh / (chips * flop) <= work.ttft_s)
        busy = np.maximum(chips * time / batch, 2 * active / flop)
        best = np.minimum(best, np.where(able, busy + fresh / flop / work.output_tokens, np.inf))
    return best


def pareto(columns: Floats) -> Ints:
    """Rows that no other row beats in every column; smaller is better."""
    order = np.lexsort(columns.T[::-1])
    kept: list[int] = []
    front = np.empty((0, columns.shape[1]))
    for row in order:
        if len(front) and bool((front <= columns[row]).all(axis=1).any()):
            continue
        kept.append(int(row))
        front = np.vstack([front, columns[row]])
    return np.array(kept, dtype=np.int64)


def finalists(found: Screened, shares: Floats, count: int) -> Ints:
    """The designs that ``perf`` looks at: the Pareto set of cost by kind of work, the cheapest in the mix first.

    Of every work also the cheapest by itself, so that none is lost where the mix cannot be held by one chip.
    """
    able = np.flatnonzero(np.isfinite(found.usd_per_mtok).any(axis=0) & found.feasible)
    if not len(able):
        return able
    costs = found.usd_per_mtok[:, able].T
    worst = np.where(np.isfinite(costs), costs, np.nanmax(np.where(np.isfinite(costs), costs, np.nan)) * 10)
    mixed = worst @ shares
    few = count // (4 * costs.shape[1])
    wanted = [np.argsort(mixed)[: count // 2], *(np.argsort(worst[:, k])[:few] for k in range(costs.shape[1]))]
    near = np.argsort(mixed)[: count * 4]
    front = near[pareto(worst[near])]
    rows = dict.fromkeys(int(row) for part in (*wanted, front) for row in part)
    return able[np.array(list(rows)[:count], dtype=np.int64)]
