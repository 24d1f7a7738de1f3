"""The mixers of tokens: each kind owns its parameters, its cache, its arithmetic. No other room asks for the kind."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wingspan.specs.mixers.heads import HeadAttention
from wingspan.specs.mixers.latent import LatentAttention, TokenIndex
from wingspan.specs.mixers.linear import LinearMixer

Mixer = Annotated[HeadAttention | LatentAttention | LinearMixer, Field(discriminator="kind")]

__all__ = ["HeadAttention", "LatentAttention", "LinearMixer", "Mixer", "TokenIndex"]
