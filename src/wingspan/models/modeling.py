"""The reference architecture as a transformers model: attention, dense layers first, MoE layers after.

Attention, rotary embedding, norm, router and the two `forward` loops are transformers' own (Mixtral's); this
file says only what differs: which layers are dense, plain or gated MLPs, and shared experts.

Parameter paths: `model.layers.N.mlp.gate` (router) and `model.layers.N.mlp.experts` in MoE layers,
`model.layers.N.mlp.{up,gate,down}_proj` in dense ones. Shapes: B sequences, S positions, T = B x S tokens,
K experts per token, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.models.mixtral.modeling_mixtral import (
    MixtralAttention,
    MixtralDecoderLayer,
    MixtralForCausalLM,
    MixtralModel,
    MixtralPreTrainedModel,
    MixtralRMSNorm,
    MixtralRotaryEmbedding,
    MixtralTopKRouter,
)
from transformers.utils.output_capturing import OutputRecorder

from wingspan.models.configuration import WingspanMoeConfig
from wingspan.models.experts import GatedExperts, PlainExperts, build_experts


class WingspanMoeMLP(nn.Module):
    """The MLP of a dense layer or of the shared experts: two matrices, or three with `gated_experts`."""

    def __init__(self, config: WingspanMoeConfig, intermediate_size: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, config.hidden_size, bias=False)
        self.gate_proj = (
            nn.Linear(config.hidden_size, intermediate_size, bias=False) if config.gated_experts else None
        )
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        if self.gate_proj is None:
            return self.down_proj(self.act_fn(self.up_proj(hidden)))
        return self.down_proj(self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden))


class WingspanMoeBlock(nn.Module):
    """Router, routed experts and, by option, shared experts.

    The router takes the softmax over all experts in FP32, keeps the top k and divides their weights by their
    sum, so that each token's weights sum to 1.
    """

    def __init__(self, config: WingspanMoeConfig) -> None:
        super().__init__()
        self.gate = MixtralTopKRouter(config)
        self.experts = build_experts(config)
        shared_size = config.n_shared_experts * config.moe_intermediate_size
        self.shared_experts = WingspanMoeMLP(config, shared_size) if shared_size else None

    def forward(self, hidden_BSD: Tensor) -> Tensor:
        """Map (B, S, D) to (B, S, D)."""
        hidden_TD = hidden_BSD.flatten(0, 1)
        _, weights_TK, experts_TK = self.gate(hidden_TD)
        out_TD = self.experts(hidden_TD, experts_TK, weights_TK)
        if self.shared_experts is not None:
            out_TD = out_TD + self.shared_experts(hidden_TD)
        return out_TD.view_as(hidden_BSD)


def build_mlp(config: WingspanMoeConfig, layer_idx: int) -> WingspanMoeMLP | WingspanMoeBlock:
    """What follows attention in layer `layer_idx`: a dense MLP in the first layers, experts in the rest."""
    if config.is_dense(layer_idx):
        return WingspanMoeMLP(config, config.intermediate_size)
    return WingspanMoeBlock(config)


class WingspanMoeDecoderLayer(MixtralDecoderLayer):
    """One layer: attention, then a dense MLP or the experts, each behind its norm and added to its input."""

    def __init__(self, config: WingspanMoeConfig, layer_idx: int) -> None:
        # Past Mixtral's own constructor, here and below: it would build an MoE block only to throw it away.
        GradientCheckpointingLayer.__init__(self)
        self.self_attn = MixtralAttention(config, layer_idx)  # type: ignore[arg-type]
        self.mlp = build_mlp(config, layer_idx)  # type: ignore[assignment]
        self.input_layernorm = MixtralRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = MixtralRMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class WingspanMoePreTrainedModel(MixtralPreTrainedModel):
    """What the model tells transformers about itself, and how fresh weights are drawn."""

    config: WingspanMoeConfig  # type: ignore[assignment]
    config_class = WingspanMoeConfig
    _no_split_modules = ["WingspanMoeDecoderLayer"]  # noqa: RUF012 - transformers' own class attributes
    _can_record_outputs = {  # noqa: RUF012
        "router_logits": OutputRecorder(MixtralTopKRouter, index=0),
        "hidden_states": WingspanMoeDecoderLayer,
        "attentions": MixtralAttention,
    }

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        # transformers guesses from the text of this file, and the decorated experts are in another.
        return True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PlainExperts | GatedExperts):
            for parameter in module.parameters(recurse=False):
                init.normal_(parameter, mean=0.0, std=self.config.initializer_range)


class WingspanMoeModel(WingspanMoePreTrainedModel, MixtralModel):  # type: ignore[misc]
    """Embedding, layers and the last norm; `forward` is Mixtral's (causal mask, cache, layer loop)."""

    def __init__(self, config: WingspanMoeConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList(
            WingspanMoeDecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = MixtralRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = MixtralRotaryEmbedding(config=config)  # type: ignore[arg-type]
        self.gradient_checkpointing = False
        self.post_init()


class WingspanMoeForCausalLM(WingspanMoePreTrainedModel, MixtralForCausalLM):  # type: ignore[misc]
    """The model with its output head; `forward` (logits, loss, load-balancing loss) is Mixtral's."""

    def __init__(self, config: WingspanMoeConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self.model = WingspanMoeModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.router_aux_loss_coef = config.router_aux_loss_coef
        self.num_experts = config.num_experts
        self.num_experts_per_tok = config.num_experts_per_tok
        self.post_init()
