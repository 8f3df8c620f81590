"""The market of a study file: systems, contracts under which they can be had, and APIs."""

from __future__ import annotations

from datetime import date

import msgspec

from infermix.cost.rent import ContractKind
from infermix.errors import InputError, near_miss
from infermix.perf.deployment import BYTES_PER_KV, BYTES_PER_WEIGHT
from infermix.perf.pairs import Readiness
from infermix.perf.specdec import read_speculation

PARTS = ("prefill", "decode")


class ContractRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A way to have systems of a kind; needs ``cost_basis = "paid"``."""

    system: str
    terms: ContractKind = "reserved"
    """own, reserved: the same number all day; on_demand, spot: other numbers in other slots."""
    usd_per_hour: float | None = None
    """Of one system; the catalogue's where not said."""
    capital_usd: float | None = None
    """Price of one system, with ``terms = "own"``; the catalogue's where not said."""
    supply: int | None = None
    region: str = ""
    delivery: date | None = None
    delivered: float = 1.0
    """Probability that it is delivered in time."""
    deposit: float = 0.0
    """Share of its cost that is paid although nothing is delivered."""
    least_systems: int = 0
    """Take or pay: so many are paid for, taken or not."""
    signed: bool = False
    """Whether take or pay is signed already, so that not taking it saves nothing."""
    interruptions_per_hour: float = 0.0
    """Of a spot system."""
    restart_s: float = 600.0
    """From an interruption until another system serves."""

    def check(self, where: str) -> None:
        """Raise InputError for what no contract can say."""
        for name in ("usd_per_hour", "capital_usd"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError("must be positive and finite", where=f"{where}.{name}", value=value)
        if self.capital_usd is not None and (self.terms != "own" or self.usd_per_hour is not None):
            raise InputError(
                "capital_usd goes with terms = 'own', without usd_per_hour",
                where=f"{where}.capital_usd",
                value=self.capital_usd,
                mend="leave one of them out",
            )
        if not 0 < self.delivered <= 1 or not 0 <= self.deposit <= 1:
            name = "deposit" if 0 < self.delivered <= 1 else "delivered"
            raise InputError("a share must lie between 0 and 1", where=f"{where}.{name}", value=getattr(self, name))
        if self.supply is not None and self.supply < 0:
            raise InputError("supply is negative", where=f"{where}.supply", value=self.supply)
        if self.least_systems < 0 or (self.supply is not None and self.least_systems > self.supply):
            allowed = "0 to supply" if self.supply is not None else ">= 0"
            raise InputError("out of range", where=f"{where}.least_systems", value=self.least_systems, allowed=allowed)
        self._check_spot(where)

    def _check_spot(self, where: str) -> None:
        if self.interruptions_per_hour and self.terms != "spot":
            raise InputError(
                "interruptions go with terms = 'spot'",
                where=f"{where}.interruptions_per_hour",
                value=self.interruptions_per_hour,
            )
        if not 0 <= self.down < 1 or self.restart_s < 0:
            raise InputError(
                "interruptions leave no time to serve",
                where=f"{where}.interruptions_per_hour",
                value=self.interruptions_per_hour,
                allowed="interruptions_per_hour x restart_s below one hour",
            )

    @property
    def down(self) -> float:
        """Share of time lost to interruptions."""
        return self.interruptions_per_hour * self.restart_s / 3600.0


class ApiRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Somebody else's endpoint, at its list price and speed."""

    vendor: str
    model: str | None = None
    """The study's where not said."""
    price: str | None = None
    """Id of a price in the catalogue; else the three below are stated."""
    input_usd_per_mtok: float | None = None
    cached_usd_per_mtok: float | None = None
    """Of cached input tokens; as other input where not said."""
    output_usd_per_mtok: float | None = None
    tokens_per_s: float | None = None
    """Speed of one user's answer; the price's in the catalogue where it has one."""
    ttft_s: float = 0.5
    most_tokens_per_s: float | None = None
    """Output tokens a second that it sells at most."""
    region: str = ""

    def check(self, where: str) -> None:
        """Raise InputError for prices and speeds that cannot be."""
        for name in ("input_usd_per_mtok", "cached_usd_per_mtok", "output_usd_per_mtok"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise InputError("a price is finite and 0 or more", where=f"{where}.{name}", value=value)
        for name in ("tokens_per_s", "ttft_s", "most_tokens_per_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError("must be positive and finite", where=f"{where}.{name}", value=value)
        if self.price is None and (self.input_usd_per_mtok is None or self.output_usd_per_mtok is None):
            raise InputError(
                "no price", where=where, mend="state input_usd_per_mtok and output_usd_per_mtok, or price = ID"
            )


class PairRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prompts are read on one system, answers written on another."""

    prefill: str
    decode: str


class Market(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What can be had: systems, how many of each, and prices that replace the catalogue's."""

    systems: list[str]
    supply: dict[str, int] = {}
    prices: dict[str, float] = {}
    contracts: dict[str, ContractRow] = {}
    api: dict[str, ApiRow] = {}
    needed_by: date | None = None
    """What is delivered later cannot be used."""
    supports: dict[str, list[str]] = {}
    """System → models that it may run; systems that are not named may run any."""
    own_chips: list[str] = []
    kv: list[str] = msgspec.field(default_factory=lambda: ["bf16", "fp8"])
    """KV dtypes that may be used where the chip has the arithmetic."""
    weights: list[str] = []
    """Narrower weights than the model's own that may be used, too, where the chip can keep them."""
    pairs: list[PairRow] = []
    """Pairs of prefill and decode that may be had, beside systems that do both."""
    pairs_ready: Readiness | None = None
    """Every pair of systems that is at least so ready may be had."""
    spec: list[str] = []
    """Speculative decoding that may be used, beside none: ``METHOD:DEPTH[:ACCEPTED]``."""

    def check(self, where: str) -> None:
        """Raise InputError for what no market can hold."""
        for key, price in self.prices.items():
            if not 0 < price < float("inf"):
                raise InputError("must be positive and finite", where=f"{where}.prices.{key}", value=price)
        for name in sorted(set(self.systems)):
            if self.systems.count(name) > 1:
                raise InputError("named twice", where=f"{where}.systems", value=name, mend="name it once")
        for key, count in self.supply.items():
            if count < 0:
                raise InputError("supply is negative", where=f"{where}.supply.{key}", value=count)
        for key, dtypes, known in (("kv", self.kv, BYTES_PER_KV), ("weights", self.weights, BYTES_PER_WEIGHT)):
            for dtype in dtypes:
                if dtype not in known:
                    what = "unknown KV dtype" if key == "kv" else "unknown weight dtype"
                    raise InputError(what, where=f"{where}.{key}", value=dtype, allowed=", ".join(known))
        for text in self.spec:
            read_speculation(text, f"{where}.spec")
        for name, row in self.contracts.items():
            row.check(f"{where}.contracts.{name}")
        for name, endpoint in self.api.items():
            endpoint.check(f"{where}.api.{name}")
        self._check_names(where)

    def _check_names(self, where: str) -> None:
        """Systems of other tables are on the market."""
        named = [("supply", name) for name in self.supply] + [("prices", name) for name in self.prices]
        named += [("supports", name) for name in self.supports]
        named += [(f"pairs[{i}].{key}", getattr(row, key)) for i, row in enumerate(self.pairs) for key in PARTS]
        named += [(f"contracts.{key}.system", row.system) for key, row in self.contracts.items()]
        for table, name in named:
            if name not in self.systems:
                raise InputError(
                    "not on the market",
                    where=f"{where}.{table}",
                    value=name,
                    allowed=", ".join(self.systems),
                    mend=near_miss(name, self.systems),
                )
