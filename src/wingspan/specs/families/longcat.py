"""LongCat-Flash: two blocks of attention and two dense MLPs a layer, and experts that compute nothing."""

from __future__ import annotations

from wingspan.limits import MOST_EXPERTS
from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import latent
from wingspan.specs.families.reader import Reader
from wingspan.specs.model import DenseMlp, Experts, LayerKind
from wingspan.specs.reading import parse

_BLOCKS = 2


def longcat_layer(reader: Reader, family: Family, layer: int) -> LayerKind:  # noqa: ARG001 - a hook's form
    """One layer, whose experts work beside the first block's MLP and the second block.

    Raises:
        InputError: a field is missing or unfit.
    """
    dense = _BLOCKS * reader.integer("ffn_hidden_size", "intermediate_size")
    return LayerKind(
        mixers=(latent(reader),) * _BLOCKS,
        dense=parse(DenseMlp, {"intermediate": dense, "gated": True}, reader.source),
        experts=parse(
            Experts,
            {
                "count": reader.integer("n_routed_experts", most=MOST_EXPERTS),
                "zero": reader.integer("zero_expert_num", default=0, most=MOST_EXPERTS),
                "per_token": reader.integer("moe_topk", "num_experts_per_tok"),
                "intermediate": reader.integer("expert_ffn_hidden_size", "moe_intermediate_size"),
                "gated": True,
            },
            reader.source,
        ),
        norm_parameters=2 * _BLOCKS * reader.integer("hidden_size"),
    )
