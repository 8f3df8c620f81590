"""What a running gateway does, as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from infermix.report import words
from infermix.serve.watch import ClassNow, Now, PoolNow

_GOOD, _BAD, _SOFT = "green", "red", "dim"


def live_view(now: Now, promised: Mapping[str, float], where: str) -> Group:
    """Pools, speeds, promises kept and money per hour; ``promised`` is class → share, where it is known."""
    headline = Text(f"{where}: {words.money(now.usd_per_hour)}/h", style="bold")
    headline.append(f", {now.queued} waiting, {now.shed} turned away, {now.retries} tried again", style=_SOFT)
    parts: list[Text | Table] = [headline]
    if now.pools:
        parts.append(_pools(now.pools))
    parts.append(_classes(now.classes, promised) if now.classes else Text("No requests yet.", style=_SOFT))
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style=_SOFT, padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < 2 else "right")
    return table


def _pools(pools: tuple[PoolNow, ...]) -> Table:
    table = _table("Pools", "system", "up", "in flight", "output/s", "input/s", "cached", "$/h")
    for pool in pools:
        style = _GOOD if pool.up == pool.instances else _BAD
        table.add_row(
            pool.pool,
            pool.chip,
            Text(f"{pool.up}/{pool.instances}", style=style),
            str(pool.inflight),
            words.digits(pool.output_tokens_per_s),
            words.digits(pool.input_tokens_per_s),
            words.NONE if math.isnan(pool.cached_share) else words.share(pool.cached_share),
            words.money(pool.usd_per_hour),
        )
    return table


def _classes(classes: tuple[ClassNow, ...], promised: Mapping[str, float]) -> Table:
    table = _table("Classes", "served by", "req/s", "kept", "promised", "TTFT p50", "p99", "TPOT p50", "p99")
    for one in classes:
        table.add_row(
            one.name,
            ", ".join(f"{chip} {words.share(share)}" for chip, share in one.served_by.items()),
            words.digits(one.offered_per_s),
            _kept(one, promised.get(one.name)),
            words.share(promised[one.name]) if one.name in promised else words.NONE,
            *(_time(value) for value in (*one.ttft_s, *one.tpot_s)),
        )
    return table


def _kept(one: ClassNow, wanted: float | None) -> Text:
    if math.isnan(one.attainment):
        return Text(words.NONE)
    holds = wanted is None or one.attainment >= wanted
    return Text(words.attained(one.attainment), style=_GOOD if holds else _BAD)


def _time(value: float) -> str:
    return words.NONE if math.isnan(value) else words.seconds(value)
