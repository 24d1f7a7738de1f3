"""One MoE layer by others' means, for comparison: every peer maps (x_TD, experts_TK, weights_TK) to (T, D).

Shapes: T tokens, K experts per token, D hidden size, R ranks, E experts, S experts of a rank, N rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from transformers.distributed.expert_parallel import AllToAllEP

from benchmarks.experts import experts_module
from benchmarks.plain import plain_sequence

Layer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def all_to_all_ep(gate_up_SID: torch.Tensor, down_SDI: torch.Tensor, implementation: str) -> Layer:
    """transformers' own expert parallelism; the process group must be there, S the same on every rank."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("ep", "tp"))
    return AllToAllEP(experts_module(gate_up_SID, down_SDI, implementation), mesh["ep"], mesh["tp"])


def everything_here(gate_up_EID: torch.Tensor, down_EDI: torch.Tensor, implementation: str) -> Layer:
    """All experts in this process: nothing travels."""
    return experts_module(gate_up_EID, down_EDI, implementation)


def naive(gate_up_SID: torch.Tensor, down_SDI: torch.Tensor) -> Layer:
    """The plain sequence, with a loop over the experts."""
    S = len(down_SDI)

    def experts(rows_ND: torch.Tensor, arriving_RS: torch.Tensor) -> torch.Tensor:
        slot_N = torch.arange(S).repeat(len(arriving_RS)).repeat_interleave(arriving_RS.flatten())
        out_ND = torch.empty_like(rows_ND)
        for s in range(S):
            of_slot = (slot_N == s).nonzero().flatten()
            gate_NI, up_NI = F.linear(rows_ND[of_slot], gate_up_SID[s]).chunk(2, -1)
            out_ND[of_slot] = F.linear(F.silu(gate_NI) * up_NI, down_SDI[s])
        return out_ND

    return plain_sequence(experts, S)
