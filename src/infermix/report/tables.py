"""Tables for the terminal: a plan and a run in less than a screen or two, each at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infermix.plan.result import Plan, SingleChip, Why
from infermix.report import day, run_words, words

WIDTH = 100
_GOOD, _BAD, _SOFT = "green", "red", "dim"
_KINDS = {"hbm": "blue", "sram": "yellow", "gddr": "green", "lpddr": "magenta", "other": "cyan"}
ENGINE_SHARES = ("cache_hit_share", "loaded_share", "link_busy")
Cell = str | Text


def print_plan(plan: Plan, console: Console) -> None:
    """Print a plan: what to buy, who is served by what, promises, costs, limits, reasons, doubts."""
    _print_headline(plan, console)
    _show(console, _fleet(plan), _serves(plan), _promises(plan), _costs(plan), _limits(plan), _why(plan))
    _show(console, *_beside(plan))
    _print_doubts(plan, console)


def print_frontier(plan: Plan, console: Console) -> None:
    """Print cost against speed: of the fleets that were proved those than which none is both faster and no dearer."""
    best = [fleet for fleet in plan.proved_fleets if fleet.best]
    name = plan.frontier[0].class_name if plan.frontier else ""
    table = _table("Cost against speed", ("tokens/s", "$/h", "TPOT held"))
    for fleet in reversed(best):
        said = ", ".join(f"{n} x {system}" for system, n in fleet.systems.items())
        speed = words.digits(1.0 / fleet.tpot_s) if fleet.tpot_s else words.NONE
        table.add_row(Text(said, style="bold"), speed, words.digits(fleet.usd_per_hour), words.seconds(fleet.tpot_s))
    _show(console, table)
    told = f"{len(plan.proved_fleets)} fleets proved by simulation, each at the tightest TPOT that {name} keeps on it"
    _say(console, Text(f"{told}; {len(best)} are shown: none is both faster and no dearer."))


def print_run(summary: Mapping[str, Any], console: Console) -> None:
    """Print a simulated run: what became of the requests, each class, each pool, the cost of a token."""
    counts = (f"{summary[key]:,} {key}" for key in ("requests", "completed", "refused", "unfinished"))
    speed = summary.get("speed", summary.get("speeds"))
    _say(console, Text(", ".join(counts), style="bold"))
    said = [f"{words.seconds(summary['simulated_s'])} simulated in {words.seconds(summary['kernel_s'])}"]
    said += [f"peak memory {words.quantity(summary['peak_rss_bytes'], 'byte')}"]
    said += [f"policy {summary['policy']}"] if summary.get("policy") else []
    said += [f"{speed if isinstance(speed, str) else words.joined(speed)} speeds"] if speed else []
    seeds = summary.get("seeds", ())
    said += [f"seeds {seeds[0]} to {seeds[-1]} (times: mean over seeds; pools: the first)"] if len(seeds) > 1 else []
    _say(console, Text(", ".join(said)))
    if (every := summary.get("kept_one_in", 1)) > 1:
        _say(console, Text(f"All requests are counted; percentiles and curves are of one in {every}, drawn at random."))
    if summary.get("interrupted"):
        _say(console, Text(f"Interrupted: {run_words.came(summary)}", style=_BAD))
    classes, pools = summary.get("classes", {}), summary.get("pools", {})
    for line in run_words.refusals(classes):
        _say(console, Text(line, style=_BAD))
    _show(console, _run_classes(classes), _run_pools(pools), _run_engines(pools), _run_costs(pools))
    for line in run_words.pairs(summary):
        _say(console, Text(line))
    if costs := summary.get("usd_per_mtok"):
        each = (f"{words.money(costs.get(key))} {key}" for key in ("input", "output", "blended"))
        _say(console, Text(f"Cost per million tokens: {', '.join(each)}"))


def _beside(plan: Plan) -> list[Table]:
    """Slots and contracts; where other systems would enter, next best fleets, figures at the ends of their ranges."""
    made = [
        (_table("Slots", ("proof", "instances"), left=3), day.slot_rows(plan)),
        (_table("Policies tried", ("kept", *plan.classes, "room")), day.policy_rows(plan)),
        (_table("Contracts", ("system", "had", "$/h each", "basis"), left=4), day.contract_rows(plan)),
        (_table("Would enter", ("$/h today", "at $/h", "or serving")), day.entry_rows(plan)),
        (_table("Next best", ("$/h", "dearer")), day.next_rows(plan)),
        (_table("Hangs on", ("$/h at low", "at high", "systems")), day.swing_rows(plan)),
    ]
    for table, rows in made:
        for first, *rest in rows:
            table.add_row(Text(first, style="bold"), *rest)
    return [table for table, _ in made]


def _say(console: Console, text: Text) -> None:
    console.print(text, width=min(WIDTH, console.width))


def _show(console: Console, *tables: Table) -> None:
    for table in tables:
        if table.row_count:
            console.print()
            console.print(table, width=min(WIDTH, console.width))


def _table(title: str, columns: Iterable[str], left: int = 1) -> Table:
    """A table whose first column is headed by its title; ``left`` columns of words, then numbers."""
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style=_SOFT)
    table.add_column(Text(title, style="bold not dim"), overflow="fold", min_width=len(title))
    for index, column in enumerate(columns, start=1):
        number = index >= left
        table.add_column(Text(column), justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table


def _print_headline(plan: Plan, console: Console) -> None:
    _say(console, Text(words.headline(plan), style="bold"))
    _say(
        console,
        Text(
            words.proof(plan) or words.STATUS.get(plan.status, plan.status),
            style=_GOOD if plan.status == "proved" else _BAD,
        ),
    )
    against = (words.against_single(plan), words.against_bound(plan) if plan.profit_usd_per_hour is None else "")
    if line := " ".join(filter(None, against)):
        _say(console, Text(line))
    for said in day.beside(plan):
        _say(console, Text(said))


def _kind(kind: str) -> Text:
    return Text(kind, style=_KINDS[words.kind_of(kind)])


def _fleet(plan: Plan) -> Table:
    columns = ("vendor", "kind", "instances", "systems", "chips", "$/h", "output", "KV tokens left", "busy")
    table = _table("Fleet", columns, left=3)
    for p in plan.fleet:
        name = Text(p.name if p.name.startswith(p.system) else f"{p.name} ({p.system})", style="bold")
        counts = (f"{n:,}" for n in (p.instances, p.systems, p.chips))
        tail = (words.share(p.share_output_tokens), words.tokens(p.kv_tokens_left), words.share(p.busy))
        table.add_row(name, Text(p.vendor), _kind(p.kind), *counts, words.digits(p.usd_per_hour), *tail)
    return table


def _serves(plan: Plan) -> Table:
    """Pools across while they fit, else the pools of each class in words."""
    names = [p.name for p in plan.fleet]
    across = sum(max(len(name), 6) + 2 for name in names) + max(map(len, plan.classes), default=0) + 30 <= WIDTH
    table = (
        _table("Who serves whom", ("requests/s", *names)) if across else _table("Who serves whom", ("pools",), left=2)
    )
    for name, c in plan.classes.items():
        shares = plan.serves.get(name, {})
        if across:
            cells = [words.share(shares[pool]) if shares.get(pool) else words.NONE for pool in names]
            table.add_row(Text(name, style="bold"), words.digits(c.rate_per_s), *cells)
        else:
            table.add_row(Text(name, style="bold"), Text(", ".join(f"{words.share(s)} {p}" for p, s in shares.items())))
    return table


def _promises(plan: Plan) -> Table:
    """Two lines for each class, nominal and low; ``at least`` is the lower end of the Wilson 95 % interval."""
    columns = ("promised", "speeds", "attained", "at least", "TTFT p50", "p99", "TPOT p50", "p99")
    table = _table("Promises", columns, left=3)
    for name, c in plan.classes.items():
        level = f"{words.digits(100 * c.slo.get('attainment', 1.0), 4)}%"
        promised = [
            f"{level if i == 0 else ' ' * len(level)} {target}" for i, target in enumerate(words.targets(c).values())
        ]
        at_nominal = ("nominal", c.attainment, c.ci, c.holds, c.ttft_s, c.tpot_s)
        at_low = ("low", c.attainment_low, c.ci_low, c.holds_low, c.ttft_s_low, c.tpot_s_low)
        rows = zip_longest((name,), promised, (_attained(*at_nominal), _attained(*at_low)))
        for first, target, cells in rows:
            table.add_row(Text(first or "", style="bold"), Text(target or ""), *(cells or ()))
    return table


def _attained(
    speeds: str,
    at: float,
    ci: tuple[float, float],
    holds: bool,
    ttft_s: Mapping[str, float],
    tpot_s: Mapping[str, float],
) -> list[Cell]:
    times = [words.seconds(values.get(p)) for values in (ttft_s, tpot_s) for p in ("p50", "p99")]
    level = Text(words.attained(at), style=_GOOD if holds else _BAD)
    return [speeds, level, words.attained(ci[0]), *times]


def _costs(plan: Plan) -> Table:
    table = _table("Cost", ("what it is", "$/h", "against this"), left=2)

    def row(name: str, cost: object, said: str, style: str = "") -> None:
        value = float(cost) if isinstance(cost, (int, float)) else None
        against = words.NONE if value is None or not plan.usd_per_hour else f"{value / plan.usd_per_hour - 1:+.1%}"
        table.add_row(Text(name, style=style), Text(said), words.digits(value), "" if style else against)

    row("this plan", plan.usd_per_hour, words.STATUS.get(plan.status, plan.status), "bold")
    row("lower bound", plan.lower_bound_usd_per_hour, "queue-free: the least that able deployments cost")
    if plan.without_share_limits:
        status = str(plan.without_share_limits.get("status") or "")
        row("without least shares", plan.without_share_limits.get("usd_per_hour"), words.STATUS.get(status, status))
    able = words.able(plan)
    for single in able:
        row(f"only {single.system}", single.usd_per_hour, words.STATUS[single.status])
    for missed, systems in _unable([s for s in plan.single_chip if s not in able]).items():
        row("cannot alone", None, f"{', '.join(systems)}: {missed}")
    return table


def _unable(rows: Iterable[SingleChip]) -> dict[str, list[str]]:
    """What is missed → the systems that miss it."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        missed = words.joined(name for name, c in row.classes.items() if c.get("usd_per_hour") is None)
        said = missed or words.STATUS.get(row.status, row.status)
        groups.setdefault(said, []).append(row.system)
    return groups


def _limits(plan: Plan) -> Table:
    table = _table("Limits", ("used", "allowed", "binding", "one more saves"))
    for limit in plan.limits:
        bound = "at least" if words.at_least(limit) else "at most"
        used, allowed = (words.limit_value(limit, v) for v in (limit.used, limit.allowed))
        binding = Text("binding", style=_BAD) if limit.binding else Text("no", style=_SOFT)
        name = Text(words.limit_name(limit))
        table.add_row(name, used, f"{bound} {allowed}", binding, words.limit_worth(limit))
    return table


def _why(plan: Plan) -> Table:
    table = _table("Why", ("in", "reason"), left=3)
    room = WIDTH - max((min(len(w.system), 24) for w in plan.why), default=0) - 9
    for w in sorted(plan.why, key=lambda w: not w.chosen):
        chosen = Text("yes", style=_GOOD) if w.chosen else Text("no", style=_SOFT)
        table.add_row(Text(w.system, style="bold"), chosen, Text(shortened(w, room)))
    return table


def shortened(why: Why, room: int) -> str:
    """A reason in one line: what weighs most, as much of it as there is room for."""
    parts = why.reason.replace("buying one all the same makes the fleet", "one more:").split("; ")
    parts = [part.replace(" even alone,", " alone,") for part in parts]
    order = sorted(range(len(parts)), key=lambda i: _weight(parts[i], why.chosen))
    kept = {order[0]}
    for i in order[1:]:
        if len("; ".join(parts[k] for k in sorted(kept | {i}))) <= room:
            kept.add(i)
    line = "; ".join(parts[i] for i in sorted(kept))
    return line if len(line) <= room else f"{line[: room - 1].rstrip()}\u2026"


def _weight(part: str, chosen: bool) -> int:
    firsts = ("serves ", "") if chosen else ("one more:", "cannot")
    return next((rank for rank, word in enumerate(firsts) if word and word in part), len(firsts))


def _print_doubts(plan: Plan, console: Console) -> None:
    console.print()
    groups = words.by_record(plan)
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in groups.items())
    said = f"{len(plan.unverified)} of {len(plan.figures)} catalogue figures that this hangs on: {counts}."
    _say(console, Text.assemble(("Unverified: ", "bold"), said if groups else "none."))
    first = (f"{f.id} {words.quantity(f.value, f.unit)} ({words.figure_range(f)})" for f in words.weightiest(plan, 3))
    if listed := "; ".join(first):
        _say(console, Text.assemble(("Look up first: ", "bold"), f"{listed}."))
    if plan.assumptions:
        _say(console, Text.assemble(("Assumes: ", "bold"), " ".join(plan.assumptions)))


def _run_classes(classes: Mapping[str, Any]) -> Table:
    columns = ("attained", "promised", "at low", "good/s", "time", "p50", "p90", "p99", "p99 lies in")
    table = _table("Classes", columns)
    for name, c in classes.items():
        promised, low = c.get("promised"), c.get("attainment_low")
        met = promised is None or c["attainment"] >= promised
        cells: list[Cell] = [
            Text(name, style="bold"),
            Text(words.attained(c["attainment"]), style=_GOOD if met else _BAD),
        ]
        cells += [words.share(promised), words.NONE if low is None else words.attained(low)]
        cells.append(words.digits(c["goodput_per_s"]))
        for i, (key, label) in enumerate((k, n) for k, n in run_words.RUN_TIMES.items() if k in c):
            if i == 1 and "attainment_ci" in c:
                cells[1] = Text(run_words.between(*c["attainment_ci"]), style=_SOFT)
            times = (words.seconds(c[key].get(p)) for p in ("p50", "p90", "p99"))
            within = run_words.span(*c.get(f"{key}_ci", {}).get("p99", (None, None)))
            table.add_row(*cells, label, *times, Text(within, style=_SOFT))
            cells = [""] * 5
    return table


def _run_pools(pools: Mapping[str, Any]) -> Table:
    columns = ("system", "instances", "busy", "KV peak", "batch", "input", "output", "preempted")
    table = _table("Pools", columns, left=2)
    for name, p in pools.items():
        moved = (words.tokens(p["tokens"][key]) for key in ("input", "output"))
        state = (words.share(p["busy"]), words.share(p["kv_peak"]), words.digits(p["batch"]))
        system, counts = Text(str(p["system"])), (f"{p['instances']:,}", f"{p['preemptions']:,}")
        table.add_row(Text(name, style="bold"), system, counts[0], *state, *moved, counts[1])
    return table


def _run_engines(pools: Mapping[str, Any]) -> Table:
    """What caches found, links did and failures cost; empty where no pool has any of it."""
    table = _table("Engines", ("role", *run_words.ENGINE_COLUMNS.values()), left=2)
    for name, p in run_words.engine_pools(pools).items():
        shares = [words.NONE if p.get(key) is None else words.share(p[key]) for key in ENGINE_SHARES]
        cells = (*shares, f"{p['restarts']:,}", words.digits(p["on_hours"]))
        table.add_row(Text(name, style="bold"), Text(p["role"]), *cells)
    return table


def _run_costs(pools: Mapping[str, Any]) -> Table:
    """What the pools cost and drew; empty where neither is known."""
    columns = ("$/h", "$/Mtok input", "output", "kWh in steps", "always on", "output tokens/J")
    table = _table("Cost and energy", columns)
    for name, p in pools.items():
        mtok, kwh = p.get("usd_per_mtok") or {}, p.get("energy_kwh") or {}
        if p.get("usd_per_hour") is None and not kwh:
            continue
        cells = [p.get("usd_per_hour"), mtok.get("input"), mtok.get("output"), kwh.get("busy"), kwh.get("always_on")]
        table.add_row(Text(name, style="bold"), *map(words.digits, [*cells, p.get("output_tokens_per_joule")]))
    return table
