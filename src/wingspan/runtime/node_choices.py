"""A hierarchical dispatch's choices: which stay on this node, which cross, and how those are packed.

Shapes: T tokens of this rank, K experts per token, G nodes, M rows sent to other nodes, P choices sent along,
A choices that arrive.
"""

from __future__ import annotations

import torch

from wingspan.runtime.choices import Choices
from wingspan.runtime.world import World


class NodeChoices:
    """All choices of this rank's tokens, told apart by whether they lie on its node.

    Args:
        rank_TK: destination ranks.
        slot_TK: slots there.
        weights_TK: of the experts' outputs.
        world: this rank's place.
        widest: the most slots of a rank.
    """

    def __init__(
        self,
        rank_TK: torch.Tensor,
        slot_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        world: World,
        widest: int,
    ) -> None:
        self._tokens, self._top_k = rank_TK.shape
        self._nodes = world.size // world.ranks_per_node
        self._own_node = world.node
        self._widest = widest
        self._node_P = (rank_TK // world.ranks_per_node).flatten()
        self._place_P = (rank_TK % world.ranks_per_node * widest + slot_TK).flatten()
        self._weight_P = weights_TK.flatten().float()

    def rows_across(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens (M) that each other node needs, once each, node by node; and how many each gets (G)."""
        needed_GT = torch.zeros((self._nodes, self._tokens), dtype=torch.bool, device=self._node_P.device)
        token_P = torch.arange(self._tokens, device=needed_GT.device).repeat_interleave(self._top_k)
        needed_GT[self._node_P, token_P] = True
        needed_GT[self._own_node] = False
        return needed_GT.nonzero()[:, 1], needed_GT.sum(1)

    def packed_across(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The choices (P, 2) that go along, in the order of their rows, 8 bytes each; and how many each node gets (G).

        First word: place in the node, and in the lowest bit whether it is its row's last; second: the weight.
        """
        away_P = (self._node_P != self._own_node).nonzero().flatten()
        row_P = self._node_P[away_P] * self._tokens + away_P // max(1, self._top_k)
        order_P = torch.argsort(row_P, stable=True)
        row_P, away_P = row_P[order_P], away_P[order_P]
        last_P = torch.ones_like(row_P)
        last_P[:-1] = row_P[1:] != row_P[:-1]
        word_P = (self._place_P[away_P] * 2 + last_P).to(torch.int32)
        packed_P2 = torch.stack((word_P, self._weight_P[away_P].view(torch.int32)), dim=1)
        return packed_P2, torch.bincount(self._node_P[away_P], minlength=self._nodes)

    def own(self) -> Choices:
        """The choices on this node."""
        here_P = (self._node_P == self._own_node).nonzero().flatten()
        place_P = self._place_P[here_P]
        return Choices(
            self._tokens,
            here_P // max(1, self._top_k),
            place_P // self._widest,
            place_P % self._widest,
            self._weight_P[here_P],
        )


def with_arrived(own: Choices, packed_A2: torch.Tensor, rows: int, widest: int) -> Choices:
    """The own rows' choices, then those of `rows` rows from other nodes, as `NodeChoices.packed_across` has them."""
    word_A = packed_A2[:, 0].long()
    last_A, place_A = word_A & 1, word_A >> 1
    return Choices(
        own.rows + rows,
        torch.cat((own.row_P, own.rows + last_A.cumsum(0) - last_A)),
        torch.cat((own.rank_P, place_A // widest)),
        torch.cat((own.slot_P, place_A % widest)),
        torch.cat((own.weight_P, packed_A2[:, 1].contiguous().view(torch.float32))),
    )
