"""How each kind of experts module holds its weights and is called: a row for each.

Most modules are served by transformers' experts registry, whose flags say how they are laid out; theirs is one row that
is read off the flags. A module outside the registry has a row of its own in `OUTSIDE_REGISTRY`.

Shapes: B sequences, T tokens, K experts per token, D hidden size, I intermediate size, N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from wingspan.runtime.model.layer import ExpertParallelLayer

Activate = Callable[[Any, Sequence[torch.Tensor]], torch.Tensor]
"""What stands between the matrices: of the module and what its first ones gave, what the last one takes (N, I)."""

Call = Callable[..., Any]
"""Stands for the module's forward: takes the module, its `ExpertParallelLayer`, and what the forward takes."""


@dataclass(frozen=True)
class Matrices:
    """One matrix of every expert, in one parameter.

    Args:
        name: of the parameter, below the module.
        transposed: an expert's matrix is (inputs, outputs), not (outputs, inputs).
        bias: name of the parameter with one bias per expert; None: there is none.
        rows: of the parameter that one expert has, where it has two axes and no axis of experts.
    """

    name: str
    transposed: bool = False
    bias: str | None = None
    rows: Callable[[Any], int] | None = None


@dataclass(frozen=True)
class ExpertsRow:
    """What is to be known of a kind of experts module.

    Args:
        ups: the matrices that take a token's hidden state: one, or gate and up.
        down: the matrices that give the experts' outputs.
        activate: stands between them.
        gated: it multiplies by an activated gate.
        finish: changes the outputs (N, D); None: they stay as they are.
        count: name of the attribute that says how many experts there are.
        idle: name of the attribute that says how many further experts a router can pick that compute nothing.
        call: None: transformers' registry calls us instead of the module.
        is_block: the module is the whole block, with router and shared experts.
        dense: modules of the block that are a dense MLP beside the experts.
        mixes_tokens: a token's choice depends on the tokens beside it.
    """

    ups: tuple[Matrices, ...]
    down: Matrices
    activate: Activate
    gated: bool = True
    finish: Callable[[Any, torch.Tensor], torch.Tensor] | None = None
    count: str = "num_experts"
    idle: str | None = None
    call: Call | None = None
    is_block: bool = False
    dense: tuple[str, ...] = ()
    mixes_tokens: bool = False

    @property
    def matrices(self) -> tuple[Matrices, ...]:
        """All of them."""
        return (*self.ups, self.down)


def row_of(module: nn.Module) -> ExpertsRow | None:
    """The row of an experts module; None for any other module."""
    if hasattr(module, "is_concatenated") and hasattr(module, "num_experts"):
        return _row_of_flags(module)
    kind = type(module)
    return OUTSIDE_REGISTRY.get(kind.__name__) if kind.__module__.startswith("transformers.models.") else None


def need_row(module: nn.Module) -> ExpertsRow:
    """The row of a module that is known to be an experts module."""
    row = row_of(module)
    if row is None:
        raise TypeError(f"{type(module).__name__} holds no experts that are known")
    return row


def experts_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every experts module of the model by its path, in layer order."""
    for path, module in model.named_modules():
        if row_of(module) is not None:
            yield path, module


def count_of(module: nn.Module) -> int:
    """Logical experts of an experts module."""
    return int(_attribute(module, need_row(module).count))


def idle_of(module: nn.Module) -> int:
    """Experts beyond these that a router can pick and that compute nothing: they give a token back as it is."""
    idle = need_row(module).idle
    return 0 if idle is None else int(_attribute(module, idle))


def block_path(path: str, module: nn.Module) -> str:
    """The path of the block of an experts module: router, experts, shared experts."""
    return path if need_row(module).is_block else path.rpartition(".")[0]


def rows_per_expert(module: nn.Module) -> dict[str, int]:
    """The parameters that hold experts, by their names below the module; rows of one expert along the first axis."""
    found = {}
    for matrices in need_row(module).matrices:
        found[matrices.name] = 1 if matrices.rows is None else matrices.rows(module)
        if matrices.bias is not None:
            found[matrices.bias] = 1
    return found


@dataclass(frozen=True)
class ExpertsParameter:
    """A parameter with all experts of a layer.

    Args:
        path: of the experts module.
        rows: of one expert, along the first axis.
    """

    path: str
    rows: int


def experts_parameters(model: nn.Module, paths: Iterable[str]) -> dict[str, ExpertsParameter]:
    """The parameters that hold the experts of the modules at these paths, by their names in the model."""
    return {
        f"{path}.{name}": ExpertsParameter(path, rows)
        for path in paths
        for name, rows in rows_per_expert(model.get_submodule(path)).items()
    }


def cut_idle(model: nn.Module) -> None:
    """Leave out the weights of experts that compute nothing: some modules have room for them.

    Args:
        model: without memory behind its parameters.
    """
    for path, module in experts_modules(model):
        for name, rows in rows_per_expert(module).items():
            if len(module.get_parameter(name)) != count_of(module) * rows:
                cut_rows(model, f"{path}.{name}", count_of(module) * rows)


def cut_rows(model: nn.Module, name: str, rows: int) -> None:
    """Let a parameter have so many rows along its first axis, without memory behind them; with none, none is needed."""
    owner, own = owner_of(model, name)
    parameter = owner._parameters[own]
    device = "meta" if rows else "cpu"
    owner._parameters[own] = nn.Parameter(
        torch.empty((rows, *parameter.shape[1:]), dtype=parameter.dtype, device=device)
    )


def owner_of(module: nn.Module, name: str) -> tuple[Any, str]:
    """The module that has a parameter of this name below `module`, and the parameter's own name in it."""
    path, _, own = name.rpartition(".")
    return module.get_submodule(path), own


def _attribute(module: nn.Module, name: str) -> Any:
    owner, own = owner_of(module, name)
    return getattr(owner, own)


def _row_of_flags(module: Any) -> ExpertsRow:
    """As transformers' `use_experts_implementation` writes them down."""

    def matrices(name: str) -> Matrices:
        return Matrices(name, bool(module.is_transposed), f"{name}_bias" if module.has_bias else None)

    return ExpertsRow(
        (matrices("gate_up_proj" if module.has_gate else "up_proj"),),
        matrices("down_proj"),
        _apply_gate if module.has_gate else _activated,
        bool(module.has_gate),
        # Not in transformers 5.17.
        (lambda module, out_ND: module.post_expert_norm(out_ND))
        if getattr(module, "has_post_expert_norm", False)
        else None,
    )


def _apply_gate(module: Any, hidden: Sequence[torch.Tensor]) -> torch.Tensor:
    activated: torch.Tensor = module._apply_gate(hidden[0])
    return activated


def _activated(module: Any, hidden: Sequence[torch.Tensor]) -> torch.Tensor:
    activated: torch.Tensor = module.act_fn(hidden[0])
    return activated


def _gated(activation: str) -> Activate:
    """The activated gate times the rest, from two matrices or from halves of one."""

    def activate(module: Any, hidden: Sequence[torch.Tensor]) -> torch.Tensor:
        gate_NI, up_NI = hidden if len(hidden) == 2 else hidden[0].chunk(2, dim=-1)
        activated_NI: torch.Tensor = _attribute(module, activation)(gate_NI) * up_NI
        return activated_NI

    return activate


def _as_registry(
    _: Any,
    layer: ExpertParallelLayer,
    hidden: torch.Tensor,
    experts_TK: torch.Tensor,
    weights_TK: torch.Tensor,
) -> torch.Tensor:
    """A module that is called as the registry's are, with hidden states flat or by sequence."""
    return layer(hidden.reshape(-1, hidden.shape[-1]), experts_TK, weights_TK).view_as(hidden)


def _longcat(
    module: Any,
    layer: ExpertParallelLayer,
    hidden_TD: torch.Tensor,
    experts_TK: torch.Tensor,
    weights_TK: torch.Tensor,
) -> torch.Tensor:
    """Some picks are of experts that compute nothing: these rows stay at home."""
    rows_TKD = hidden_TD[:, None].expand(-1, experts_TK.shape[1], -1)
    computed_TK = experts_TK < module.num_routed_experts
    out_TKD = layer.of_picks(hidden_TD, rows_TKD, experts_TK, computed_TK)
    out_TKD = torch.where(computed_TK[..., None], out_TKD, rows_TKD)
    return (out_TKD * weights_TK[..., None]).sum(1).to(hidden_TD.dtype)


def _llama4(
    block: Any, layer: ExpertParallelLayer, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token is multiplied by its weight before the expert, so each pick is a row of its own."""
    hidden_TD = hidden.reshape(-1, block.hidden_dim)
    scores_TE, logits_TE = block.router(hidden_TD)
    weights_TK, experts_TK = scores_TE.topk(block.top_k, dim=1)
    rows_TKD = hidden_TD[:, None] * weights_TK[..., None]
    routed_TD = layer.of_picks(hidden_TD, rows_TKD, experts_TK).sum(1)
    return block.shared_expert(hidden_TD) + routed_TD, logits_TE


def _jetmoe(block: Any, layer: ExpertParallelLayer, hidden_BTD: torch.Tensor) -> torch.Tensor:
    """The router sorts what it chose; its logits, which it gives too, say what that was."""
    hidden_TD = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
    *_, logits_TE = block.router(hidden_TD)
    logits_TK, experts_TK = logits_TE.topk(block.router.top_k, dim=1)
    weights_TK = logits_TK.softmax(1).type_as(hidden_TD)
    return (layer(hidden_TD, experts_TK, weights_TK) + block.bias).view_as(hidden_BTD)


def _doge(
    block: Any, layer: ExpertParallelLayer, hidden_BTD: torch.Tensor, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """An expert is found by two keys. The model takes a sequence's first half of scores as those of the first key.

    So a token's choice depends on the length of its sequence; of a batch each sequence is routed by itself.
    """
    keys, (B, T, D) = block.num_keys, hidden_BTD.shape
    scores_2BTP = block.router_gate(hidden_BTD).view(B, 2, T, keys).transpose(0, 1)
    (first, second), (at_first, at_second) = scores_2BTP.topk(keys, dim=-1)
    sums = (first[..., :, None] + second[..., None, :]).flatten(-2)
    experts = (at_first[..., :, None] * keys + at_second[..., None, :]).flatten(-2)
    chosen, places = sums.topk(block.top_k, dim=-1)
    weights = chosen.softmax(-1)
    if block.norm_topk_prob:
        weights = weights / weights.sum(-1, keepdim=True)
    experts_TK = experts.gather(-1, places).reshape(B * T, -1)
    routed_TD = layer(hidden_BTD.reshape(-1, D), experts_TK, weights.reshape(B * T, -1))
    shared_BTD = block.down_proj(block.act_fn(block.gate_proj(hidden_BTD)) * block.up_proj(hidden_BTD))
    return shared_BTD + routed_TD.view_as(hidden_BTD), scores_2BTP.flatten(1, 2)


def _dbrx_width(module: Any) -> int:
    return int(module.ffn_hidden_size)


def _one_row(_: Any) -> int:
    return 1


OUTSIDE_REGISTRY: dict[str, ExpertsRow] = {
    "DbrxExperts": ExpertsRow(
        (Matrices("mlp.w1", rows=_dbrx_width), Matrices("mlp.v1", rows=_dbrx_width)),
        Matrices("mlp.w2", transposed=True, rows=_dbrx_width),
        _gated("mlp.activation_fn"),
        call=_as_registry,
    ),
    # An expert is one row each way.
    "DogeCDMoE": ExpertsRow(
        (Matrices("down_embed.weight", rows=_one_row),),
        Matrices("up_embed.weight", transposed=True, rows=_one_row),
        _activated,
        gated=False,
        call=_doge,
        is_block=True,
        dense=("gate_proj", "up_proj", "down_proj"),
        mixes_tokens=True,
    ),
    "JetMoeMoE": ExpertsRow(
        (Matrices("input_linear.weight"),),
        Matrices("output_linear.weight"),
        _gated("activation"),
        count="router.num_experts",
        call=_jetmoe,
        is_block=True,
    ),
    "Llama4TextMoe": ExpertsRow(
        (Matrices("experts.gate_up_proj", transposed=True),),
        Matrices("experts.down_proj", transposed=True),
        _gated("experts.act_fn"),
        call=_llama4,
        is_block=True,
    ),
    "LongcatFlashExperts": ExpertsRow(
        (Matrices("gate_up_proj"),),
        Matrices("down_proj"),
        _gated("act_fn"),
        count="num_routed_experts",
        idle="zero_expert_num",
        call=_longcat,
    ),
    "Step3p7Experts": ExpertsRow(
        (Matrices("gate_up_proj"),), Matrices("down_proj"), _apply_gate, call=_as_registry
    ),
}
"""By the name of transformers' class."""
