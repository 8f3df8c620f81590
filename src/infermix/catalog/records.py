"""The facts: chips, systems, models, prices, efficiencies; every number is a ``Figure``.

Records are frozen and validated once, when they are loaded; values are SI from then on.
A figure's id is its path in the catalogue, such as ``chips/h200-sxm/mem_bytes_per_s``.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from infermix.catalog.measured import Measured

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

SI_UNITS = {
    "compute_dies": "1",
    "die_area_m2": "m2",
    "transistors": "transistors",
    "tdp_w": "W",
    "bf16_flop_per_s": "FLOP/s",
    "fp8_flop_per_s": "FLOP/s",
    "int8_op_per_s": "OP/s",
    "fp4_flop_per_s": "FLOP/s",
    "sram_bytes": "byte",
    "sram_bytes_per_s": "byte/s",
    "mem_bytes": "byte",
    "mem_bytes_per_s": "byte/s",
    "link_bytes_per_s": "byte/s",
    "link_domain_chips": "chips",
    "hop_s": "s",
    "scaleout_bytes_per_s": "byte/s",
    "vendor_system_chips": "chips",
    "vendor_system_power_w": "W",
    "vendor_system_price_usd": "USD",
    "chip_price_usd": "USD",
    "rent_low_usd_per_hour": "USD/h",
    "rent_usd_per_hour": "USD/h",
    "operator_cost_usd_per_hour": "USD/h",
    "power_w": "W",
    "capital_usd": "USD",
    "params_claimed": "parameters",
    "active_params_claimed": "parameters",
    "params": "parameters",
    "active_params": "parameters",
    "kv_elements_per_token": "1",
    "usd_per_hour": "USD/h",
    "input_usd_per_mtok": "USD/Mtok",
    "output_usd_per_mtok": "USD/Mtok",
    "standard_input_usd_per_mtok": "USD/Mtok",
    "standard_output_usd_per_mtok": "USD/Mtok",
    "price_multiple": "1",
    "speed_tokens_per_s": "tokens/s",
}
"""SI unit of every field that holds a figure (those of efficiencies and stacks name theirs themselves)."""


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number with its source.

    ``value``, ``low`` and ``high`` are SI in ``unit``; ``source`` holds ids of ``sources.toml``;
    ``of`` holds the ids of the figures that a derived one was computed from; ``believed`` is what was believed of one
    that measured rows were fitted to, before they were looked at: where a fit starts, and what it is held to.
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
    believed: float | None = None


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
    vendor_system: str = ""
    """What the vendor builds the chip into; ``vendor_system_*`` describe the whole of it."""
    note: str = ""
    confidence: str = ""
    no_speed: str = ""
    """Why no speed of a language model can be told for this chip; empty where one can."""
    only_models: tuple[str, ...] = ()
    """Models that are wired into the chip, which runs no others; empty where it runs any."""
    aliases: tuple[str, ...] = ()
    """Other spellings that measurements and offers use."""
    source: tuple[str, ...] = ()
    """Every source that the record rests on, texts included."""
    recalled: tuple[str, ...] = ()
    """Text fields that were recalled, not looked up: the ``unverified`` of a text."""
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
    vendor_system_chips: Figure | None = None
    vendor_system_power_w: Figure | None = None
    vendor_system_price_usd: Figure | None = None
    chip_price_usd: Figure | None = None
    rent_low_usd_per_hour: Figure | None = None
    rent_usd_per_hour: Figure | None = None
    operator_cost_usd_per_hour: Figure | None = None
    """What an hour costs whoever runs the chip; never to be read as a rent."""

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
    spare_chips: int = 0
    """Chips bought and powered beyond ``chips``, which stand by and serve nothing."""
    power_w: Figure | None = None
    power_basis: PowerBasis = "it"
    rent_usd_per_hour: Figure | None = None
    capital_usd: Figure | None = None
    operator_cost_usd_per_hour: Figure | None = None
    aliases: tuple[str, ...] = ()
    note: str = ""
    measured: tuple[Measured, ...] = ()
    """Deployments whose step times were measured; they stand in place of the modelled ones."""


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A transformer's shape. Sizes are counts, so they carry one source for the whole record."""

    id: str
    name: str
    source: tuple[str, ...]
    kind: Kind
    read: str
    aliases: tuple[str, ...] = ()
    """Other spellings that measurements, engines and endpoints use."""
    closed: bool = False
    """The weights are not public: the shape is a guess that stands for a range of parameters."""
    config: str = ""
    """Path of the model's configuration within its source."""
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
    expert_hidden: int = 0
    """Width that the routed experts work at where it is not ``hidden``; two projections a block lead there and back."""
    shared_experts: int = 0
    shared_expert_ffn: int = 0
    moe_layers: int = 0
    dense_layers: int = 0
    attention_layers: int | None = None
    """Attention blocks where they are not simply all layers without ``linear_layers``."""
    mlp_layers: int | None = None
    """MLPs of either kind where not every layer has one."""
    attention_gate: bool = False
    """Whether a gate as wide as the output of attention (before its projection) multiplies it."""
    attention_block_weights: int | None = None
    """Weights of one attention block, on average, where the widths do not tell its projections [parameters]."""
    attention_block_kv_elements: float | None = None
    """Elements kept per token in one attention block, on average, where the cache is compressed along the tokens."""
    linear_layers: int = 0
    """Mixers that carry a state of fixed size instead of a KV cache (linear attention, state-space models)."""
    linear_weights: int = 0
    """Weights of one of them [parameters]."""
    linear_state_elements: int = 0
    """Elements of the state that one of them keeps for one sequence, convolution included."""
    sparse_topk: int | None = None
    """Tokens that each query attends to where an indexer chooses them."""
    indexer_heads: int = 0
    indexer_head_dim: int = 0
    mtp_layers: int = 0
    """Layers trained to predict further tokens (drafts for speculative decoding); not counted in ``params``."""
    mla_q_lora: int | None = None
    mla_kv_lora: int | None = None
    mla_qk_nope: int | None = None
    mla_qk_rope: int | None = None
    mla_v_head: int | None = None
    max_context: int
    sliding_window: int | None = None
    sliding_layers: int = 0
    """How many of the layers attend only to the last ``sliding_window`` tokens."""
    sliding_heads: int | None = None
    """Query heads, KV heads and their width in the sliding layers, where they differ from the other layers'."""
    sliding_kv_heads: int | None = None
    sliding_head_dim: int | None = None
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
    chip: str = ""
    """Id of the chip that is offered, where the catalogue knows it."""
    chips: int = 1
    """How many chips the price is for."""
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
    chips: tuple[str, ...] = ()
    """Chips whose measured rows the figures were fitted to; others are predicted with wider intervals."""
    figures: dict[str, Figure]


class Stack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a serving engine of some date makes of a family, against the tuned engine that the family's figures tell.

    ``work``, ``traffic`` and ``launches`` multiply shares of arithmetic, shares of bandwidth, and times of launches;
    ``host_s`` and ``seq_s`` come on top of the family's; where launches are not recorded, the host takes
    ``eager_layer_s`` to launch each layer, ahead of the chip; ``request_s`` passes before a request reaches the engine.
    """

    id: str
    name: str
    engine: str
    family: str = ""
    """The family, or chip, it was fitted on; empty: what is taken for those without rows of their own."""
    until: str = ""
    """Last year whose releases it describes; empty: the newest."""
    figures: dict[str, Figure]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where figures were read."""

    id: str
    text: str
    url: str = ""
    date: str = ""
