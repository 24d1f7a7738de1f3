"""How a deployment says where its experts are: a strategy by name, or every slot."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from wingspan.errors import InputError
from wingspan.limits import ExpertCount, Ranks
from wingspan.placement import simple
from wingspan.placement.balanced import balanced
from wingspan.specs.placement import Placement
from wingspan.specs.reading import Spec


class Strategy(StrEnum):
    """How experts are put into slots."""

    LINEAR = "linear"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    BALANCED = "balanced"
    """Ranks are filled by expected load, and spare slots hold replicas of the hottest experts."""
    EXPLICIT = "explicit"


class PlacementSpec(Spec):
    """Where the experts are: a rule, or every slot written out.

    Slots beyond the number of experts (spare ranks) stay empty, but hold replicas with strategy balanced.
    """

    strategy: Strategy = Strategy.LINEAR
    ranks: Ranks = Field(description="EP size")
    experts_per_rank: ExpertCount = Field(
        default=1, description="slots per rank and layer; 1 = one expert per GPU"
    )
    seed: int = Field(default=0, ge=0, description="of strategy random")
    slots: tuple[tuple[tuple[int, ...], ...], ...] | None = Field(
        default=None, description="strategy explicit: expert per (MoE layer, rank, slot), -1 = empty"
    )

    remarks: tuple[str, ...] = Field(
        default=(), description="what the file of the slots was read otherwise than it says, in sentences"
    )

    @model_validator(mode="after")
    def _slots_where_explicit(self) -> Self:
        if (self.strategy is Strategy.EXPLICIT) != (self.slots is not None):
            raise ValueError("slots belong to strategy explicit, and only to it")
        return self

    @classmethod
    def explicit(cls, placement: Placement, remarks: tuple[str, ...] = ()) -> PlacementSpec:
        """Every slot of `placement` written out."""
        slots = tuple(tuple(tuple(rank) for rank in layer) for layer in placement.slots_LRS.tolist())
        return cls(
            strategy=Strategy.EXPLICIT,
            ranks=placement.num_ranks,
            experts_per_rank=placement.slots_per_rank,
            slots=slots,
            remarks=remarks,
        )

    def build(self, shares_LE: NDArray[np.float64]) -> Placement:
        """The placement itself.

        Args:
            shares_LE: expected load of each (MoE layer, expert), for strategy balanced.

        Raises:
            InputError: the experts do not fit, or the slots are not a placement of these layers.
        """
        num_layers, num_experts = shares_LE.shape
        if self.slots is not None:
            placement = Placement(np.array(self.slots, dtype=np.int64), num_experts)
            given = (placement.num_layers, placement.num_ranks, placement.slots_per_rank)
            wanted = (num_layers, self.ranks, self.experts_per_rank)
            if given != wanted:
                raise InputError(f"placement: slots are {given} (layers, ranks, slots), expected {wanted}")
            return placement
        if self.strategy is Strategy.BALANCED:
            return balanced(shares_LE, self.ranks, self.experts_per_rank)
        shape = (num_layers, num_experts, self.ranks, self.experts_per_rank)
        if self.strategy is Strategy.ROUND_ROBIN:
            return simple.round_robin(*shape)
        if self.strategy is Strategy.RANDOM:
            return simple.random(*shape, seed=self.seed)
        return simple.linear(*shape)
