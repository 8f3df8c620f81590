"""A deployment sketch for each pool: a shell script that starts one instance with the engine that is named."""

from __future__ import annotations

import shlex

from infermix.catalog.load import Catalog
from infermix.catalog.records import Chip, Model
from infermix.plan.export.arguments import arguments, notes
from infermix.plan.export.engines import FLAGS, Runs, engines_of
from infermix.plan.result import PoolPlan

MARK = "# A sketch: it starts one instance. Start one for every entry of this pool in gateway.toml."
"""Line by which a sketch is known."""


def sketch(pool: PoolPlan, facts: Catalog) -> str:
    """Script of one pool; where no engine is known for its chip, it says so and exits with 1."""
    chip, model = facts.chips[pool.chip], facts.models[pool.model]
    engines = engines_of(chip)
    body = _choice(pool, model, engines) if engines else _none(chip)
    return "\n".join([*_heading(pool), *body, ""])


def _heading(pool: PoolPlan) -> list[str]:
    layout = (
        f"{pool.stages} systems in line"
        if pool.stages
        else ", ".join(f"{k} {getattr(pool, k)}" for k in ("tp", "pp", "dp", "ep") if (getattr(pool, k) or 1) > 1)
        or "one chip each"
    )
    return [
        "#!/bin/sh",
        f"# Pool {pool.name}: {pool.instances} x {pool.model} on {pool.systems} x {pool.system} ({layout}).",
        MARK,
    ]


def _none(chip: Chip) -> list[str]:
    said = f"{chip.vendor} {chip.name} runs none of vLLM, SGLang and TensorRT-LLM, as far as is known"
    mend = "its maker's own server, or its hosted endpoint, goes into gateway.toml as engine = openai"
    return [f"echo {shlex.quote(f'{said}; {mend}')} >&2", "exit 1"]


def _choice(pool: PoolPlan, model: Model, engines: tuple[Runs, ...]) -> list[str]:
    first = engines[0].engine
    names = " | ".join(runs.engine for runs in engines)
    lines = [
        f"# Use: MODELS=folder of checkpoints PORT=8000 sh {pool.name}.sh [{names}]; {first} unless told.",
        'MODELS="${MODELS:?folder of the checkpoints}"',
        'PORT="${PORT:-8000}"',
        f'case "${{1:-{first}}}" in',
    ]
    for runs in engines:
        lines += _case(pool, model, runs)
    return [*lines, "*)", f'    echo "no such engine here: $1; allowed: {names}" >&2', "    exit 2 ;;", "esac"]


def _case(pool: PoolPlan, model: Model, runs: Runs) -> list[str]:
    said = [f"runs here: {runs.source}" + (f" ({runs.package})" if runs.package else "")]
    said += [f"arguments: {page}" for page in FLAGS[runs.engine]]
    command = " \\\n        ".join(arguments(runs.engine, pool, model))
    comments = [f"    # {line}" for line in (*said, *notes(runs.engine, pool, model))]
    return [f"{runs.engine})", *comments, f"    exec {command} ;;"]
