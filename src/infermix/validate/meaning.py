"""What a measured row asks: which deployment, under which clients, and which of its times."""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache

import msgspec

from infermix.catalog.load import catalog
from infermix.catalog.query import find_chip, find_model
from infermix.catalog.records import Chip, Model, System
from infermix.errors import InfermixError, NoAnswer
from infermix.perf.deployment import BYTES_PER_WEIGHT, Deployment, best_weights, narrowest_bits
from infermix.perf.memory import fewest_stages, kv_tokens_left, weights_bytes
from infermix.perf.specdec import ACCEPTED, Speculation
from infermix.validate.engines import Engine, engine_of
from infermix.validate.rows import Row

DRAWN_FROM = 0.8
"""Shortest length over nominal of clients that draw lengths evenly between it and 1."""
APART = 0.3
"""Of an answer's length, either way, where a load of equal lengths goes round: clients do not stay in step for long."""
REQUESTS_PER_CLIENT = 10
DEFAULT_INPUT, DEFAULT_OUTPUT = 1000, 500
"""Lengths where a row tells none."""
MLPERF_INPUT = {"llama-2-70b": 294, "mixtral-8x7b": 360, "gpt-j-6b": 850, "llama-3.1-405b": 9400, "llama-3.1-8b": 780}
"""Mean prompts of the benchmark's data sets [tokens]; rows tell outputs only."""
SATURATED = 4096
"""Clients that fill any instance."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment under clients."""

    deployment: Deployment
    engine: Engine
    clients: int
    """In flight on one instance."""
    requests: int
    input_tokens: int
    output_tokens: int
    shortest: float = 1.0
    """Shortest length over nominal."""
    apart: float = 0.0
    """Answers are so much longer or shorter than nominal, as a share of it."""
    instances: int = 1
    """Equal instances that the row's chips hold; throughput counts all."""
    prefill: Deployment | None = None
    """Where prompts are read elsewhere."""
    prefill_instances: float = 0.0
    """Instances that read prompts, for each one that decodes."""
    steady: bool = False
    """Whether the ends of the run do not count: offered load without end."""
    assumed: tuple[str, ...] = ()
    """What the row leaves open."""


def case_of(row: Row) -> Case:
    """The case that a row was measured on.

    Raises
    ------
    InfermixError
        The row asks what no step time answers; the text says what.
    """
    _refuse(row)
    chip, model = find_chip(row.chip), find_model(row.model)
    engine = engine_of(row.framework, row.date, row.scenario)
    if "disagg" in row.scenario:
        return _split_case(row, chip, model, engine)
    d, instances, assumed = _deployment(row, chip, model, engine)
    lengths, more = _lengths(row, model)
    clients = _clients(row, d, instances, sum(lengths))
    shortest, requests = _drawn(row, clients)
    apart = APART if engine.mixed and shortest == 1.0 and requests > clients else 0.0
    return Case(
        deployment=_with_seats(d, clients), engine=engine, steady=_is_steady(row), clients=clients,
        requests=requests, input_tokens=lengths[0],
        output_tokens=lengths[1], shortest=shortest, apart=apart, instances=instances, assumed=(*assumed, *more),
    )  # fmt: skip


def _refuse(row: Row) -> None:
    if row.metric == "step_ms" or row.scenario.startswith("layer"):
        raise NoAnswer("times of a single layer are not predicted")
    if row.scenario.startswith("production") or row.scenario.startswith("profile"):
        raise NoAnswer("averages of a production fleet: load, lengths and batch are not told")
    if row.metric == "prefill_tok_s":
        raise NoAnswer("throughput of prompts alone is not predicted")


def _lengths(row: Row, model: Model) -> tuple[tuple[int, int], tuple[str, ...]]:
    assumed = []
    read, written = row.input_len, row.output_len
    if read is None:
        read = MLPERF_INPUT.get(model.id) if row.scenario.startswith("mlperf") else None
        assumed.append("prompt length")
    if written is None:
        assumed.append("answer length")
    lengths = (max(1, round(read or DEFAULT_INPUT)), max(1, round(DEFAULT_OUTPUT if written is None else written)))
    return lengths, tuple(assumed)


def _drawn(row: Row, clients: int) -> tuple[float, int]:
    """(shortest length over nominal, requests): a batch is sent once, a closed loop goes round."""
    if row.scenario.startswith("batch") or row.scenario == "single-stream":
        return 1.0, clients
    if _is_steady(row):
        return 0.5, 4 * clients
    if row.source.startswith("InferenceX"):
        return DRAWN_FROM, REQUESTS_PER_CLIENT * clients
    return 1.0, REQUESTS_PER_CLIENT * clients


def _is_steady(row: Row) -> bool:
    return row.scenario.startswith("mlperf") or row.clients is None


def _with_seats(d: Deployment, clients: int) -> Deployment:
    """No more sequences than there are clients: engines set memory aside for those that may come."""
    return msgspec.structs.replace(d, max_num_seqs=max(1, min(d.max_num_seqs * d.dp, clients)))


SERVER_SHARE = 0.85
"""Of the sequences that memory holds, what a server under a promise of latency keeps in flight."""


def _clients(row: Row, d: Deployment, instances: int, tokens: int) -> int:
    if row.clients is not None:
        if row.scenario.startswith(("batch", "single")):
            return row.clients
        return max(1, round(row.clients / instances))
    if row.scenario in ("single-stream", "peak-per-user"):
        return 1
    most = max(1, min(SATURATED, d.max_num_seqs, int(room_tokens(_with_seats(d, SATURATED)) // tokens)))
    return max(1, round(SERVER_SHARE * most)) if row.scenario.endswith("server") else most


@lru_cache(maxsize=4096)
def system_for(chip: Chip, chips: int) -> System:
    """The smallest system of this chip that holds so many, else the largest."""
    systems = sorted((s for s in catalog().systems.values() if s.chip == chip.id), key=lambda s: s.chips)
    if not systems:
        raise NoAnswer(f"{chip.id}: the catalogue has no system of this chip")
    return next((s for s in systems if s.chips >= chips), systems[-1])


def weights_of(row: Row, model: Model, chip: Chip) -> tuple[str, tuple[str, ...]]:
    """Dtype of the weights; a doubtful or missing one is assumed."""
    said = row.weight_dtype.lower().rstrip("?").removeprefix("gguf-")
    if model.native_weights == "mxfp4" and said not in ("bf16", "fp16"):
        return "mxfp4", ()
    if row.scenario.startswith("mlperf") and said == "fp8" and row.weight_dtype.endswith("?") and chip.fp4_flop_per_s:
        return "nvfp4", ("weights",)
    known = {"fp8_block": "fp8", "fp4": "nvfp4", "8-bit": "int8", "float16": "fp16", "bfloat16": "bf16"}.get(said, said)
    if known in BYTES_PER_WEIGHT:
        return known, ("weights",) if row.weight_dtype.endswith("?") else ()
    efficiency = catalog().efficiencies[chip.efficiency]
    return (best_weights(model, chip, efficiency) if chip.efficiency else "bf16"), ("weights",)


def _kv_of(row: Row, weights: str, engine: Engine, chip: Chip) -> str:
    if row.kv_dtype:
        return "fp8" if row.kv_dtype.startswith("fp8") else row.kv_dtype
    asked = engine.narrow_kv or (engine.id == "sglang" and row.source.startswith("InferenceX"))  # by its scripts
    narrow = BYTES_PER_WEIGHT[weights] <= 1.0 and asked and chip.fp8_flop_per_s is not None
    return "fp8" if narrow else "bf16"


def _spec_of(row: Row, model: Model) -> Speculation | None:
    """Speculation where the row says that there was some; its depth is the usual one."""
    if not row.spec_decode.startswith("yes"):
        return None
    depth = int(found[1]) if (found := re.search(r"(?:mtp|draft|depth)\D{0,3}(\d)", row.notes.lower())) else 1
    return Speculation("mtp" if model.mtp_layers else "eagle", depth, ACCEPTED.get(depth, 1.8))


def _deployment(row: Row, chip: Chip, model: Model, engine: Engine) -> tuple[Deployment, int, tuple[str, ...]]:
    """(deployment, equal instances, what was assumed)."""
    if chip.no_speed or not chip.efficiency:
        raise NoAnswer(f"{chip.id}: {chip.no_speed or 'no efficiencies'}")
    efficiency = catalog().efficiencies[chip.efficiency]
    weights, assumed = weights_of(row, model, chip)
    if efficiency.machine == "pipeline" and BYTES_PER_WEIGHT[weights] * 8 < narrowest_bits(chip, efficiency):
        weights = best_weights(model, chip, efficiency)
    chips = row.num_chips or (row.tp or 1) * (row.dp or 1) * (row.pp or 1)
    chip = as_devices(chip)
    d = Deployment(
        model=model, system=system_for(chip, chips), chip=chip, efficiency=efficiency, weights=weights,
        kv=_kv_of(row, weights, engine, chip), max_num_seqs=engine.max_seqs, max_batched_tokens=8192,
        spec=_spec_of(row, model),
    )  # fmt: skip
    if d.is_pipeline:
        return _staged(d, row.num_chips), 1, (*assumed, *(() if row.num_chips else ("chips",)))
    if row.tp is None:
        d, instances = _laid_out(d, chips)
        return d, instances, (*assumed, "layout")
    dp = row.dp or 1
    tp = min(row.tp, chips) if dp == 1 else row.tp  # some count cores
    d = msgspec.structs.replace(d, tp=tp, pp=row.pp or 1, dp=dp, ep=_ranks(model, row.ep or 1, tp * dp))
    d = _wide_enough(d)
    instances = max(1, chips // d.chips) if row.scenario.startswith("mlperf") else 1
    return d, instances, assumed


TWO_DEVICES = ("mi250", "mi250x", "max-1550")
"""Chips of two dies that software sees as two devices: a row's tp counts dies."""


@cache
def as_devices(chip: Chip) -> Chip:
    """One die of a chip that software sees as two devices: half of everything but its links."""
    if chip.id not in TWO_DEVICES:
        return chip
    names = ("bf16_flop_per_s", "fp8_flop_per_s", "int8_op_per_s", "fp4_flop_per_s", "mem_bytes", "mem_bytes_per_s")
    kept = {name: getattr(chip, name) for name in names if getattr(chip, name) is not None}
    halves = {name: msgspec.structs.replace(figure, value=figure.value / 2) for name, figure in kept.items()}
    return msgspec.structs.replace(chip, **halves)


def _ranks(model: Model, ep: int, chips: int) -> int:
    """Groups of chips that share out the experts, as far as they divide."""
    shared = math.gcd(ep, chips)
    return shared if model.experts and shared <= model.experts else 1


def _wide_enough(d: Deployment) -> Deployment:
    """Wider tensor parallelism, or experts shared out, where the weights exceed memory: what was measured did run."""
    assert d.chip.mem_bytes is not None
    while weights_bytes(d) > d.chips * d.chip.mem_bytes.value:
        if d.model.experts and d.dp > 1 and d.ep == 1:
            d = msgspec.structs.replace(d, ep=_ranks(d.model, d.tp * d.dp, d.tp * d.dp))
            if d.ep > 1:
                continue
        if d.tp >= 64:
            break
        d = msgspec.structs.replace(d, tp=2 * d.tp, ep=1)
    return msgspec.structs.replace(d, system=system_for(d.chip, d.chips))


def _staged(d: Deployment, chips: int | None) -> Deployment:
    """The pipeline on so many chips, or on the fewest that hold it."""
    known = max(1, round(chips / d.system.chips)) if chips else None
    least = fewest_stages(d)
    if least is None:
        raise NoAnswer(f"{d.model.id} fits on no number of {d.system.id}")
    return msgspec.structs.replace(d, stages=max(known or 0, least if known is None else 1))


def _laid_out(d: Deployment, chips: int) -> tuple[Deployment, int]:
    """The narrowest tensor parallelism that leaves half of memory for contexts, repeated over all chips."""
    if d.chip.mem_bytes is None:
        raise NoAnswer(f"{d.chip.id}: the catalogue lacks mem_bytes")
    sizes = [n for n in range(1, chips + 1) if chips % n == 0 and d.model.heads % n == 0]
    for tp in sizes:
        if weights_bytes(d) <= 0.5 * tp * d.chip.mem_bytes.value:
            break
    return msgspec.structs.replace(d, tp=tp), max(1, chips // tp)


_WORKERS = re.compile(r"([PD]):(\d*)x\(tp(\d+) dp(\d+) ep(\d+) bs(\d*)\)")


def _split_case(row: Row, chip: Chip, model: Model, engine: Engine) -> Case:
    """Prompts on some workers, decoding on others; counts that are missing are taken from the chips in all."""
    told = {kind: tuple(int(n or 0) for n in rest) for kind, *rest in _WORKERS.findall(row.notes)}
    assumed: tuple[str, ...] = ()
    if "P" not in told or "D" not in told:
        tp = min(row.tp or 8, 8)
        told = {"P": (0, tp, row.dp or 1, row.ep or 1, 0), "D": (0, tp, row.dp or 1, row.ep or 1, 0)}
    if not told["D"][0]:
        assumed = ("worker counts",)
    decode, decoders = _worker(row, chip, model, engine, told["D"])
    prefill, readers = _worker(row, chip, model, engine, told["P"])
    _, more = weights_of(row, model, chip)
    clients = row.clients or 16 * decoders
    lengths, open_ = _lengths(row, model)
    shortest, _ = _drawn(row, clients)
    each = max(1, round(clients / decoders))
    return Case(
        deployment=_with_seats(decode, each), engine=engine, clients=each, requests=REQUESTS_PER_CLIENT * each,
        input_tokens=lengths[0], output_tokens=lengths[1], shortest=shortest, instances=decoders, prefill=prefill,
        prefill_instances=readers / decoders, assumed=(*assumed, *more, *open_),
    )  # fmt: skip


def _worker(row: Row, chip: Chip, model: Model, engine: Engine, told: tuple[int, ...]) -> tuple[Deployment, int]:
    """(deployment, how many); a worker wider than eight chips without attention in parallel is several."""
    count, tp, dp, ep, _ = told
    if not count:
        count, tp = (max(1, tp // 8), min(tp, 8)) if dp == 1 else (1, tp)
    weights, _ = weights_of(row, model, chip)
    d = Deployment(
        model=model, system=system_for(chip, tp * dp), chip=chip, efficiency=catalog().efficiencies[chip.efficiency],
        weights=weights, kv=_kv_of(row, weights, engine, chip), tp=tp, dp=dp, ep=_ranks(model, ep, tp * dp),
        max_num_seqs=engine.max_seqs,
    )  # fmt: skip
    return _wide_enough(d), count


@cache
def covered(row: Row) -> str:
    """Why a row has no case; empty where it has one."""
    try:
        case_of(row)
    except InfermixError as fault:
        return str(fault)
    return ""


MEASURED_USE = 0.97
"""Share of memory that a measured engine may have taken: people who measure set it higher than the default."""


def room_tokens(d: Deployment) -> float:
    """KV tokens that an instance holds; what was measured did run, so never none."""
    figures = d.efficiency.figures
    use = figures["memory_use"]
    fuller = msgspec.structs.replace(use, value=max(use.value, MEASURED_USE), low=None, high=None)
    roomy = msgspec.structs.replace(d.efficiency, figures={**figures, "memory_use": fuller})
    return float(max(0, kv_tokens_left(msgspec.structs.replace(d, efficiency=roomy))))
