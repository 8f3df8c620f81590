"""Models: the shape must be one that can be built, and the stated counts must follow from it."""

from __future__ import annotations

from collections.abc import Iterator

from infermix.catalog import shape
from infermix.catalog.check.facts import Facts
from infermix.catalog.check.fault import Fault, said
from infermix.catalog.records import Figure, Model

ROUNDING = 0.002
"""Counts are stated to five digits; norms and biases, which counting leaves out, are below a thousandth."""
CLAIM = 0.05
"""What vendors call a model's size differs from its shape by rounding, norms and parts beside the text model."""
ACTIVE_CLAIM = 0.08
WHOLE_BILLIONS = 0.6e9
"""Active sizes are quoted in whole billions, often cut off rather than rounded."""
LONGEST_CONTEXT = 20e6
WEIGHTS = ("bf16", "fp16", "fp32", "fp8", "int8", "mxfp8", "fp4", "mxfp4", "nvfp4", "int4")


def counts_follow_from_shape(facts: Facts) -> Iterator[Fault]:
    """Parameters and KV elements are arithmetic on the layer sizes: a stated count that differs is a slip in one."""
    for id_, model in facts.models.items():
        for name, count in (
            ("params", shape.parameters(model)),
            ("active_params", shape.active_parameters(model)),
            ("kv_elements_per_token", shape.kv_elements_per_token(model)),
        ):
            stated: Figure = getattr(model, name)
            if abs(stated.value - count) > ROUNDING * count:
                yield facts.fault(
                    "counts_follow_from_shape",
                    f"models/{id_}",
                    name,
                    "differs from what the shape implies",
                    value=stated,
                    allowed=f"{said(float(count), stated.unit)} within 0.2 %",
                    mend="mend the count or the layer sizes",
                )


def claims_agree_with_shape(facts: Facts) -> Iterator[Fault]:
    """A shape copied from the wrong model gives a size that is not the published one.

    Active sizes are quoted with or without the input embedding, so both are taken.
    """
    for id_, model in facts.models.items():
        active = shape.active_parameters(model)
        whole = [shape.parameters(model)]
        quoted = [active, active + model.hidden * model.vocab]
        for name, claimed, counts, most in (
            ("params_claimed", model.params_claimed, whole, CLAIM),
            ("active_params_claimed", model.active_params_claimed, quoted, ACTIVE_CLAIM),
        ):
            slack = 0.0 if claimed is None else max(most * claimed.value, WHOLE_BILLIONS * (counts is quoted))
            if claimed and all(abs(count - claimed.value) > slack for count in counts):
                yield facts.fault(
                    "claims_agree_with_shape",
                    f"models/{id_}",
                    name,
                    "the published size is not that of the shape",
                    value=claimed,
                    allowed=f"within {most:.0%} of {' or '.join(said(float(c), claimed.unit) for c in counts)}",
                    mend="mend the claim or the shape",
                    others=(f"models/{id_}/{name.removesuffix('_claimed')}",),
                )


def shapes_are_whole(facts: Facts) -> Iterator[Fault]:
    """Layer sizes that cannot be built, or fields that only make sense together."""
    for id_, model in facts.models.items():
        for name, wrong, what, allowed in (*_attention(model), *_experts(model), *_linear(model), *_rest(model)):
            if wrong:
                value = str(getattr(model, name))
                yield facts.fault("shapes_are_whole", f"models/{id_}", name, what, value=value, allowed=allowed)


_Case = tuple[str, bool, str, str]


def _attention(model: Model) -> tuple[_Case, ...]:
    heads = max(model.kv_heads, 1)
    latent = (model.mla_kv_lora, model.mla_qk_nope, model.mla_qk_rope, model.mla_v_head)
    stated = [part for part in latent if part]
    attends = shape.blocks(model).attention
    indexer = (model.sparse_topk, model.indexer_heads, model.indexer_head_dim)
    return (
        ("kv_heads", model.kv_heads < 1 or model.heads % heads != 0, "does not divide the heads", f"{model.heads} / n"),
        ("head_dim", model.head_dim < 1 and attends > 0, "no width of a head", "above 0"),
        ("mla_kv_lora", 0 < len(stated) < len(latent), "latent attention half stated",
         "all of mla_kv_lora, mla_qk_nope, mla_qk_rope, mla_v_head, or none"),
        ("mla_q_lora", bool(model.mla_q_lora) and not stated, "a query latent without the rest", "with mla_kv_lora"),
        ("sliding_layers", not 0 <= model.sliding_layers <= attends, "more windows than attention blocks",
         f"0 to {attends}"),
        ("sliding_window", bool(model.sliding_window) != bool(model.sliding_layers),
         "a window and the layers that have it belong together", "both or neither"),
        ("sparse_topk", len([part for part in indexer if part]) not in (0, 3), "sparse attention half stated",
         "all of sparse_topk, indexer_heads, indexer_head_dim, or none"),
        ("attention_layers", not 0 <= attends <= 2 * model.layers, "attention blocks beyond the layers",
         f"0 to {2 * model.layers}: some layers have two"),
    )  # fmt: skip


def _experts(model: Model) -> tuple[_Case, ...]:
    mlps = model.layers if model.mlp_layers is None else model.mlp_layers
    shared = (model.shared_experts, model.shared_expert_ffn)
    return (
        ("active_experts", not 0 <= model.active_experts <= model.experts, "more experts chosen than there are",
         f"0 to {model.experts}"),
        ("active_experts", model.experts > 0 and model.active_experts == 0, "no expert is chosen", "1 or more"),
        ("expert_ffn", (model.experts > 0) != (model.expert_ffn > 0), "experts and their width belong together",
         "both or neither"),
        ("moe_layers", (model.experts > 0) != (model.moe_layers > 0), "experts and their layers belong together",
         "both or neither"),
        ("moe_layers", not 0 <= model.moe_layers <= mlps, "more layers with experts than MLPs", f"0 to {mlps}"),
        ("dense_layers", model.moe_layers + model.dense_layers not in (mlps, model.layers),
         "dense and expert layers do not make up the layers", f"{model.layers - model.moe_layers}"),
        ("shared_expert_ffn", any(shared) and not all(shared), "shared experts and their width belong together",
         "both or neither"),
    )  # fmt: skip


def _linear(model: Model) -> tuple[_Case, ...]:
    linear = (model.linear_layers, model.linear_weights, model.linear_state_elements)
    mixers = shape.blocks(model).attention + model.linear_layers
    return (
        ("linear_layers", any(linear) and not all(linear), "linear attention half stated",
         "all of linear_layers, linear_weights, linear_state_elements, or none"),
        ("linear_layers", not 0 <= model.linear_layers <= model.layers, "more linear mixers than layers",
         f"0 to {model.layers}"),
        ("attention_layers", mixers > 2 * model.layers, "more mixers than layers have",
         f"attention and linear blocks together at most {2 * model.layers}"),
    )  # fmt: skip


def _rest(model: Model) -> tuple[_Case, ...]:
    low = 512
    return (
        ("layers", not 1 <= model.layers <= 300, "implausible depth", "1 to 300"),
        ("hidden", not 256 <= model.hidden <= 65536, "implausible width", "256 to 65,536"),
        ("vocab", not 1000 <= model.vocab <= 1_000_000, "implausible vocabulary", "1,000 to 1,000,000"),
        ("ffn", not 0 <= model.ffn <= 16 * model.hidden, "implausible width of the MLP", f"0 to {16 * model.hidden}"),
        ("max_context", not low <= model.max_context <= LONGEST_CONTEXT, "implausible context", "512 to 20,000,000"),
        ("mtp_layers", not 0 <= model.mtp_layers <= 8, "implausible number of drafting layers", "0 to 8"),
        ("year", model.year is not None and not 2017 <= model.year <= 2100, "before transformers", "2017 or later"),
        ("native_weights", model.native_weights not in WEIGHTS, "unknown dtype", ", ".join(WEIGHTS)),
    )


def guesses_say_their_range(facts: Facts) -> Iterator[Fault]:
    """The shape of a closed model is a guess: without a range of sizes it would pass for knowledge."""
    for id_, model in facts.models.items():
        if model.closed and (model.params.low is None or model.params.high is None):
            yield facts.fault(
                "guesses_say_their_range",
                f"models/{id_}",
                "params",
                "a closed model states no range of parameters",
                value=model.params,
                mend="give the figure low and high",
            )
