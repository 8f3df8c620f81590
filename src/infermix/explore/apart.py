"""One model on two systems at once: the prompt read elsewhere, or the feed-forward half computed elsewhere."""

from __future__ import annotations

import msgspec

from infermix.catalog.load import Catalog
from infermix.catalog.records import Model, System
from infermix.errors import NoAnswer
from infermix.explore.point import Ask, choose, find_place
from infermix.perf import figures
from infermix.perf.deployment import Deployment
from infermix.perf.idle import ttft_s
from infermix.perf.layouts import laid_out, layouts, telling
from infermix.perf.memory import kv_tokens_left
from infermix.perf.operating import for_groups
from infermix.perf.split import SplitSpeed, fewest_for_ffn, split_speed
from infermix.perf.table import missing_figures
from infermix.perf.transfer import Transfer, kv_transfer


class Prefill(msgspec.Struct, kw_only=True):
    """A prompt read on one system and answered on another."""

    system: str
    layout: str
    chips: int
    note: str
    prompt_s: float
    """Time to read the prompt on an idle instance [s]."""
    transfer: Transfer
    """Its KV cache on the way to the machine that answers."""
    ttft_s: float
    """Both, one after the other."""
    figures: list[str]


class Split(msgspec.Struct, kw_only=True):
    """Attention on one system and everything else of the layers on another."""

    attention_system: str
    attention_layout: str
    attention_chips: int
    system: str
    layout: str
    chips: int
    note: str
    speed: SplitSpeed
    figures: list[str]


def prefill_on(catalog: Catalog, place: str, decode: Deployment, ask: Ask) -> Prefill:
    """The system of this name reads the prompts, in the layout that is soonest done with one.

    Raises
    ------
    NoAnswer
        The model and a prompt do not fit there, or a network rate is not known.
    """
    system, note = find_place(catalog, place)
    d, _ = choose(catalog, system, decode.model, _plain(ask, decode))
    able = [x for x in telling(d) if not missing_figures(x) and kv_tokens_left(x) >= ask.load.input_tokens]
    if not able:
        raise NoAnswer(f"{d.model.id} with a prompt of {ask.load.input_tokens:,} tokens does not fit on {system.id}")
    times = [(ttft_s(x, ask.load.input_tokens, ask.load.cached_tokens), x.chips, x) for x in able]
    prompt, _, best = min(times, key=lambda t: t[:2])
    travel = kv_transfer(best, decode, ask.load.input_tokens)
    return Prefill(
        system=system.id,
        layout=best.layout,
        chips=best.chips,
        note=note,
        prompt_s=prompt,
        transfer=travel,
        ttft_s=prompt + travel.seconds,
        figures=figures.of_deployment(best)
        + [f"chips/{x.chip.id}/scaleout_bytes_per_s" for x in _networked(best, decode)],
    )


def split_with(catalog: Catalog, place: str, system: System, model: Model, ask: Ask) -> Split:
    """Attention on ``system``, the feed-forward half on the system of this name, in the layouts that are fastest.

    Raises
    ------
    NoAnswer
        No layout of the two holds its half; the message says what was missing in the last one tried.
    """
    other, note = find_place(catalog, place)
    context, tried = ask.load.context, NoAnswer(f"no layout of {system.id} and {other.id} goes together")
    found: list[tuple[SplitSpeed, Deployment, Deployment]] = []
    for attention in _attention_layouts(catalog, system, model, ask):
        for ffn in _ffn_layouts(catalog, other, model, ask):
            try:
                found.append((split_speed(attention, ffn, batch=ask.batch, context=context), attention, ffn))
            except NoAnswer as fault:
                tried = fault
    if not found:
        raise tried
    speed, attention, ffn = min(found, key=lambda x: (x[0].tpot_s, x[1].chips + x[2].chips))
    networks = [f"chips/{x.chip.id}/scaleout_bytes_per_s" for x in _networked(attention, ffn)]
    return Split(
        attention_system=system.id,
        attention_layout=attention.layout,
        attention_chips=attention.chips,
        system=other.id,
        layout=ffn.layout,
        chips=ffn.chips,
        note=note,
        speed=speed,
        figures=[*figures.of_deployment(attention), *figures.of_deployment(ffn), *networks],
    )


def _plain(ask: Ask, decode: Deployment) -> Ask:
    """The same question to another system: its own layout, the same KV cache, no drafts."""
    return Ask(load=ask.load, weights=ask.weights, kv=decode.kv)


def _networked(*deployments: Deployment) -> list[Deployment]:
    return [d for d in deployments if d.chip.scaleout_bytes_per_s is not None]


def _attention_layouts(catalog: Catalog, system: System, model: Model, ask: Ask) -> list[Deployment]:
    d, _ = choose(catalog, system, model, ask)
    if ask.laid_out or d.is_pipeline:
        return [for_groups(d)]
    return [for_groups(laid_out(d, x)) for x in layouts(model, system)]


def _ffn_layouts(catalog: Catalog, system: System, model: Model, ask: Ask) -> list[Deployment]:
    d, _ = choose(catalog, system, model, Ask(load=ask.load, weights=ask.weights, kv=ask.kv))
    d = msgspec.structs.replace(d, spec=ask.spec)
    if d.is_pipeline:
        fewest = fewest_for_ffn(d)
        return [msgspec.structs.replace(d, stages=fewest)] if fewest else []
    return [for_groups(laid_out(d, x)) for x in layouts(model, system)]
