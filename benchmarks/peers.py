"""One MoE layer by others' means, for comparison: every peer maps (x_TD, experts_TK, weights_TK) to (T, D).

Shapes: T tokens, K experts per token, D hidden size, R ranks, E experts, S experts of a rank, N rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from transformers import MixtralConfig
from transformers.distributed.expert_parallel import AllToAllEP
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

Layer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def experts_module(gate_up_EID: torch.Tensor, down_EDI: torch.Tensor, implementation: str) -> nn.Module:
    """transformers' gated experts over these weights."""
    config = MixtralConfig(
        hidden_size=down_EDI.shape[1], intermediate_size=down_EDI.shape[2], num_local_experts=len(down_EDI)
    )
    config._experts_implementation = implementation
    with torch.device("meta"):
        module = MixtralExperts(config)
    module.gate_up_proj = nn.Parameter(gate_up_EID, requires_grad=False)
    module.down_proj = nn.Parameter(down_EDI, requires_grad=False)
    return module


def all_to_all_ep(gate_up_SID: torch.Tensor, down_SDI: torch.Tensor, implementation: str) -> Layer:
    """transformers' own expert parallelism; the process group must be there, S the same on every rank."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("ep", "tp"))
    return AllToAllEP(experts_module(gate_up_SID, down_SDI, implementation), mesh["ep"], mesh["tp"])


def everything_here(gate_up_EID: torch.Tensor, down_EDI: torch.Tensor, implementation: str) -> Layer:
    """All experts in this process: nothing travels."""
    return experts_module(gate_up_EID, down_EDI, implementation)


def naive(gate_up_SID: torch.Tensor, down_SDI: torch.Tensor) -> Layer:
    """The plain sequence: argsort, `all_to_all_single`, a loop over the experts, and back."""
    R, S = dist.get_world_size(), len(down_SDI)

    def layer(x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
        T, K = experts_TK.shape
        order = torch.argsort(experts_TK.flatten())
        rows = x_TD[order // K]
        counts_RS = torch.bincount(experts_TK.flatten(), minlength=R * S).view(R, S)
        arriving_RS = torch.empty_like(counts_RS)
        dist.all_to_all_single(arriving_RS, counts_RS)
        sent, received = counts_RS.sum(1).tolist(), arriving_RS.sum(1).tolist()
        rows_ND = x_TD.new_empty((sum(received), x_TD.shape[1]))
        dist.all_to_all_single(rows_ND, rows, received, sent)
        slot_N = torch.arange(S).repeat(R).repeat_interleave(arriving_RS.flatten())
        out_ND = torch.empty_like(rows_ND)
        for s in range(S):
            of_slot = (slot_N == s).nonzero().flatten()
            gate_NI, up_NI = F.linear(rows_ND[of_slot], gate_up_SID[s]).chunk(2, -1)
            out_ND[of_slot] = F.linear(F.silu(gate_NI) * up_NI, down_SDI[s])
        back = torch.empty_like(rows)
        dist.all_to_all_single(back, out_ND, sent, received)
        unsorted = torch.empty_like(back)
        unsorted[order] = back
        return (unsorted.view(T, K, -1) * weights_TK[..., None]).sum(1).to(x_TD.dtype)

    return layer
