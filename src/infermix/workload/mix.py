"""A class whose requests come from several sources, each with its share."""

from __future__ import annotations

from dataclasses import dataclass

from infermix.workload.rows import Rows, Source, joined


@dataclass(frozen=True)
class Mix:
    """Sources that are offered together; each one's rate is its share of the class's."""

    parts: tuple[Source, ...]

    @property
    def rate_per_s(self) -> float:
        """Mean rate of all parts [1/s]."""
        return sum(part.rate_per_s for part in self.parts)

    @property
    def once_s(self) -> float:
        """Horizon in which every recorded part is offered once [s]."""
        return max(part.once_s for part in self.parts)

    @property
    def dispersion(self) -> float:
        """The largest of the parts'."""
        return max(part.dispersion for part in self.parts)

    @property
    def repairs(self) -> dict[str, int]:
        """Repairs of all parts, added up."""
        total: dict[str, int] = {}
        for part in self.parts:
            for name, n in part.repairs.items():
                total[name] = total.get(name, 0) + n
        return total

    def rows(self, horizon_s: float, seed: int) -> Rows:
        """Requests that arrive in [0, horizon)."""
        return joined([part.rows(horizon_s, seed) for part in self.parts])
