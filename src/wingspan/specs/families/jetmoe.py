"""JetMoE: experts of attention, each with heads of its own, beside those of the MLP."""

from __future__ import annotations

from wingspan.specs.families.experts import experts_of
from wingspan.specs.families.family import Family
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import HeadAttention
from wingspan.specs.model import LayerKind
from wingspan.specs.reading import parse


def jetmoe_layer(reader: Reader, family: Family, layer: int) -> LayerKind:  # noqa: ARG001 - a hook's form
    """A token's queries are those of the experts of attention that it chooses; every rank holds all of them.

    Their product is counted and priced as if those that one token chooses were all that a step reads.

    Raises:
        InputError: a field is missing or unfit.
    """
    hidden, experts = reader.integer("hidden_size"), experts_of(reader, family)
    kv_heads, width = reader.integer("num_key_value_heads"), reader.integer("kv_channels", "head_dim")
    attention = parse(
        HeadAttention,
        {
            "heads": kv_heads * experts.per_token,
            "kv_heads": kv_heads,
            "head_dim": width,
            # The router, and a bias of what is put together.
            "extra_parameters": hidden * experts.count + hidden,
            "idle_parameters": (experts.count - experts.per_token) * 2 * hidden * kv_heads * width,
        },
        reader.source,
    )
    biased = experts.model_copy(update={"router_extra_parameters": hidden})
    return LayerKind(mixers=(attention,), experts=biased, norm_parameters=2 * hidden)
