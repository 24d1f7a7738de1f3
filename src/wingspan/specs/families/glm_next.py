"""GLM-5-Next: Kimi delta attention, and every fourth layer latent attention whose index scores pools of tokens."""

from __future__ import annotations

from wingspan.specs.families.family import Family
from wingspan.specs.families.linear import delta_attention_of, is_linear
from wingspan.specs.families.mixers import latent
from wingspan.specs.families.reader import Reader
from wingspan.specs.families.sparse import chosen
from wingspan.specs.families.streams import averaged_streams
from wingspan.specs.mixers import LatentAttention, Mixer


def glm_next(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - a hook's form
    """One layer's mixer of tokens, and what mixes its streams.

    Raises:
        InputError: a field is missing or unfit.
    """
    linear = is_linear(reader, layer, lambda n: n % 4 != 3)
    tokens: Mixer = delta_attention_of(reader) if linear else _pooled(reader, layer)
    return (tokens, averaged_streams(reader, layer))


def _pooled(reader: Reader, layer: int) -> LatentAttention:
    found = chosen(reader, latent(reader), layer)
    pool = reader.integer("index_kpool", default=1) or 1
    if found.index is None:
        return found
    width = found.index.head_dim
    tail = pool - 1 if reader.flag("index_kpool_always_select_tail", default=True) else 0
    index = found.index.model_copy(
        update={"block_tokens": pool, "top_tokens": found.index.top_tokens + tail, "gated": True}
    )
    # A bias per place in a pool.
    return found.model_copy(
        update={"index": index, "extra_parameters": found.extra_parameters + pool * width}
    )
