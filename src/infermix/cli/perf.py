"""``infermix perf``: how fast a model is on a system, on every chip, and every model on every chip."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click
import msgspec

from infermix.catalog.load import Catalog, catalog
from infermix.catalog.query import find_model
from infermix.catalog.records import Model
from infermix.cli.output import console_out, counting, one_line_errors, write_json
from infermix.cost.rent import Terms
from infermix.errors import InputError, NoAnswer, near_miss
from infermix.explore.apart import prefill_on, split_with
from infermix.explore.chips import SORTS, Sort, compare, everything
from infermix.explore.point import Ask, answer, record
from infermix.perf.deployment import BYTES_PER_KV, BYTES_PER_WEIGHT, MAX_BATCHED_TOKENS
from infermix.perf.figures import with_roots
from infermix.perf.operating import Load
from infermix.perf.specdec import read_speculation
from infermix.perf.sweep import Wish

_ONE = ("tp", "pp", "ep", "dp", "stages", "batch", "stack", "prefill", "ffn")
_CHIPS = ("sort", "top")
_MONEY = ("gross_margin", "life_years", "usd_per_kwh")
_OPTIONS = (
    click.option("--all", "every", is_flag=True, help="Every chip; without MODEL every model on every chip."),
    click.option("--tp", type=int, help="Chips that share every layer (default: what is fastest at this batch)."),
    click.option("--pp", type=int, help="Groups of layers in line."),
    click.option("--ep", type=int, help="Groups of chips that share out the experts."),
    click.option("--dp", type=int, help="Groups of chips with sequences of their own."),
    click.option("--stages", type=int, help="SRAM machines: systems in line for one replica (default: fewest)."),
    click.option("--weights", help="Dtype of the weights (default: the model's own, if the chip can keep it)."),
    click.option("--kv", default="bf16", show_default=True, help="Dtype of the KV cache."),
    click.option("--batch", type=int, help="Sequences that decode together.  [default: 1]"),
    click.option("--input", "input_tokens", type=int, default=1000, show_default=True, help="Prompt length [tokens]."),
    click.option("--output", "output_tokens", type=int, default=200, show_default=True, help="Answer [tokens]."),
    click.option("--cached", "cached_tokens", type=int, default=0, show_default=True, help="Of the prompt, cached."),
    click.option("--spec", metavar="METHOD:DEPTH[:ACCEPTED]", help="Speculative decoding: mtp:2, eagle:3:2.4, ..."),
    click.option("--stack", metavar="NAME", help="Serving engine of some date (default: a tuned one)."),
    click.option("--prefill", metavar="SYSTEM2", help="Prompts are read there, and their KV cache is sent over."),
    click.option("--ffn", metavar="SYSTEM2", help="All but attention is computed there."),
    click.option("--sort", type=click.Choice(SORTS), help="Order of --all.  [default: usd]"),
    click.option("--at-least", type=float, default=0.0, metavar="TOKENS_PER_S", help="Least speed of one user."),
    click.option("--top", type=int, help="Print so many chips of --all (files have all)."),
    click.option("--basis", type=click.Choice(["rent", "own"]), default="rent", show_default=True, help="Of prices."),
    click.option("--gross-margin", type=float, help="Share of a rent above its cost: converts cost and rent."),
    click.option("--life-years", type=float, help="Years that pay back a purchase: converts a price to a cost."),
    click.option("--usd-per-kwh", type=float, help="Electricity, for the same."),
    click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON (- for stdout)."),
    click.option("--report", "report_path", metavar="FILE.html", help="Write the result as one HTML page."),
)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("perf")
@click.argument("model", required=False)
@click.argument("system", required=False)
@_with_options
def perf(model: str | None, system: str | None, every: bool, **options: Any) -> None:
    """Speed, limits and cost: of MODEL on SYSTEM (or a chip), of MODEL on every chip, of everything.

    \b
    infermix perf llama-3.3-70b h200-x8 --batch 16
    infermix perf llama-3.3-70b --all --input 100000 --output 300
    infermix perf --all --json everything.json
    """  # noqa: D301 - click's mark for lines that stay
    with one_line_errors():
        _check(model, system, every, options)
        facts = catalog()
        load = Load(options["input_tokens"], options["output_tokens"], options["cached_tokens"])
        found = find_model(model, facts) if model else None
        if found and system:
            _one(facts, found, system, load, options)
        elif found:
            _chips(facts, found, load, options)
        else:
            _everything(facts, load, options)


def _check(model: str | None, system: str | None, every: bool, options: dict[str, Any]) -> None:
    if not every and not model:
        raise InputError("MODEL is missing", where="perf", mend="name a model and a system, or ask for --all")
    if not every and not system:
        raise InputError("SYSTEM is missing", where="perf", mend="name one, or ask for every chip with --all")
    if every and system:
        raise InputError("every chip and one system at once", where="--all", value=system, mend="leave one out")
    unwanted = _CHIPS if system else _ONE if model else (*_ONE, *_CHIPS, "report_path")
    for name in unwanted:
        if options[name] is not None:
            allowed = "with --all and a MODEL" if name in (*_CHIPS, "report_path") and not system else ""
            allowed = allowed or ("with --all" if name in _CHIPS else "with a MODEL and a SYSTEM")
            raise InputError("does not go with this", where=_flag(name), allowed=allowed)
    if system and options["at_least"]:
        raise InputError("does not go with this", where="--at-least", allowed="with --all")
    for name, low in (("batch", 1), ("input_tokens", 1), ("output_tokens", 1), ("cached_tokens", 0), ("top", 1)):
        if options[name] is not None and options[name] < low:
            raise InputError(f"must be {low} or more", where=_flag(name), value=options[name])
    _check_ranges(options)


def _check_ranges(options: dict[str, Any]) -> None:
    if (options["batch"] or 1) > MAX_BATCHED_TOKENS:
        raise InputError("too large", where="--batch", value=options["batch"], allowed=f"1 to {MAX_BATCHED_TOKENS}")
    if options["cached_tokens"] >= options["input_tokens"]:
        allowed = f"less than the {options['input_tokens']:,} tokens of the prompt"
        raise InputError("too many", where="--cached", value=options["cached_tokens"], allowed=allowed)
    for name, known in (("kv", BYTES_PER_KV), ("weights", BYTES_PER_WEIGHT)):
        if options[name] is not None and options[name] not in known:
            hint = near_miss(options[name], known)
            allowed = ", ".join(known)
            raise InputError("unknown dtype", where=_flag(name), value=options[name], allowed=allowed, mend=hint)
    margin = options["gross_margin"]
    if margin is not None and not 0 <= margin < 1:
        raise InputError("out of range", where="--gross-margin", value=margin, allowed="0 to below 1")
    for name, least in (("life_years", 0.01), ("usd_per_kwh", 0.0), ("at_least", 0.0)):
        if options[name] is not None and not least <= options[name] < math.inf:
            raise InputError("out of range", where=_flag(name), value=options[name], allowed=f"{least:g} or more")


def _flag(name: str) -> str:
    return f"--{name.removesuffix('_tokens').removesuffix('_path').replace('_', '-')}"


def _terms(options: dict[str, Any]) -> Terms:
    return Terms(**{name: options[name] for name in _MONEY})


def _wish(load: Load, options: dict[str, Any]) -> Wish:
    return Wish(
        load=load,
        kv=options["kv"],
        weights=options["weights"] or "",
        spec=read_speculation(options["spec"], "--spec") if options["spec"] else None,
        least_tokens_per_s_user=options["at_least"],
    )


def _one(facts: Catalog, model: Model, system: str, load: Load, options: dict[str, Any]) -> None:
    degrees = {name: options[name] for name in ("tp", "pp", "ep", "dp", "stages", "weights", "kv")}
    spec = read_speculation(options["spec"], "--spec") if options["spec"] else None
    ask = Ask(load=load, batch=options["batch"] or 1, spec=spec, stack=options["stack"] or "tuned", **degrees)
    found = answer(facts, system, model, ask, basis=options["basis"], terms=_terms(options))
    d, fits = found.deployment, found.prediction.fits
    read = prefill_on(facts, options["prefill"], d, ask) if options["prefill"] and fits else None
    split = split_with(facts, options["ffn"], d.system, model, ask) if options["ffn"] else None
    told = record(found, ask)
    for name, extra in (("prefill", read), ("split", split)):
        if extra is not None:
            told[name] = {k: v for k, v in msgspec.to_builtins(extra).items() if k != "figures"}
            told["figures"] = with_roots(facts, [*told["figures"], *extra.figures])
    if options["json_path"]:
        write_json(options["json_path"], told)
    if not fits and split is None:
        raise NoAnswer(f"{model.id} on {d.system.id}: {found.prediction.reason}")
    from infermix.cli.perf_tables import print_answer

    print_answer(found, ask, console_out(options["json_path"] == "-"), prefill=read, split=split)
    if options["report_path"]:
        from infermix.report.perf import write_point

        write_point(found, ask, options["report_path"])


def _chips(facts: Catalog, model: Model, load: Load, options: dict[str, Any]) -> None:
    sort: Sort = options["sort"] or "usd"
    terms, basis = _terms(options), options["basis"]
    found = compare(facts, model, _wish(load, options), sort=sort, basis=basis, terms=terms)
    if options["json_path"]:
        write_json(options["json_path"], found)
    from infermix.cli.perf_chips import print_chips

    console = console_out(options["json_path"] == "-")
    print_chips(found, model, console, top=options["top"])
    if options["report_path"]:
        from infermix.report.perf import write_chips

        write_chips(found, model, options["report_path"])
    if not found.rows:
        raise NoAnswer(f"no chip answers for {model.id}; the reasons stand above")


def _everything(facts: Catalog, load: Load, options: dict[str, Any]) -> None:
    with counting("chips") as done:
        wish, terms = _wish(load, options), _terms(options)
        rows, ids = everything(facts, wish, done, basis=options["basis"], terms=terms)
    if options["json_path"]:
        asked = {name: options[name] for name in ("input_tokens", "output_tokens", "cached_tokens", "basis", "kv")}
        write_json(options["json_path"], {**asked, "rows": rows, "figures": ids})
    from infermix.cli.perf_chips import print_everything

    print_everything(rows, console_out(options["json_path"] == "-"))
