"""``infermix silicon cost``: area map, yields, dies, cost by part, price, the ledger of what it hangs on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.catalog.load import catalog
from infermix.catalog.parse import Raw, check_keys, toml
from infermix.errors import InputError, located
from infermix.silicon import build, package, wafer
from infermix.silicon.chip import Chip, anchored, read_chip
from infermix.silicon.constants import Constants, constants, sources
from infermix.silicon.draw import Draw, drawn, exact
from infermix.silicon.ledger import Line, Spread, confidence, ledger, spread
from infermix.silicon.limits import Limit, limits
from infermix.silicon.record import as_toml, raw_records, read_box

KEYS = ("name", "chip", "change", "constants", "seed", "system")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says of a real chip, beside what is known of it."""

    what: str
    modelled: float | None
    real: float | None
    unit: str
    why_not: str = ""
    """Why one of them cannot be told."""

    @property
    def error(self) -> float | None:
        """Model over reality, less one."""
        return self.modelled / self.real - 1 if self.modelled and self.real else None


class Once(msgspec.Struct, frozen=True, kw_only=True):
    """What a chip costs once, laid on its units."""

    design_usd: float
    masks_usd: float
    units: float
    usd_per_unit: float


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a chip is made of and what it costs."""

    name: str
    node: str
    area_mm2: dict[str, float]
    modelled_mm2: float
    die_mm2: float
    sides_mm: tuple[float, float]
    dies_per_wafer: dict[str, float]
    yields: dict[str, float]
    logic_usd: dict[str, float]
    """Of all dies of a unit, with and without harvest."""
    parts_usd: dict[str, Spread]
    unit_usd: Spread
    price_usd: float | None
    gross_margin: float | None
    street_price_usd: float | None
    """Of the catalogue, and the margin that it implies."""
    implied_margin: float | None
    once: Once | None
    power_w: float | None
    sram_bytes_per_s: float
    hbm_bytes_per_s: float
    bytes_per_flop: float
    limits: tuple[Limit, ...]
    checks: tuple[Check, ...]
    ledger: tuple[Line, ...]
    sources: dict[str, str]
    confidence: str
    missing: tuple[str, ...]
    figures: tuple[str, ...]
    """Ids of the catalogue's figures that it was held against."""


def read(path: str | Path, keys: tuple[str, ...] = KEYS) -> tuple[Raw, Constants]:
    """The tables of a file and the constants with those that it states."""
    where = str(path)
    try:
        raw = toml(Path(path).read_text(encoding="utf-8"), where)
    except UnicodeDecodeError:
        raise InputError("not UTF-8", where=where) from None
    except OSError as fault:
        raise InputError(f"cannot be read: {fault.strerror}", where=where) from None
    check_keys(raw, keys, where)
    _check_finite(raw, where)
    own: Any = raw.get("constants", {})
    if not isinstance(own, dict):
        raise InputError("not a table", where=f"{where}: constants", value=own)
    return raw, constants().with_own(own, f"{where}: constants")


def _check_finite(said: Any, where: str) -> None:
    """Refuse infinities and what is not a number, which TOML can write."""
    items = said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ()
    for key, item in items:
        if isinstance(item, float) and not math.isfinite(item):
            raise InputError("not a finite number", where=f"{where}: {key}", value=item)
        _check_finite(item, f"{where}: {key}" if isinstance(item, (dict, list)) else where)


def cost(path: str | Path) -> Cost:
    """Cost of the chip that a file describes. Raises InputError for files and chips that cannot be."""
    raw, table = read(path)
    chip = read_chip(raw, str(path), table)
    seed = seed_of(raw, str(path))
    with located(str(path)):
        return cost_of(chip, table, "chip", seed)


def seed_of(raw: Raw, where: str) -> int:
    """The seed of the draws, 1 unless stated."""
    seed = raw.get("seed", 1)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError("not a whole number", where=f"{where}: seed", value=seed)
    return seed


def emitted(path: str | Path) -> str:
    """The chip of a file as text of a user's own chip, for ``[market] own_chips`` of a study."""
    raw, table = read(path)
    chip = read_chip(raw, str(path), table)
    box = read_box(raw.get("system"), f"{path}: system")
    with located(str(path)):
        return as_toml(raw_records(chip, table, box))


def cost_of(chip: Chip, table: Constants, where: str, seed: int = 1) -> Cost:
    """Cost of a chip, with its spread over the ranges of the constants."""
    nominal = Draw(table)
    held = limits(chip, nominal, where)
    with np.errstate(all="ignore"):
        made, found = build.dies(chip, nominal), build.parts(chip, nominal)
    if not np.isfinite(found.total()):
        raise InputError(
            "no unit comes out of this", where=where, mend="a yield is nought, or no die fits on the wafer"
        )
    run, area, once = build.speeds(chip, nominal), build.area(chip, nominal), _once(chip, nominal)
    over = build.parts(chip, drawn(table, nominal.read, seed))
    unit = float(found.total())
    lines = ledger(table, tuple(nominal.read), lambda draw: build.parts(chip, draw).total())
    street = _street_usd(chip)
    return Cost(
        name=chip.name or chip.id or "the chip",
        node=chip.node,
        area_mm2={name: float(part) for name, part in area._asdict().items()},
        modelled_mm2=float(area.total()),
        die_mm2=float(made.die_mm2),
        sides_mm=(float(made.width_mm), float(made.height_mm)),
        dies_per_wafer=_three_forms(made, chip, nominal),
        yields={"raw": float(made.raw_yield), "harvested": float(made.good_yield)},
        logic_usd={"harvested": float(found.logic), "raw": float(build.parts(chip, nominal, harvested=False).logic)},
        parts_usd={
            name: spread(part, np.asarray(getattr(over, name))) for name, part in found._asdict().items() if part > 0
        },
        unit_usd=spread(found.total(), over.total()),
        price_usd=_price_usd(chip, found.total()),
        gross_margin=chip.gross_margin,
        street_price_usd=street,
        implied_margin=None if street is None else 1 - unit / street,
        once=once,
        power_w=None if run.power_w is None else float(run.power_w),
        sram_bytes_per_s=float(run.sram_bytes_per_s),
        hbm_bytes_per_s=float(run.hbm_bytes_per_s),
        bytes_per_flop=float(run.bytes_per_flop),
        limits=held,
        checks=checks(chip, table),
        ledger=lines,
        sources={id_: sources()[id_].text for line in lines for id_ in line.source},
        confidence=confidence(lines),
        missing=_missing(chip, table),
        figures=_figures(chip),
    )  # fmt: skip


def _three_forms(made: build.Dies, chip: Chip, draw: Draw) -> dict[str, float]:
    """Dies per wafer by the exact grid, and by the two closed forms for comparison."""
    if chip.wafer_scale:
        return {"grid": float(made.per_wafer)}
    diameter = draw("process/wafer_diameter_mm")
    rim = (draw("process/scribe_mm"), draw("process/edge_mm"))
    return {
        "grid": float(made.per_wafer),
        "circle": float(wafer.dies_circle(made.die_mm2, diameter)),
        "circle with streets": float(wafer.dies_circle_scribed(made.die_mm2, diameter, *rim)),
    }


def _once(chip: Chip, draw: Draw) -> Once | None:
    """Design and masks over the volume that is stated; the design as its node's, whatever the area."""
    if chip.volume_units is None:
        return None
    design, masks = draw(f"nodes/{chip.node}/design_usd"), draw(f"nodes/{chip.node}/masks_usd")
    return Once(
        design_usd=float(design),
        masks_usd=float(masks),
        units=chip.volume_units,
        usd_per_unit=float(design + masks) / chip.volume_units,
    )


def _price_usd(chip: Chip, unit_usd: Floats) -> float | None:
    return None if chip.gross_margin is None else float(package.price_usd(unit_usd, exact(chip.gross_margin)))


def _street_usd(chip: Chip) -> float | None:
    known = catalog().chips
    price = known[chip.id].chip_price_usd if chip.id in known else None
    return price.value if price else None


def checks(chip: Chip, table: Constants) -> tuple[Check, ...]:
    """Area, power and bytes per FLOP from the blocks alone, beside those of the real chip; nothing for new chips."""
    known = catalog().chips
    if chip.id not in known and chip.real is None:
        return ()
    draw = Draw(table)
    run = build.speeds(chip, draw, stated=False)
    watts = build.speeds(chip, draw).power_w
    real = _real(chip)
    return (
        Check(what="area", modelled=float(build.area(chip, draw).total()), real=real[0], unit="mm2",
              why_not="" if real[0] else "no die size is public"),
        Check(what="power", modelled=None if watts is None else float(watts), real=real[1], unit="W",
              why_not=_why_no_power(chip, watts is None, real[1])),
        Check(what="bytes per FLOP", modelled=float(run.bytes_per_flop), real=real[2], unit="byte/FLOP",
              why_not="" if real[2] else "no bandwidth is public"),
    )  # fmt: skip


def _why_no_power(chip: Chip, unknown: bool, real: float | None) -> str:
    said = [f"no public energy of a FLOP on {chip.node}"] if unknown else []
    return "; ".join(said + ([] if real else ["no power is public"]))


def _real(chip: Chip) -> tuple[float | None, float | None, float | None]:
    """Area, power and bytes per FLOP of the chip as it exists."""
    flop = chip.tflops * build.TERA
    if chip.real is not None:
        hbm = chip.real.hbm_tb_per_s
        return chip.real.area_mm2, chip.real.tdp_w, None if hbm is None else hbm * build.TERA / flop
    record = catalog().chips[chip.id]
    rate = record.mem_bytes_per_s if chip.stacks else record.sram_bytes_per_s
    return (
        record.die_area_m2.value * build.MEGA if record.die_area_m2 else None,
        record.tdp_w.value if record.tdp_w else None,
        rate.value / flop if rate else None,
    )


def _figures(chip: Chip) -> tuple[str, ...]:
    """Figures of the catalogue that stand in the answer."""
    known = catalog().chips
    if chip.id not in known:
        return ()
    rate = "mem_bytes_per_s" if chip.stacks else "sram_bytes_per_s"
    names = ("chip_price_usd", *(() if chip.real else ("die_area_m2", "tdp_w", rate)))
    return tuple(f"chips/{chip.id}/{name}" for name in names if getattr(known[chip.id], name) is not None)


def _missing(chip: Chip, table: Constants) -> tuple[str, ...]:
    """What this answer leaves out for want of a public figure."""
    said = []
    if chip.package == "none":
        said.append("packaging, cooling and connectors: no public figure")
    if f"nodes/{chip.node}/joule_per_flop" not in table:
        said.append(f"power: no public energy of a FLOP on {chip.node}")
    if chip.node not in anchored():
        said.append(f"areas and power on {chip.node} are scaled: no real chip on it to hold them against")
    if chip.stacks == 0 and chip.sram_tb_per_s is None:
        said.append("bandwidth of SRAM follows from its size, as on three chips that exist")
    return tuple(said)
