"""Dimensions and options of the reference architecture, in the field's usual `config.json` names."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from wingspan.errors import InputError


class WingspanMoeConfig(PreTrainedConfig):
    """A decoder with multi-head attention, a few dense layers first, and MoE layers after them.

    The defaults are the dimensions of docs/reference-model.md, which leaves experts, top-k,
    vocabulary, context and activation open.

    Args:
        hidden_size: width of a token's hidden state (seed 1.2: 7168).
        num_attention_heads: query heads (seed 1.2: 128).
        num_key_value_heads: key and value heads; `None` = one per query head (the seed's).
        head_dim: width of one head (seed 1.2: 128), independent of `hidden_size`.
        num_hidden_layers: all layers (seed 1.1: 61).
        first_k_dense_replace: how many of them, from the first, are dense (seed 1.1: 3).
        intermediate_size: inner width of a dense layer's MLP (seed 1.2: 2048).
        moe_intermediate_size: inner width of one expert (seed 1.2: 2048).
        num_experts: logical experts per MoE layer.
        num_experts_per_tok: experts that each token goes to, top-k.
        n_shared_experts: experts that every token goes through, beside the routed ones; 0 = none.
        gated_experts: `False`: two matrices, `down(act(up(x)))`, the seed's 58.72 MB in BF16; `True`: three,
            `down(act(gate(x)) * up(x))`, 88.08 MB. Dense layers and shared experts follow the same choice.
        hidden_act: the activation's name in transformers.
        router_aux_loss_coef: weight of load-balancing loss (Switch Transformer, arXiv:2101.03961, eq. 4-6);
            added where `output_router_logits` and labels are given.

    Raises:
        InputError: top-k above the experts, more dense layers than layers, or heads that do not divide.
    """

    model_type = "wingspan_moe"
    keys_to_ignore_at_inference = ("past_key_values",)
    attribute_map = {"num_local_experts": "num_experts"}  # noqa: RUF012 - transformers' own class attribute

    vocab_size: int = 32000
    hidden_size: int = 7168
    intermediate_size: int = 2048
    moe_intermediate_size: int = 2048
    num_hidden_layers: int = 61
    first_k_dense_replace: int = 3
    num_attention_heads: int = 128
    num_key_value_heads: int | None = None
    head_dim: int = 128
    num_experts: int = 64
    num_experts_per_tok: int = 8
    n_shared_experts: int = 0
    gated_experts: bool = False
    hidden_act: str = "gelu"
    max_position_embeddings: int = 4096
    rope_parameters: dict[str, Any] | None = None
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False
    use_cache: bool = True
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    # transformers' shared attention and mask code asks for this; full attention is the only kind here.
    sliding_window: None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        super().__post_init__(**kwargs)
        self._check()

    def is_dense(self, layer: int) -> bool:
        """Whether layer `layer`, counted from 0, is dense (no experts)."""
        return layer < self.first_k_dense_replace

    def _check(self) -> None:
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise InputError(
                f"config: num_experts_per_tok {self.num_experts_per_tok} must lie between 1 and "
                f"num_experts {self.num_experts}"
            )
        if not 0 <= self.first_k_dense_replace <= self.num_hidden_layers:
            raise InputError(
                f"config: first_k_dense_replace {self.first_k_dense_replace} must lie between 0 and "
                f"num_hidden_layers {self.num_hidden_layers}"
            )
        if self.num_attention_heads % (self.num_key_value_heads or 1):
            raise InputError(
                f"config: num_attention_heads {self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
