"""What the commands use of the runtime, under one name, so that they import torch only when they run."""

from __future__ import annotations

import psutil

from wingspan.models import write_random_checkpoint
from wingspan.runtime.dispatch.choice import DispatchOptions
from wingspan.runtime.generation.prompts import Prompt, assign, check_context
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.generation.tokenizer import Tokenizer
from wingspan.runtime.measuring.calibrate import measure_links
from wingspan.runtime.measuring.cluster import with_links
from wingspan.runtime.model.architecture import dtype_named
from wingspan.runtime.model.engine import Model, check_weights, default_placement, describe, load, rank_bytes
from wingspan.runtime.model.fingerprint import fingerprint
from wingspan.runtime.model.inspection import ModelSummary, WeightFiles, summarize, weight_files
from wingspan.runtime.model.reference import Check
from wingspan.runtime.model.step import flow_named
from wingspan.runtime.ranks.capacity import check_room
from wingspan.runtime.ranks.device import select_device
from wingspan.runtime.record import Recorded, RecordRequest, cut_windows, record
from wingspan.runtime.run import Listener, RunRequest, RunResult, checked, run
from wingspan.runtime.start import EngineSetup, engine_setup, flows_of, remarks

__all__ = [
    "Check",
    "DispatchOptions",
    "EngineSetup",
    "Listener",
    "Model",
    "ModelSummary",
    "Prompt",
    "RecordRequest",
    "Recorded",
    "RunRequest",
    "RunResult",
    "Sampling",
    "Tokenizer",
    "WeightFiles",
    "assign",
    "check_context",
    "check_room",
    "check_weights",
    "checked",
    "cut_windows",
    "default_placement",
    "describe",
    "dtype_named",
    "engine_setup",
    "fingerprint",
    "flow_named",
    "flows_of",
    "load",
    "measure_links",
    "process_started_seconds",
    "rank_bytes",
    "record",
    "remarks",
    "run",
    "select_device",
    "summarize",
    "weight_files",
    "with_links",
    "write_random_checkpoint",
]


def process_started_seconds() -> float:
    """When this process began, on the clock of `time.time`."""
    return float(psutil.Process().create_time())
