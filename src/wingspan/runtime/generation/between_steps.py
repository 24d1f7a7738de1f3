"""What may be done between an engine's steps: the interface by which experts move, whoever moves them."""

from __future__ import annotations

from typing import Protocol

import torch


class BetweenSteps(Protocol):
    """Called on every rank by the engine, in the same order on all; it may talk to the other ranks.

    Shapes: L MoE layers, E experts.
    """

    def beside_step(self, load_LE: torch.Tensor) -> None:
        """Take in what is computed beside a step of decode: the prompts of those who join."""

    def after_step(self, load_LE: torch.Tensor, steps_left: int | None) -> None:
        """Take in a step, and do something about it.

        Args:
            load_LE: choices of this rank's own tokens in that step.
            steps_left: at most so many will follow; None: nobody knows.
        """

    def forget(self) -> None:
        """What was seen so far says nothing about the steps to come."""
