"""The device on which a rank computes."""

from __future__ import annotations

import torch

from wingspan.errors import InputError


def select_device(name: str) -> torch.device:
    """The device of a command-line name, checked to be there."""
    if name not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: use cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here; use --device cpu")
    return torch.device(name)
