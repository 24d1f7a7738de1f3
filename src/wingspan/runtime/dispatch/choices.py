"""Which rows go to which slots: the (token, expert) pairs of a dispatch, one by one.

Shapes: X rows, P choices, T tokens, K experts per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wingspan.runtime.dispatch.dispatcher import weighted_bags


@dataclass(frozen=True)
class Choices:
    """P choices in the order of their rows; a row may have any number of them, also none."""

    rows: int
    row_P: torch.Tensor
    rank_P: torch.Tensor
    slot_P: torch.Tensor
    weight_P: torch.Tensor
    begin_X: torch.Tensor
    """Where each row's choices begin."""

    def weighted_sum(self, y_YD: torch.Tensor, place_P: torch.Tensor) -> torch.Tensor:
        """Per row the sum of `weight_P[p] * y_YD[place_P[p]]` over its choices: (X, D); zero without any."""
        if not len(place_P):
            return y_YD.new_zeros((self.rows, y_YD.shape[1]))
        return weighted_bags(place_P, y_YD, self.weight_P, self.begin_X)


def choices_of(rank_TK: torch.Tensor, slot_TK: torch.Tensor, weights_TK: torch.Tensor) -> Choices:
    """Every token's K choices."""
    T, K = rank_TK.shape
    choice_P = torch.arange(T * K, device=rank_TK.device)
    begin_T = torch.arange(0, T * K, K, device=rank_TK.device)
    return Choices(T, choice_P // K, rank_TK.flatten(), slot_TK.flatten(), weights_TK.flatten(), begin_T)


def choices_of_rows(
    rows: int, row_P: torch.Tensor, rank_P: torch.Tensor, slot_P: torch.Tensor, weight_P: torch.Tensor
) -> Choices:
    """Any number of choices per row; `row_P` rises."""
    begin_X = torch.searchsorted(row_P, torch.arange(rows, device=row_P.device))
    return Choices(rows, row_P, rank_P, slot_P, weight_P, begin_X)
