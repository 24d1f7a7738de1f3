"""What tokens cost, from what a GPU costs."""

from __future__ import annotations


def price_per_million_tokens(price_per_gpu_hour: float, tokens_per_second_per_gpu: float) -> float:
    """The price of a million tokens, in the currency of the price of a GPU hour."""
    return price_per_gpu_hour / 3600 / tokens_per_second_per_gpu * 1e6
