"""Mistral Large 4: chosen tokens without compressed queries, layers without places, rows that layers share."""

from __future__ import annotations

from wingspan.errors import InputError
from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import latent
from wingspan.specs.families.reader import Reader
from wingspan.specs.families.sparse import chosen
from wingspan.specs.mixers import Mixer


def mistral_large_latent(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:  # noqa: ARG001 - a hook's form
    """One layer's attention.

    Raises:
        InputError: a field is missing or unfit.
    """
    plain = latent(Reader({**reader.config, "q_lora_rank": None}, reader.source))
    own = _source(reader, layer) == layer
    # A scale and a bias per head, before the softmax.
    extra = (plain.extra_parameters if own else plain.extra_parameters - plain.kv_rank) + 2 * plain.heads
    changes: dict[str, object] = {"extra_parameters": extra, "own_cache": own}
    if not _has_places(reader, layer):
        changes |= {"nope_dim": plain.nope_dim + plain.rope_dim, "rope_dim": 0}
    found = chosen(reader, plain.model_copy(update=changes), layer)
    if found.index is None:
        return (found,)
    # A norm with a bias of what the index's queries are made from, and their scales and biases.
    beside = 2 * reader.integer("hidden_size") + 2 * found.index.heads
    return (found.model_copy(update={"extra_parameters": found.extra_parameters + beside}),)


def _has_places(reader: Reader, layer: int) -> bool:
    each = reader.listed("no_rope_layers", of=int)
    if each is not None and layer < len(each):
        return bool(each[layer])
    return (layer + 1) % max(1, reader.integer("no_rope_layer_interval", default=4)) != 0


def _source(reader: Reader, layer: int) -> int:
    """The layer whose compressed rows it reads."""
    each = reader.listed("kv_source_layers", of=int)
    source = each[layer] if each is not None and layer < len(each) else layer
    if not 0 <= source <= layer:
        raise InputError(
            f"{reader.source}: kv_source_layers: layer {layer} reads of layer {source}, which is not before it"
        )
    return int(source)
