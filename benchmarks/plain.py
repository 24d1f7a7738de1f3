"""Expert parallelism with torch alone, as one writes it in twenty lines: the plain sequence of `all_to_all_single`.

Shapes: T tokens, K experts per token, D hidden size, R ranks, S experts of a rank, N rows received.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

Experts = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps rows (N, D), sorted by source rank and then expert, and how many there are of each (R, S), to outputs (N, D)."""


def plain_sequence(
    experts: Experts, S: int
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Maps (x_TD, experts_TK, weights_TK) to (T, D): sort, counts, rows, experts, rows back, weighted sum; blocking."""
    R = dist.get_world_size()

    def layer(x_TD: torch.Tensor, experts_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
        order = torch.argsort(experts_TK.flatten())
        token = order // experts_TK.shape[1]
        rows = x_TD[token]
        counts_RS = torch.bincount(experts_TK.flatten(), minlength=R * S).view(R, S)
        arriving_RS = torch.empty_like(counts_RS)
        dist.all_to_all_single(arriving_RS, counts_RS)
        sent, received = counts_RS.sum(1).tolist(), arriving_RS.sum(1).tolist()
        rows_ND = x_TD.new_empty((sum(received), x_TD.shape[1]))
        dist.all_to_all_single(rows_ND, rows, received, sent)
        back = torch.empty_like(rows)
        dist.all_to_all_single(back, experts(rows_ND, arriving_RS), sent, received)
        weights = weights_TK.flatten()[order, None].to(back.dtype)
        return torch.zeros_like(x_TD).index_add_(0, token, back * weights)

    return layer
