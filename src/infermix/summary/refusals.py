"""Why requests were refused, told from lengths and pools after a run."""

from __future__ import annotations

import numpy as np

from infermix.fleet import Fleet, Pool
from infermix.plan.problem import Study
from infermix.sim.result import REFUSED, Run
from infermix.summary.rules import comes_and_goes


def refused_by(study: Study, fleet: Fleet, run: Run, c: int) -> dict[str, int]:
    """Reason → refused requests of a class.

    ``no_pool``: no pool serves the class. ``prompt_too_long``: the prompt and one token fit into the model's
    context or the KV memory of no pool that serves it. ``answer_too_long``: with its answer it is too long for
    one of the pools that it could be sent to. ``policy``: every pool could have served it. ``gateway``: so it is, but
    the class has limits, or instances may be down, and the run does not tell which of the three it was.
    """
    mine = (run.requests.class_id == c) & (run.status == REFUSED)
    if not mine.any():
        return {}
    name = run.requests.class_names[c]
    rooms = [_room(pool) for pool in fleet.pools if not pool.serves or pool.serves.get(name, 0.0) > 0.0]
    if not rooms:
        return {"no_pool": int(mine.sum())}
    inputs = run.requests.input_tokens[mine].astype(np.int64)
    total = inputs + run.requests.output_tokens[mine]
    may = np.array([inputs + 1 <= min(kv, context) for kv, context in rooms])
    fits = np.array([(total - 1 <= kv) & (total <= context) for kv, context in rooms])
    nowhere = ~may.any(axis=0)
    answer = ~nowhere & (may & ~fits).any(axis=0)
    counts = {
        "prompt_too_long": int(nowhere.sum()),
        "answer_too_long": int(answer.sum()),
        ("gateway" if turns_away(study, fleet, name) else "policy"): int((~nowhere & ~answer).sum()),
    }
    return {reason: n for reason, n in counts.items() if n}


def turns_away(study: Study, fleet: Fleet, name: str) -> bool:
    """Whether others than the policy may refuse a request of a class that some pool could have served."""
    return study.traffic[name].is_limited or comes_and_goes(study, fleet)


def _room(pool: Pool) -> tuple[int, int]:
    """(KV tokens of an instance that admission may fill, longest context of its model)."""
    from infermix.perf.table import compile_table
    from infermix.sim.engines import watermark_blocks

    table = compile_table(pool.deployment)
    return (table.blocks - watermark_blocks(pool, table.blocks)) * table.block_tokens, pool.deployment.model.max_context


def refusals(study: Study, fleet: Fleet, run: Run) -> dict[str, dict[str, int]]:
    """Class → reason → refused requests."""
    return {name: refused_by(study, fleet, run, c) for c, name in enumerate(run.requests.class_names)}
