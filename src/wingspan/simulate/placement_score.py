"""How good a placement is: the figures of its predicted step.

Shapes: L MoE layers, R ranks, S slots per rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wingspan.placement.difference import difference
from wingspan.routing.load import imbalance_per_layer
from wingspan.simulate.prediction import Prediction
from wingspan.specs.placement import EMPTY, Placement

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PlacementScore:
    """Figures of a predicted step; bytes and seconds count dispatch and combine, over all MoE layers.

    Attributes:
        expert_imbalance_L: max / mean tokens of the logical experts, which no placement changes.
        slot_imbalance_L: max / mean tokens of the slots that hold an expert.
        rank_imbalance_L: max / mean tokens of the ranks.
        rank_rows_LR: tokens that each rank computes.
        link_bytes_R: through each rank's network card, and its port inside the node, in the fuller direction.
        across_bytes: between nodes, by all ranks.
        within_bytes: inside nodes, by all ranks.
        busiest_card_bytes: through the fullest network card of each layer, in its fuller direction.
        experts_seconds: fullest rank of each layer.
        exchanges_seconds: dispatches and combines.
        step_seconds: the whole step, as its schedule overlaps them.
        experts_moved: experts to fetch from the placement it is compared with; None without one.
        moved_bytes: their weights.
    """

    expert_imbalance_L: Floats
    slot_imbalance_L: Floats
    rank_imbalance_L: Floats
    rank_rows_LR: Floats
    link_bytes_R: dict[str, Floats]
    across_bytes: float
    within_bytes: float
    busiest_card_bytes: float
    experts_seconds: float
    exchanges_seconds: float
    step_seconds: float
    experts_moved: int | None
    moved_bytes: int | None

    @property
    def imbalance(self) -> float:
        """Rank imbalance, per layer, then averaged over layers."""
        return float(self.rank_imbalance_L.mean())

    def to_dict(self) -> dict[str, float | int | list[float] | None]:
        """The JSON form."""
        return {
            "rank_imbalance": self.imbalance,
            "rank_imbalance_per_layer": self.rank_imbalance_L.tolist(),
            "slot_imbalance": float(self.slot_imbalance_L.mean()),
            "expert_imbalance": float(self.expert_imbalance_L.mean()),
            "across_bytes": self.across_bytes,
            "within_bytes": self.within_bytes,
            "busiest_card_bytes": self.busiest_card_bytes,
            "experts_seconds": self.experts_seconds,
            "exchanges_seconds": self.exchanges_seconds,
            "step_seconds": self.step_seconds,
            "experts_moved": self.experts_moved,
            "moved_bytes": self.moved_bytes,
        }


def score(prediction: Prediction, expert_bytes: int, present: Placement | None = None) -> PlacementScore:
    """Sum up a prediction as a placement's score.

    Args:
        prediction: of a step with the placement.
        expert_bytes: one expert's weights.
        present: the placement from which experts would move.
    """
    moe = prediction.moe
    moved = difference(present, prediction.placement, expert_bytes) if present is not None else None
    return PlacementScore(
        expert_imbalance_L=imbalance_per_layer(prediction.load_LE),
        slot_imbalance_L=_slot_imbalance(prediction.placement, prediction.rows_LRS),
        rank_imbalance_L=imbalance_per_layer(prediction.rows_LRS.sum(axis=2)),
        rank_rows_LR=prediction.rows_LRS.sum(axis=2),
        link_bytes_R={"network card": _fuller(*_out(prediction)), "scale-up port": _fuller(*_up(prediction))},
        across_bytes=float(moe.sent.scale_out_sent.sum() + moe.returned.scale_out_sent.sum()),
        within_bytes=float(moe.sent.scale_up_sent.sum() + moe.returned.scale_up_sent.sum()),
        busiest_card_bytes=_busiest_card(prediction),
        experts_seconds=float(moe.experts_L.sum()),
        exchanges_seconds=float(moe.exchanges_L.sum()),
        step_seconds=prediction.timeline.step_seconds,
        experts_moved=moved.experts if moved else None,
        moved_bytes=moved.total_bytes if moved else None,
    )


def _out(prediction: Prediction) -> tuple[Floats, Floats]:
    """Bytes that leave and reach each rank over its network card: (L, R) each."""
    sent, returned = prediction.moe.sent, prediction.moe.returned
    return (
        sent.scale_out_sent + returned.scale_out_sent,
        sent.scale_out_received + returned.scale_out_received,
    )


def _up(prediction: Prediction) -> tuple[Floats, Floats]:
    """Bytes that leave and reach each rank inside its node: (L, R) each."""
    sent, returned = prediction.moe.sent, prediction.moe.returned
    return sent.scale_up_sent + returned.scale_up_sent, sent.scale_up_received + returned.scale_up_received


def _fuller(out_LR: Floats, in_LR: Floats) -> Floats:
    result: Floats = np.maximum(out_LR.sum(axis=0), in_LR.sum(axis=0))
    return result


def _busiest_card(prediction: Prediction) -> float:
    out_LR, in_LR = _out(prediction)
    return float(np.maximum(out_LR.max(axis=1), in_LR.max(axis=1)).sum())


def _slot_imbalance(placement: Placement, rows_LRS: Floats) -> Floats:
    rows_LX = rows_LRS.reshape(placement.num_layers, -1)
    held_L = (placement.slots_LRS != EMPTY).reshape(placement.num_layers, -1).sum(axis=1)
    mean_L = rows_LX.sum(axis=1) / held_L
    ratio: Floats = np.divide(rows_LX.max(axis=1), mean_L, out=np.ones_like(mean_L), where=mean_L > 0)
    return ratio
