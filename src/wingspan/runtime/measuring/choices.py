"""Which experts the tokens of a run chose, kept as they are counted.

Shapes: T tokens of one rank, L MoE layers, K experts per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wingspan.errors import RunError
from wingspan.routing.trace import RoutingTrace
from wingspan.runtime.measuring.recorder import Recorder


class RoutingRecorder:
    """Observes the load monitor of one rank and keeps each layer's choices until they are taken."""

    def __init__(self, num_layers: int) -> None:
        self._picks_L: list[list[torch.Tensor]] = [[] for _ in range(num_layers)]

    def __call__(self, layer: int, experts_TK: torch.Tensor) -> None:
        """Keep one layer's choices in one forward."""
        self._picks_L[layer].append(experts_TK.to("cpu", torch.int16))

    def take(self) -> NDArray[np.int16]:
        """All layers' choices since the last call: (T, L, K); raises `RunError` where a layer was not run."""
        return self.take_forwards()[0]

    def take_forwards(self) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
        """As `take`, and the number of the forward, from 0, that each token was in: (T,)."""
        missing = [layer for layer, picks in enumerate(self._picks_L) if not picks]
        if missing:
            raise RunError(f"MoE layer {missing[0]} took no part in a forward; nothing can be recorded")
        picks_TLK = torch.stack([torch.cat(picks) for picks in self._picks_L], dim=1).numpy()
        lengths = [len(picks) for picks in self._picks_L[0]]
        self._picks_L = [[] for _ in self._picks_L]
        return picks_TLK, np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)


@dataclass(frozen=True)
class RankChoices:
    """What one rank's tokens chose in one phase; all ranks are in the same forwards."""

    experts_TLK: NDArray[np.int16]
    forward_T: NDArray[np.int32]


class PhaseChoices:
    """Observes the load monitor of one rank and keeps the choices of each phase apart.

    Args:
        num_layers: MoE layers.
        recorder: knows which step is under way.
    """

    def __init__(self, num_layers: int, recorder: Recorder) -> None:
        self._num_layers = num_layers
        self._recorder = recorder
        self._of_phase: dict[str, RoutingRecorder] = {}

    def __call__(self, layer: int, experts_TK: torch.Tensor) -> None:
        """Keep one layer's choices in one forward."""
        step = self._recorder.open_step
        if step is not None:
            self._of_phase.setdefault(step.phase, RoutingRecorder(self._num_layers))(layer, experts_TK)

    def take(self) -> dict[str, RankChoices]:
        """The choices of each phase so far."""
        return {phase: RankChoices(*kept.take_forwards()) for phase, kept in self._of_phase.items()}


def joined(of_rank: Sequence[Mapping[str, RankChoices]], num_experts: int) -> dict[str, RoutingTrace]:
    """The ranks' choices as one trace for each phase; a forward is a step of it.

    Args:
        of_rank: what every rank kept.
        num_experts: logical experts per layer.
    """
    return {phase: _joined([kept[phase] for kept in of_rank], num_experts) for phase in of_rank[0]}


def _joined(of_rank: Sequence[RankChoices], num_experts: int) -> RoutingTrace:
    forward_T = np.concatenate([kept.forward_T for kept in of_rank])
    home_T = np.repeat(np.arange(len(of_rank), dtype=np.int32), [len(kept.forward_T) for kept in of_rank])
    order = np.argsort(forward_T, kind="stable")
    experts_TLK = np.concatenate([kept.experts_TLK for kept in of_rank])[order]
    home_T = home_T[order]
    return RoutingTrace(experts_TLK, home_T, home_T.copy(), forward_T[order], num_experts, len(of_rank))
