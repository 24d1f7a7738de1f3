"""What the commands use of the runtime, under one name, so that they import torch only when they run."""

from __future__ import annotations

import torch

from wingspan.errors import InputError
from wingspan.runtime.device import select_device
from wingspan.runtime.engine import default_placement, describe, load
from wingspan.runtime.launch import join_ranks, run_ranks
from wingspan.runtime.prompts import Tokenizer, assign, check_context
from wingspan.runtime.run import Listener, RunRequest, RunResult, run
from wingspan.runtime.sampling import Sampling
from wingspan.runtime.world import world_from_environment

__all__ = [
    "Listener",
    "RunRequest",
    "RunResult",
    "Sampling",
    "Tokenizer",
    "assign",
    "check_context",
    "default_placement",
    "describe",
    "dtype_named",
    "join_ranks",
    "load",
    "run",
    "run_ranks",
    "select_device",
    "world_from_environment",
]

_DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}


def dtype_named(name: str) -> torch.dtype | None:
    """The dtype of a command-line name; None for `auto`, the checkpoint's own."""
    if name not in _DTYPES:
        raise InputError(f"--dtype {name}: use one of {', '.join(_DTYPES)}")
    return _DTYPES[name]
