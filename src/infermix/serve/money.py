"""What a request costs: by the token where the backend bills so, else the price of the time it takes of an instance."""

from __future__ import annotations

from math import isfinite

from infermix.serve.config import Backend
from infermix.serve.live import Live, Placed


def cost_usd(live: Live, placed: Placed, input_tokens: int, cached_tokens: int, output_tokens: float) -> float | None:
    """The price of an answer of so many tokens; None where no price is known."""
    backend = live.backends[placed.instance]
    billed = billed_usd(backend, input_tokens, cached_tokens, output_tokens)
    if billed is not None:
        return billed
    ask = placed.ask._replace(
        input_tokens=input_tokens, cached_tokens=cached_tokens, typical_output_tokens=float(output_tokens)
    )
    usd = live.chooser.price(live.view, ask, placed.instance)
    return usd if isfinite(usd) else None


def expected_usd(live: Live, placed: Placed) -> float | None:
    """The price of an answer of typical length; None where no price is known."""
    ask = placed.ask
    backend = live.backends[placed.instance]
    billed = billed_usd(backend, ask.input_tokens, ask.cached_tokens, ask.typical_output_tokens)
    usd = placed.estimate.usd if billed is None else billed
    return usd if isfinite(usd) else None


def billed_usd(backend: Backend, input_tokens: int, cached_tokens: int, output_tokens: float) -> float | None:
    """List price of the tokens; None where the backend is not billed by the token.

    >>> api = Backend(url="https://api.example", name="a", model="m", usd_per_mtok_input=1.0, usd_per_mtok_output=4.0)
    >>> billed_usd(api, 500_000, 0, 250_000)
    1.5
    """
    if backend.usd_per_mtok_output is None or backend.usd_per_hour is not None:
        return None
    inputs = backend.usd_per_mtok_input or 0.0
    cached = inputs if backend.usd_per_mtok_cached is None else backend.usd_per_mtok_cached
    read = (input_tokens - cached_tokens) * inputs + cached_tokens * cached
    return (read + output_tokens * backend.usd_per_mtok_output) * 1e-6
