"""A fault of the catalogue: which rule is broken where, by which value, and how to mend it."""

from __future__ import annotations

import msgspec

from infermix.catalog.records import Figure

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One broken rule. ``figures`` are the ids of the figures that contradict each other, the suspect first."""

    rule: str
    file: str
    record: str
    field: str
    what: str
    value: str = ""
    allowed: str = ""
    mend: str = ""
    figures: tuple[str, ...] = ()

    def line(self) -> str:
        """The fault in one line: file, record, field, what is wrong, value, what is allowed, how to mend it.

        >>> Fault(rule="r", file="chips/a.toml", record="chips/a", field="tdp_w", what="no", value="1 W").line()
        'chips/a.toml: chips/a: tdp_w: no; got 1 W [r]'
        """
        parts = [": ".join(part for part in (self.file, self.record, self.field, self.what) if part)]
        parts += [f"{word}{text}" for word, text in (("got ", self.value), ("allowed: ", self.allowed)) if text]
        parts += [self.mend] if self.mend else []
        return "; ".join(parts) + f" [{self.rule}]"


def said(quantity: float | Figure, unit: str = "") -> str:
    """A number or a figure as people say it.

    >>> said(4.8e12, "byte/s"), said(8.14e-4, "m2"), said(3e-6, "s"), said(0.5)
    ('4.8 TB/s', '814 mm2', '3 us', '0.5')
    """
    value = quantity.value if isinstance(quantity, Figure) else quantity
    unit = quantity.unit if isinstance(quantity, Figure) else unit
    if unit == "m2":
        value, unit = value * 1e6, "mm2"
    if unit in ("mm2", "1", "", "chips", "tokens/s") or unit.startswith("USD"):
        return f"{value:,.6g} {unit if unit != '1' else ''}".strip()
    scale, prefix = next(((s, p) for s, p in (_SMALL if unit == "s" else _PREFIXES) if abs(value) >= s), (1.0, ""))
    return f"{value / scale:,.5g} {prefix}{unit.replace('byte', 'B')}".strip()
