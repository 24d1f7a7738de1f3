"""The mixers of tokens: each kind owns its parameters, its cache, its arithmetic. No other room asks for the kind."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from wingspan.specs.mixers.compressed import CompressedAttention
from wingspan.specs.mixers.heads import Convolution, HeadAttention
from wingspan.specs.mixers.index import TokenIndex
from wingspan.specs.mixers.latent import LatentAttention
from wingspan.specs.mixers.linear import LinearMixer
from wingspan.specs.mixers.streams import StreamMixer

Mixer = Annotated[
    HeadAttention | LatentAttention | CompressedAttention | LinearMixer | StreamMixer,
    Field(discriminator="kind"),
]

__all__ = [
    "CompressedAttention",
    "Convolution",
    "HeadAttention",
    "LatentAttention",
    "LinearMixer",
    "Mixer",
    "StreamMixer",
    "TokenIndex",
]
