"""What a class of requests earns: a price for its tokens, a price that grows with speed, and time that is saved."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np

from infermix.errors import InputError


class Worth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What serving a class brings in; ``value_of_time_usd_per_hour`` of the class comes on top."""

    input_usd_per_mtok: float = 0.0
    output_usd_per_mtok: float = 0.0
    price_curve: list[tuple[float, float]] = []
    """(tokens/s of a user, USD per million output tokens), speeds rising; straight between them on logarithmic axes."""
    reference_tokens_per_s: float | None = None
    """Speed that time is saved against, and at which the study's rates hold; the promise where not said."""
    response: float = 0.0
    """Requests that a user sends go as (speed / reference) to this power."""

    def check(self, where: str) -> None:
        """Raise InputError for prices, speeds and powers that cannot be."""
        for name in ("input_usd_per_mtok", "output_usd_per_mtok"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError("a price is finite and 0 or more", where=f"{where}.{name}", value=getattr(self, name))
        if any(not 0 < x < float("inf") for point in self.price_curve for x in point):
            raise InputError("speeds and prices are positive", where=f"{where}.price_curve", value=self.price_curve)
        if any(b[0] <= a[0] for a, b in pairwise(self.price_curve)):
            raise InputError("speeds must rise", where=f"{where}.price_curve", value=self.price_curve)
        reference = self.reference_tokens_per_s
        if reference is not None and not 0 < reference < float("inf"):
            raise InputError("must be positive", where=f"{where}.reference_tokens_per_s", value=reference)
        if not 0 <= self.response <= 2:
            raise InputError("out of range", where=f"{where}.response", value=self.response, allowed="0 to 2")

    def output_price_usd_per_mtok(self, tokens_per_s: float) -> float:
        """Price of a million output tokens at a speed; the curve's ends hold beyond it.

        >>> Worth(price_curve=[(50, 10), (200, 40)]).output_price_usd_per_mtok(100)
        20.0
        """
        if not self.price_curve:
            return self.output_usd_per_mtok
        speeds, prices = np.log(np.asarray(self.price_curve)).T
        curve = float(np.exp(np.interp(np.log(tokens_per_s), speeds, prices)))
        return self.output_usd_per_mtok + round(curve, 12)
