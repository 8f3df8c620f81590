"""Random models, chips and deployments for the tests of step time: small, of every feature."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from infermix.catalog.records import Chip, Efficiency, Figure, Model, System
from infermix.perf.deployment import BYTES_PER_KV, BYTES_PER_WEIGHT, Deployment
from infermix.perf.specdec import Speculation
from tests.perf.deployments import CAT

PLAIN = CAT.models["llama-3.1-8b"]

HBM_FAMILIES = sorted(id_ for id_, family in CAT.efficiencies.items() if "mla_bytes" in family.figures)
SRAM_FAMILIES = sorted(id_ for id_, family in CAT.efficiencies.items() if family.machine == "pipeline")


def attention(draw: st.DrawFn, layers: int) -> dict[str, Any]:
    """Mixers of every kind: grouped heads, latents, windows with heads of their own, chosen tokens, states."""
    kv_heads = draw(st.sampled_from([1, 2, 4, 8]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 6]))
    found: dict[str, Any] = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": draw(st.sampled_from([32, 64, 96])),
        "attention_gate": draw(st.booleans()),
    }
    kind = draw(st.sampled_from(["plain", "plain", "mla", "mla", "sliding", "stated"]))
    linear = draw(st.integers(0, layers)) if draw(st.booleans()) else 0
    if linear:
        found |= {
            "linear_layers": linear,
            "linear_weights": draw(st.integers(1, 3_000_000)),
            "linear_state_elements": draw(st.integers(1, 90_000)),
        }
    blocks = layers - linear
    if blocks > 1 and draw(st.booleans()):  # layers of one mixer or one MLP alone
        found["attention_layers"] = blocks = draw(st.integers(1, blocks - 1))
        found["mlp_layers"] = draw(st.integers(1, layers))
    if kind == "mla":
        found |= {
            "mla_q_lora": draw(st.sampled_from([None, 48, 128])),
            "mla_kv_lora": draw(st.sampled_from([32, 128])),
            "mla_qk_nope": draw(st.sampled_from([16, 64])),
            "mla_qk_rope": draw(st.sampled_from([8, 32])),
            "mla_v_head": draw(st.sampled_from([24, 64])),
        }
    if kind == "sliding" and blocks > 1:
        found |= {
            "sliding_window": draw(st.sampled_from([16, 1000])),
            "sliding_layers": draw(st.integers(0, blocks - 1)),
        }
        if blocks in (2, 4, 8) and draw(st.booleans()):  # so that weights of the mean block are whole
            own = draw(st.sampled_from([1, 2, 8]))
            found |= {"sliding_heads": draw(st.sampled_from([own, 2 * own])), "sliding_kv_heads": own}
            found["sliding_head_dim"] = draw(st.sampled_from([None, 48, 128]))
    if kind == "stated":
        found["attention_block_weights"] = draw(st.integers(1000, 3_000_000))
        found["attention_block_kv_elements"] = draw(st.floats(1, 900))
    if kind != "sliding" and draw(st.booleans()):
        found |= {
            "sparse_topk": draw(st.sampled_from([16, 500])),
            "indexer_heads": draw(st.sampled_from([1, 8])),
            "indexer_head_dim": draw(st.sampled_from([16, 64])),
        }
    return found


def mlps(draw: st.DrawFn, layers: int) -> dict[str, Any]:
    """Dense or routed, shared experts, experts at a width of their own."""
    found: dict[str, Any] = {"ffn": draw(st.integers(1, 4000)), "gated_mlp": draw(st.booleans())}
    experts = draw(st.sampled_from([0, 4, 8, 64]))
    if experts:
        found |= {
            "experts": experts,
            "active_experts": draw(st.integers(1, min(8, experts))),
            "expert_ffn": draw(st.integers(1, 2000)),
            "expert_hidden": draw(st.sampled_from([0, 0, 200])),
            "shared_experts": draw(st.integers(0, 2)),
            "shared_expert_ffn": draw(st.integers(1, 2000)),
            "moe_layers": draw(st.integers(1, layers)),
        }
    return found


@st.composite
def models(draw: st.DrawFn) -> Model:
    """A small model of any shape."""
    layers = draw(st.integers(1, 9))
    found = attention(draw, layers)
    routed = mlps(draw, found.get("mlp_layers", layers))
    return msgspec.structs.replace(
        PLAIN,
        layers=layers,
        hidden=draw(st.sampled_from([64, 512, 1000])),
        vocab=draw(st.integers(2, 50_000)),
        tied_embeddings=draw(st.booleans()),
        dense_layers=layers - routed.get("moe_layers", 0),
        mtp_layers=1,
        max_context=draw(st.integers(1, 100_000)),
        **found,
        **routed,
    )


def figure(number: float) -> Figure:
    """A figure of no particular source."""
    return Figure(value=number, unit="1", source=("test",), kind="unverified", read="2026-01-01")


@st.composite
def chips(draw: st.DrawFn) -> Chip:
    """A chip with any set of arithmetic units, but at least one."""
    rates = [1e12 * 2**n for n in draw(st.lists(st.integers(0, 10), min_size=4, max_size=4))]
    names = ("bf16_flop_per_s", "fp8_flop_per_s", "fp4_flop_per_s", "int8_op_per_s")
    has = draw(st.sets(st.sampled_from(names), min_size=1))
    if has == {"fp4_flop_per_s"}:
        has = {"fp4_flop_per_s", "bf16_flop_per_s"}
    return msgspec.structs.replace(
        CAT.chips["h100-sxm"],
        id="made-up",
        link=draw(st.sampled_from(["NVLink 5 + NVSwitch", "ring"])),
        hop_s=draw(st.sampled_from([None, figure(2e-6), figure(90e-6)])),
        link_bytes_per_s=figure(draw(st.sampled_from([1e9, 900e9]))),
        scaleout_bytes_per_s=figure(draw(st.sampled_from([1e9, 100e9]))),
        mem_bytes=figure(draw(st.sampled_from([4e9, 80e9]))),
        mem_bytes_per_s=figure(draw(st.sampled_from([1e11, 8e12]))),
        sram_bytes=figure(draw(st.sampled_from([1e9, 40e9]))),
        sram_bytes_per_s=figure(draw(st.sampled_from([1e13, 2e16]))),
        **{name: figure(rate) if name in has else None for name, rate in zip(names, rates, strict=True)},
    )


@st.composite
def specs(draw: st.DrawFn) -> Speculation | None:
    """Speculation of any method, or none."""
    if draw(st.booleans()):
        return None
    depth = draw(st.integers(1, 4))
    return Speculation(draw(st.sampled_from(["mtp", "eagle", "ngram"])), depth, draw(st.floats(1, depth + 1)))


def parallelism(draw: st.DrawFn, model: Model, system: System) -> dict[str, int]:
    """Chips of one instance on HBM machines: a part of a system, or several whole ones."""
    tp = draw(st.sampled_from([n for n in (1, 2, 3, 4, 8, 12, 16) if model.heads % n == 0]))
    pp = draw(st.sampled_from([n for n in (1, 1, 2, 3, 4) if n <= model.layers]))
    fit = [n for n in (1, 2, 3, 4, 8) if tp * pp * n <= system.chips or tp * pp * n % system.chips == 0]
    if not fit:
        tp, pp, fit = 1, 1, [1]
    dp = draw(st.sampled_from(fit))
    ep = [n for n in (1, 2, 3, 4, 8, 16) if tp * dp % n == 0 and n <= model.experts] or [1]
    return {"tp": tp, "pp": pp, "dp": dp, "ep": draw(st.sampled_from(ep))}


@st.composite
def deployments(draw: st.DrawFn) -> Deployment:
    """Any small model on any chip in any layout, with any dtypes and speculation; it may not fit."""
    model, chip = draw(models()), draw(chips())
    pipeline = draw(st.integers(0, 3)) == 0
    family: Efficiency = CAT.efficiencies[draw(st.sampled_from(SRAM_FAMILIES if pipeline else HBM_FAMILIES))]
    system = msgspec.structs.replace(
        CAT.systems["h100-x8"], id="made-up-xn", chip=chip.id, chips=draw(st.integers(1, 8))
    )
    if pipeline and draw(st.integers(0, 7)) == 0:
        chip = msgspec.structs.replace(chip, only_models=(model.id,))
    layout = {"stages": draw(st.integers(1, 9))} if pipeline else parallelism(draw, model, system)
    return Deployment(
        model=model,
        system=system,
        chip=chip,
        efficiency=family,
        weights=draw(st.sampled_from(sorted(BYTES_PER_WEIGHT))),
        kv=draw(st.sampled_from(sorted(BYTES_PER_KV))),
        max_num_seqs=draw(st.integers(1, 40)),
        max_batched_tokens=draw(st.integers(40, 700)),
        spec=draw(specs()),
        **layout,
    )
