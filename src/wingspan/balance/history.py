"""What rank 0 knows of all ranks: the exponential mean of the load, the last window, and what a row costs.

Shapes: L MoE layers, E logical experts, R ranks, G nodes, K experts per token, X choices sampled per layer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wingspan.balance.load_report import LoadReport
from wingspan.routing.load import imbalance

Floats = NDArray[np.float64]
_WINDOW_REPORTS = 2
"""Reports that count as now: a plan must help them too, or it follows a load that has gone."""
_SAMPLED_REPORTS = 16
_LEAST_SPREAD = 0.02
"""Ranks' rows must differ by this share (standard deviation / mean) before a slope is read from their times."""


class History:
    """Reports in, means out.

    Args:
        num_nodes: ranks are spread over them in order, evenly.
        half_life_steps: see `Rebalance`.
    """

    def __init__(self, num_nodes: int, half_life_steps: int) -> None:
        self._num_nodes = num_nodes
        self._half_life_steps = half_life_steps
        self._weight = 0.0
        self._source_LEG: Floats = np.zeros((1, 1, num_nodes))
        self._samples: deque[NDArray[np.int16]] = deque()
        self._window: deque[tuple[int, NDArray[np.int64]]] = deque(maxlen=_WINDOW_REPORTS)
        self._pace = _Pace()
        self.step_seconds = 0.0
        self.upper_seconds = 0.0
        self.longest_seconds = 0.0
        self.imbalance = 1.0
        """Imbalance of the rows that ranks computed between the last two reports."""

    def add(self, reports: Sequence[LoadReport]) -> None:
        """One report of every rank, in rank order."""
        steps = reports[0].steps
        load_RLE = np.stack([r.load_LE for r in reports]).astype(np.float64)
        fade = 0.5 ** (steps / self._half_life_steps)
        shape = (self._num_nodes, -1, *load_RLE.shape[1:])
        now_LEG = load_RLE.reshape(shape).sum(axis=1).transpose(1, 2, 0)
        self._source_LEG = self._source_LEG * fade + now_LEG * (1 - fade) / max(1, steps)
        self._weight = self._weight * fade + 1 - fade
        self._window.append((steps, load_RLE.sum(axis=0).astype(np.int64)))
        self._samples.extend(r.sample_LXK for r in reports if r.sample_LXK.size)
        while len(self._samples) > _SAMPLED_REPORTS * len(reports):
            self._samples.popleft()
        rows_LR = np.stack([r.rows_L for r in reports], axis=1)
        self._pace.add(rows_LR.sum(axis=0), np.array([r.expert_seconds for r in reports]), fade)
        self.imbalance = imbalance(rows_LR)
        self.step_seconds = reports[0].step_seconds or self.step_seconds
        self.upper_seconds = reports[0].upper_seconds or self.upper_seconds
        self.longest_seconds = reports[0].longest_seconds

    @property
    def source_LEG(self) -> Floats:
        """Exponential mean of tokens per step, by the node where they live."""
        return self._source_LEG / max(self._weight, 1e-300)

    @property
    def load_LE(self) -> Floats:
        """Exponential mean of tokens per step."""
        load_LE: Floats = self.source_LEG.sum(axis=2)
        return load_LE

    @property
    def window_load_LE(self) -> Floats:
        """Plain mean of tokens per step over the last reports."""
        steps = sum(steps for steps, _ in self._window)
        total_LE = sum((load_LE for _, load_LE in self._window), np.zeros(self._source_LEG.shape[:2]))
        mean_LE: Floats = total_LE / max(1, steps)
        return mean_LE

    @property
    def sample_LXK(self) -> NDArray[np.int16] | None:
        """Choices sampled over the last reports, oldest first; None without any."""
        return np.concatenate(self._samples, axis=1) if self._samples else None

    @property
    def seconds_per_row(self) -> float:
        """What one more row costs a rank."""
        return self._pace.seconds_per_row


class _Pace:
    """Least squares of expert seconds over rows, one point per rank and report; older reports fade.

    Only differences between ranks of one report count: a machine that gets slower for all says nothing about rows. And
    the slope leaves out what a call costs without rows, which no placement can save.
    """

    def __init__(self) -> None:
        self._covariance = self._variance = self._square = 0.0
        self.seconds_per_row = 0.0

    def add(self, rows_R: NDArray[np.int64], seconds_R: Floats, fade: float) -> None:
        mean = float(rows_R.mean())
        if mean <= 0:
            return
        away_R = rows_R - mean
        self._covariance = self._covariance * fade + float(away_R @ seconds_R)
        self._variance = self._variance * fade + float(away_R @ away_R)
        self._square = self._square * fade + len(rows_R) * mean * mean
        if self._variance > _LEAST_SPREAD**2 * self._square:
            self.seconds_per_row = max(0.0, self._covariance / self._variance)
        elif not self.seconds_per_row:
            self.seconds_per_row = float(seconds_R.mean()) / mean
