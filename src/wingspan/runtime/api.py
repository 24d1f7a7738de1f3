"""What the commands use of the runtime, under one name, so that they import torch only when they run."""

from __future__ import annotations

import psutil
import torch

from wingspan.errors import InputError
from wingspan.models import write_random_checkpoint
from wingspan.runtime.dispatchers import dispatch_options
from wingspan.runtime.engine import default_placement, describe, load
from wingspan.runtime.inspection import ModelSummary, summarize
from wingspan.runtime.launch import join_mpi_ranks, join_ranks, run_ranks
from wingspan.runtime.nodes import nodes_from_environment
from wingspan.runtime.prompts import Tokenizer, assign, check_context
from wingspan.runtime.record import Recorded, RecordRequest, cut_windows, record
from wingspan.runtime.run import Listener, RunRequest, RunResult, run
from wingspan.runtime.sampling import Sampling
from wingspan.runtime.step import flow_named
from wingspan.runtime.transports import TransportKind, chosen, transport_kind
from wingspan.runtime.world import world_from_environment

__all__ = [
    "Listener",
    "ModelSummary",
    "RecordRequest",
    "Recorded",
    "RunRequest",
    "RunResult",
    "Sampling",
    "Tokenizer",
    "TransportKind",
    "assign",
    "check_context",
    "chosen",
    "cut_windows",
    "default_placement",
    "describe",
    "dispatch_options",
    "dtype_named",
    "flow_named",
    "join_mpi_ranks",
    "join_ranks",
    "load",
    "nodes_from_environment",
    "process_started_seconds",
    "record",
    "run",
    "run_ranks",
    "select_device",
    "summarize",
    "transport_kind",
    "world_from_environment",
    "write_random_checkpoint",
]

_DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}


def dtype_named(name: str) -> torch.dtype | None:
    """The dtype of a command-line name; None for `auto`, the checkpoint's own."""
    if name not in _DTYPES:
        raise InputError(f"--dtype {name}: use one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def select_device(name: str) -> torch.device:
    """The device of a command-line name, checked to be there."""
    if name not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: use cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here; use --device cpu")
    return torch.device(name)


def process_started_seconds() -> float:
    """When this process began, on the clock of `time.time`."""
    return float(psutil.Process().create_time())
