"""Step: heads that differ by layer with a gate each (3.5, 3.7), and queries that are compressed (3)."""

from __future__ import annotations

from collections.abc import Mapping

from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import heads
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import HeadAttention, Mixer
from wingspan.specs.reading import parse


def step_heads(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """Step 3.5 and 3.7: layers with a window have more heads.

    Raises:
        InputError: a field is missing or unfit.
    """
    plain = heads(_of_layer(reader, layer), family, layer)
    gate = "values" if reader.optional("gating") not in (None, True, "per-head") else "head"
    return (plain.model_copy(update={"gated_output": gate}),)


def _of_layer(reader: Reader, layer: int) -> Reader:
    """Fields as the layer has them: by its entry, or as those with a window have them."""
    kinds = reader.listed("layer_types", of=str) or []
    if reader.optional("per_layer_config") is not None or kinds[layer : layer + 1] != ["sliding_attention"]:
        return reader.of_layer(layer)
    other = reader.optional("attention_other_setting")
    own = dict(other) if isinstance(other, Mapping) else {}
    if reader.optional("num_sliding_attention_heads") is not None:
        own["num_attention_heads"] = reader.integer("num_sliding_attention_heads")
    known = {"num_attention_heads": "num_attention_heads", "num_attention_groups": "num_key_value_heads"}
    return Reader(
        {**reader.config, **{known[name]: value for name, value in own.items() if name in known}},
        reader.source,
    )


def factored_heads(reader: Reader, family: Family, layer: int) -> tuple[Mixer, ...]:
    """Step 3: multi-matrix factorization attention (arXiv:2507.19427), queries of a low rank behind a norm.

    Raises:
        InputError: a field is missing or unfit.
    """
    plain, rank = heads(reader, family, layer), reader.integer("share_q_dim")
    extra = plain.extra_parameters + rank
    return (
        parse(
            HeadAttention,
            {**plain.model_dump(), "query_rank": rank, "extra_parameters": extra},
            reader.source,
        ),
    )
