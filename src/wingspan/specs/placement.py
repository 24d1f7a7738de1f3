"""The placement: the map from slots to logical experts, for every MoE layer.

Shapes: L MoE layers, R ranks, S slots per rank, E logical experts per layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError

EMPTY = -1
"""Content of a slot that holds no expert (a spare rank, or the remainder of an uneven division)."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Which logical expert each slot holds.

    Args:
        slots_LRS: integers (MoE layers, ranks, slots per rank); each a logical expert or `EMPTY`.
        num_experts: logical experts per layer.

    Raises:
        InputError: an expert has no slot, one rank holds an expert twice, or an id is out of range.
    """

    slots_LRS: NDArray[np.int64]
    num_experts: int

    def __post_init__(self) -> None:
        slots = np.asarray(self.slots_LRS, dtype=np.int64)
        if slots.ndim != 3 or 0 in slots.shape:
            raise InputError(f"placement: expected (layers, ranks, slots), got shape {slots.shape}")
        slots.setflags(write=False)
        object.__setattr__(self, "slots_LRS", slots)
        self._check_ids()
        self._check_every_expert_placed()
        self._check_no_replica_twice_on_a_rank()

    @property
    def num_layers(self) -> int:
        """Number of MoE layers."""
        return int(self.slots_LRS.shape[0])

    @property
    def num_ranks(self) -> int:
        """EP size: ranks over which each layer's experts are spread."""
        return int(self.slots_LRS.shape[1])

    @cached_property
    def first_rank_LE(self) -> NDArray[np.int64]:
        """The rank of each expert's first replica: (L, E)."""
        rank_LE = np.full((self.num_layers, self.num_experts), self.num_ranks, dtype=np.int64)
        layer, rank, slot = np.nonzero(self.slots_LRS != EMPTY)
        np.minimum.at(rank_LE, (layer, self.slots_LRS[layer, rank, slot]), rank)
        return rank_LE

    @property
    def slots_per_rank(self) -> int:
        """Places for one expert's weights on each rank, per layer."""
        return int(self.slots_LRS.shape[2])

    @cached_property
    def held_R(self) -> NDArray[np.int64]:
        """Experts that each rank holds in all layers."""
        return np.asarray((self.slots_LRS != EMPTY).sum(axis=(0, 2)))

    @cached_property
    def replicas_LE(self) -> NDArray[np.int64]:
        """Number of slots that hold each logical expert: (layers, experts)."""
        layers, experts = self.num_layers, self.num_experts
        place_LRS = np.arange(layers)[:, None, None] * experts + self.slots_LRS
        counts = np.bincount(place_LRS[self.slots_LRS != EMPTY], minlength=layers * experts)
        counts.setflags(write=False)
        return counts.reshape(layers, experts)

    def experts_on(self, layer: int, rank: int) -> list[int]:
        """Logical experts in `rank`'s slots of MoE layer `layer`, in slot order, empty slots left out."""
        return [int(e) for e in self.slots_LRS[layer, rank] if e != EMPTY]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `{"num_experts": E, "slots": [[[...]]]}`."""
        return {"num_experts": self.num_experts, "slots": self.slots_LRS.tolist()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Placement:
        """Read the JSON form back; raises `InputError` where it is not a placement."""
        if not isinstance(data, dict):
            raise InputError(
                f"placement: expected an object with num_experts and slots, found {type(data).__name__}"
            )
        try:
            return cls(np.asarray(data["slots"], dtype=np.int64), int(data["num_experts"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"placement: not a placement object ({error})") from error

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Placement)
            and self.num_experts == other.num_experts
            and np.array_equal(self.slots_LRS, other.slots_LRS)
        )

    def __hash__(self) -> int:
        return hash((self.num_experts, self.slots_LRS.tobytes()))

    def _check_ids(self) -> None:
        slots = self.slots_LRS
        bad = (slots < EMPTY) | (slots >= self.num_experts)
        if bad.any():
            layer, rank, slot = (int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"placement: MoE layer {layer}, rank {rank}, slot {slot} names expert "
                f"{int(slots[layer, rank, slot])}; experts are 0..{self.num_experts - 1}"
            )

    def _check_every_expert_placed(self) -> None:
        slots = self.num_ranks * self.slots_per_rank
        if self.num_experts > slots:  # before anything is counted: a wrong id may be any number
            held = np.unique(self.slots_LRS[0][self.slots_LRS[0] != EMPTY]).tolist()
            first = next(n for n, expert in enumerate([*held, EMPTY]) if n != expert)
            raise InputError(
                f"placement: expert {first} of MoE layer 0 has no slot ({self.num_experts:,} experts, {slots:,} slots)"
            )
        missing = np.argwhere(self.replicas_LE == 0)
        if len(missing):
            layer, expert = (int(i) for i in missing[0])
            raise InputError(
                f"placement: expert {expert} of MoE layer {layer} has no slot ({len(missing)} missing in all)"
            )

    def _check_no_replica_twice_on_a_rank(self) -> None:
        ordered = np.sort(self.slots_LRS, axis=2)
        twice = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] != EMPTY)
        if twice.any():
            layer, rank, slot = (int(i) for i in np.argwhere(twice)[0])
            raise InputError(
                f"placement: rank {rank} holds expert {int(ordered[layer, rank, slot])} of MoE layer {layer} "
                "twice; a second replica there serves nobody"
            )
