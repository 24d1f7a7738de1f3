"""Which of an expert's replicas computes a token: one rule for the runtime, the planner and the simulator.

A rule answers twice: slot by slot for one home rank's tokens (`candidates`), and in the mean over a domain's tokens
(`parts`). A test holds the two equal.

Shapes: L MoE layers, H home ranks asked about, R ranks, S slots per rank, X = R x S slots, E logical experts,
C candidates, G scale-up domains, Q classes of source domains that choose alike (1 where no expert has a replica).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wingspan.specs.placement import EMPTY

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The slots among which the tokens of a home rank take turns.

    Args:
        slot_HEC: slots counted over all ranks; the first `choices_HE` are valid, the others repeat them.
        choices_HE: how many there are.
    """

    slot_HEC: Ints
    choices_HE: Ints

    def choose(self, home_T: Ints, turn_T: Ints, experts_TK: Ints) -> Ints:
        """The slot of every (token, expert): (T, K); `home_T` indexes the home ranks that were asked about."""
        home_T1 = home_T[:, None]
        turn_TK = turn_T[:, None] % self.choices_HE[home_T1, experts_TK]
        chosen: Ints = self.slot_HEC[home_T1, experts_TK, turn_TK]
        return chosen


@dataclass(frozen=True, eq=False)
class Parts:
    """What slots get in the mean.

    Args:
        elsewhere_LQE: part of a source domain's rows for an expert that each of its slots in other domains gets.
        near_LX: part of the rows that the slot's own domain has for its expert that the slot gets; 0 for an empty one.
        of_own_rank_LX: part of the rows that the slot's own rank has for this expert.
    """

    elsewhere_LQE: Floats
    near_LX: Floats
    of_own_rank_LX: Floats


class ReplicaRule(Protocol):
    """How a token's replica is chosen."""

    def candidates(self, slots_RS: Ints, num_experts: int, node_R: Ints, homes_H: Ints) -> Candidates:
        """The slots of one layer among which the tokens of these home ranks choose.

        Args:
            slots_RS: experts in slots.
            num_experts: logical experts.
            node_R: the node (scale-up domain) of each rank.
            homes_H: the ranks whose tokens choose.
        """
        ...

    def parts(self, slots_LX: Ints, num_experts: int, domains: int) -> Parts:
        """What slots of all layers get in the mean, where X divides into the slots of so many domains in a row."""
        ...


class NearestFirst:
    """A replica on the own rank if there is one, else those on the own node, else all; several take turns."""

    def candidates(self, slots_RS: Ints, num_experts: int, node_R: Ints, homes_H: Ints) -> Candidates:
        """See `ReplicaRule.candidates`."""
        slot_EC, choices_E = _slots_of_experts(slots_RS, num_experts)
        homes = len(homes_H)
        if slot_EC.shape[1] == 1:
            alone_HE = np.broadcast_to(choices_E, (homes, num_experts))
            return Candidates(np.broadcast_to(slot_EC, (homes, *slot_EC.shape)), alone_HE)
        valid_EC = np.arange(slot_EC.shape[1]) < choices_E[:, None]
        rank_EC = slot_EC // slots_RS.shape[1]
        own_HEC = valid_EC & (rank_EC == homes_H[:, None, None])
        near_HEC = valid_EC & (node_R[rank_EC] == node_R[homes_H][:, None, None])
        allowed_HEC = np.where(
            own_HEC.any(2, keepdims=True),
            own_HEC,
            np.where(near_HEC.any(2, keepdims=True), near_HEC, valid_EC),
        )
        choices_HE = allowed_HEC.sum(axis=2)
        first_HEC = np.argsort(~allowed_HEC, axis=2, kind="stable")
        turn_HEC = np.arange(slot_EC.shape[1]) % choices_HE[..., None]
        place_HEC = np.take_along_axis(first_HEC, turn_HEC, axis=2)
        return Candidates(np.take_along_axis(slot_EC[None], place_HEC, axis=2), choices_HE)

    def parts(self, slots_LX: Ints, num_experts: int, domains: int) -> Parts:
        """See `ReplicaRule.parts`."""
        layers, slots = slots_LX.shape
        held_LX = slots_LX != EMPTY
        own_LX = held_LX.astype(np.float64)
        domain_X = np.arange(slots) // (slots // domains)
        layer, slot = np.nonzero(held_LX)
        expert = slots_LX[layer, slot]
        replicas_LE = np.bincount(layer * num_experts + expert, minlength=layers * num_experts)
        replicas_LE = replicas_LE.reshape(layers, num_experts)
        if replicas_LE.max() == 1:
            return Parts(np.ones((layers, 1, num_experts)), own_LX, own_LX)
        place = (layer * domains + domain_X[slot]) * num_experts + expert
        held_by_LGE = np.bincount(place, minlength=layers * domains * num_experts)
        held_by_LGE = held_by_LGE.reshape(layers, domains, num_experts)
        # A domain that holds the expert sends to its own slots alone, another one to all alike.
        elsewhere_LGE = np.where(held_by_LGE > 0, 0.0, 1 / np.maximum(replicas_LE, 1)[:, None, :])
        near_LX = held_by_LGE[np.arange(layers)[:, None], domain_X, np.maximum(slots_LX, 0)]
        return Parts(elsewhere_LGE, own_LX / np.maximum(near_LX, 1), own_LX)


NEAREST_FIRST = NearestFirst()


def _slots_of_experts(slots_RS: Ints, num_experts: int) -> tuple[Ints, Ints]:
    """Slots of every expert in ascending order (E, C), the last repeated, and how many there are (E,)."""
    flat = slots_RS.ravel()
    held = np.flatnonzero(flat != EMPTY)
    by_expert = held[np.argsort(flat[held], kind="stable")]
    choices_E = np.bincount(flat[held], minlength=num_experts)
    starts_E = np.cumsum(choices_E) - choices_E
    place = starts_E[:, None] + np.minimum(np.arange(choices_E.max()), choices_E[:, None] - 1)
    return by_expert[place], choices_E
