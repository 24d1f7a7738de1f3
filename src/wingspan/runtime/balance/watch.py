"""What one rank sees of the load between two reports: counts, a few tokens' choices, rows computed, times.

Shapes: L MoE layers, E logical experts, T tokens, K experts per token, X choices sampled per layer.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from wingspan.balance.load_report import LoadReport
from wingspan.runtime.measuring.recorder import KEPT_STEPS, Recorder, StepRecord
from wingspan.runtime.model.experts import LocalExperts
from wingspan.schedule.result import Operation


class Watch:
    """Counts cheaply and always: one addition per step, a few rows copied per layer.

    Args:
        experts: of every layer.
        num_experts: logical experts per layer.
        recorder: whose times to report.
        sample_tokens: choices to keep per layer and report.
    """

    def __init__(
        self, experts: Sequence[LocalExperts], num_experts: int, recorder: Recorder, sample_tokens: int
    ) -> None:
        self._experts = experts
        self._recorder = recorder
        self._sample_tokens = sample_tokens
        self._load_LE = np.zeros((len(experts), num_experts), dtype=np.int32)
        self._sample: list[list[torch.Tensor]] = [[] for _ in experts]
        self._sampled = [0] * len(experts)
        self.steps = 0
        """Since the last report."""
        self.begin_measuring()

    def observe(self, layer: int, experts_TK: torch.Tensor) -> None:
        """Keep some of one layer's choices; called as they are made."""
        wanted = min(self._sample_tokens - self._sampled[layer], max(1, self._sample_tokens // 8))
        if wanted > 0 and len(experts_TK):
            # From evenly spaced tokens, so that all sequences of a batch are heard.
            picked = experts_TK[:: -(-len(experts_TK) // wanted)]
            self._sample[layer].append(picked.clone())
            self._sampled[layer] += len(picked)

    def count(self, load_LE: torch.Tensor) -> None:
        """Add the choices of this rank's tokens in the step that is about to end."""
        self.count_beside(load_LE)
        self.steps += 1
        if self._recorder.open_step is not None:
            self._counted.append(self._recorder.open_step)

    def count_beside(self, load_LE: torch.Tensor) -> None:
        """Add the choices, and the experts' time, of what is computed beside a step, and is about to end: prompts."""
        self._load_LE += load_LE.cpu().numpy().astype(np.int32)
        if self._recorder.open_step is not None:
            self._recorder.settle()
            seconds = self._recorder.open_step.operation_seconds.get(Operation.EXPERT, 0.0)
            self._expert_seconds += seconds

    def take(self) -> LoadReport:
        """All since the last call, and begin anew."""
        seconds = self._step_seconds()
        report = LoadReport(
            self.steps,
            self._load_LE.copy(),
            self._take_sample(),
            np.array([e.rows for e in self._experts]) - self._rows_before_L,
            self._expert_seconds,
            statistics.median(seconds) if seconds else 0.0,
            float(np.quantile(seconds, 0.75)) if seconds else 0.0,
            max(seconds, default=0.0),
            self.busy_seconds,
        )
        self._load_LE[:] = 0
        self.steps = 0
        self.begin_measuring()
        return report

    def begin_measuring(self) -> None:
        """Rows and times begin anew; the counts of choices go on."""
        self.busy_seconds = self._expert_seconds = 0.0
        self._rows_before_L = np.array([e.rows for e in self._experts], dtype=np.int64)
        self._counted: deque[StepRecord] = deque(maxlen=KEPT_STEPS)

    def _step_seconds(self) -> list[float]:
        """Time of each step counted since measuring began; the one that is about to end as long as it has lasted."""
        open_seconds = self._recorder.settle()
        return [step.seconds or open_seconds for step in self._counted]

    def _take_sample(self) -> NDArray[np.int16]:
        """Take as many choices from each layer as the poorest has."""
        least = min(self._sampled)
        kept = [torch.cat(parts)[:least] for parts in self._sample] if least else []
        self._sample = [[] for _ in self._experts]
        self._sampled = [0] * len(self._experts)
        if not kept:
            return np.zeros((len(self._experts), 0, 0), dtype=np.int16)
        return torch.stack(kept).cpu().numpy().astype(np.int16)
