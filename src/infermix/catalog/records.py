"""The facts: chips, systems, models, prices, efficiencies; every number is a ``Figure``.

Records are frozen and validated once, when they are loaded; values are SI from then on.
A figure's id is its path in the catalogue, such as ``chips/h200-sxm/mem_bytes_per_s``.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["measured", "vendor", "derived", "press", "unverified"]
Basis = Literal["rent", "capital", "operator_cost", "api"]
PowerBasis = Literal["chip", "it", "facility"]

KINDS_OF_CHIP = {
    "gpu_hbm": "hbm",
    "tpu_hbm": "hbm",
    "asic_hbm": "hbm",
    "dataflow_hbm": "hbm",
    "asic_lpddr": "lpddr",
    "riscv_gddr": "gddr",
    "soc_unified": "lpddr",
    "sram_asic": "sram",
    "wafer": "sram",
    "hardwired": "sram",
    "in_memory": "other",
    "neuromorphic": "other",
}


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number with its source.

    ``value``, ``low`` and ``high`` are SI in ``unit``; ``source`` holds ids of ``sources.toml``;
    ``of`` holds the ids of the figures that a derived one was computed from.
    """

    value: float
    unit: str
    source: tuple[str, ...]
    kind: Kind
    read: str
    low: float | None = None
    high: float | None = None
    note: str = ""
    of: tuple[str, ...] = ()


class Chip(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One packaged accelerator. Peaks are dense rates; link rates are per direction."""

    id: str
    name: str
    vendor: str
    cls: str
    year: str = ""
    status: str = ""
    efficiency: str = ""
    """Family whose measured efficiencies this chip takes (``catalog/data/efficiency``)."""
    process_node: str = ""
    foundry: str = ""
    sram_kind: str = ""
    mem_type: str = ""
    mem2: str = ""
    link: str = ""
    supply: str = ""
    inference_mapping: str = ""
    note: str = ""
    confidence: str = ""
    compute_dies: Figure | None = None
    die_area_m2: Figure | None = None
    transistors: Figure | None = None
    tdp_w: Figure | None = None
    bf16_flop_per_s: Figure | None = None
    fp8_flop_per_s: Figure | None = None
    int8_op_per_s: Figure | None = None
    fp4_flop_per_s: Figure | None = None
    sram_bytes: Figure | None = None
    sram_bytes_per_s: Figure | None = None
    mem_bytes: Figure | None = None
    mem_bytes_per_s: Figure | None = None
    link_bytes_per_s: Figure | None = None
    link_domain_chips: Figure | None = None
    hop_s: Figure | None = None
    scaleout_bytes_per_s: Figure | None = None
    chip_price_usd: Figure | None = None
    rent_low_usd_per_hour: Figure | None = None
    rent_usd_per_hour: Figure | None = None

    @property
    def kind(self) -> str:
        """``hbm``, ``sram``, ``lpddr``, ``gddr`` or ``other``: what limits by kind of chip refer to."""
        return KINDS_OF_CHIP[self.cls]


class System(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Chips wired and sold as one unit: money is spent on whole systems."""

    id: str
    name: str
    vendor: str
    chip: str
    chips: int
    power_w: Figure | None = None
    power_basis: PowerBasis = "it"
    rent_usd_per_hour: Figure | None = None
    capital_usd: Figure | None = None
    operator_cost_usd_per_hour: Figure | None = None
    note: str = ""


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A transformer's shape. Sizes are counts, so they carry one source for the whole record."""

    id: str
    name: str
    source: tuple[str, ...]
    kind: Kind
    read: str
    year: int | None = None
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied_embeddings: bool = False
    gated_mlp: bool = True
    experts: int = 0
    active_experts: int = 0
    expert_ffn: int = 0
    shared_experts: int = 0
    shared_expert_ffn: int = 0
    moe_layers: int = 0
    dense_layers: int = 0
    mla_q_lora: int | None = None
    mla_kv_lora: int | None = None
    mla_qk_nope: int | None = None
    mla_qk_rope: int | None = None
    mla_v_head: int | None = None
    max_context: int
    sliding_window: int | None = None
    sliding_layers: int = 0
    """How many of the layers attend only to the last ``sliding_window`` tokens."""
    native_weights: str
    """Dtype of the published weights: ``bf16``, ``fp8``, ``mxfp4`` (MoE experts only) ..."""
    params_claimed: Figure | None = None
    active_params_claimed: Figure | None = None
    params: Figure
    """Computed from the shape."""
    active_params: Figure
    kv_elements_per_token: Figure
    note: str = ""
    confidence: str = ""


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One offer seen on the market, on its stated basis."""

    id: str
    basis: Basis
    provider: str
    item: str
    tier: str = ""
    date: str = ""
    usd_per_hour: Figure | None = None
    capital_usd: Figure | None = None
    input_usd_per_mtok: Figure | None = None
    output_usd_per_mtok: Figure | None = None
    standard_input_usd_per_mtok: Figure | None = None
    standard_output_usd_per_mtok: Figure | None = None
    price_multiple: Figure | None = None
    speed_tokens_per_s: Figure | None = None
    speed_multiple: str = ""
    speed_basis: str = ""
    confidence: str = ""
    note: str = ""


class Efficiency(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a family of chips reaches of its peaks: few figures, physically named."""

    id: str
    name: str
    machine: Literal["hbm", "pipeline"]
    figures: dict[str, Figure]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where figures were read."""

    id: str
    text: str
    url: str = ""
    date: str = ""
