"""Latent attention that reads the tokens an index chooses."""

from __future__ import annotations

from wingspan.limits import MOST_CONTEXT
from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import latent
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import LatentAttention, Mixer
from wingspan.specs.reading import parse


def indexed_latent(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - a hook's form
    """DeepSeek sparse attention: every layer has an index, or takes the choice of the last one that has."""
    plain, top = latent(reader), reader.integer("index_topk", most=MOST_CONTEXT)
    if not _has_index(reader, layer):
        return (plain.model_copy(update={"shared_top_tokens": top}),)
    width = reader.integer("index_head_dim")
    return (
        parse(
            LatentAttention,
            {
                **plain.model_dump(),
                "index": {
                    "heads": reader.integer("index_n_heads"),
                    "head_dim": width,
                    "top_tokens": top,
                },
                # The index's key has a norm with a bias.
                "extra_parameters": plain.extra_parameters + 2 * width,
            },
            reader.source,
        ),
    )


def _has_index(reader: Reader, layer: int) -> bool:
    """Whether a layer chooses for itself: by a list, by letters F and S, or by its place."""
    kinds = reader.listed("indexer_types", of=str)
    if kinds is not None:
        return layer >= len(kinds) or kinds[layer] != "shared"
    pattern = reader.optional("index_topk_pattern")
    if isinstance(pattern, str) and pattern:
        return pattern[layer % len(pattern)] != "S"
    every = max(1, reader.integer("index_topk_freq", default=1))
    offset = reader.integer("index_skip_topk_offset", default=2)
    return max(layer - offset + 1, 0) % every == 0
