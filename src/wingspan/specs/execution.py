"""How a step is executed: the order of its operations, and how rows travel."""

from __future__ import annotations

from enum import StrEnum


class ScheduleKind(StrEnum):
    """The order of operations in a step."""

    SEQUENTIAL = "sequential"
    CHUNKS = "chunks"
    TWO_BATCH = "two-batch"


class DispatcherKind(StrEnum):
    """How rows travel from a token's home to the ranks of its experts, and back."""

    FLAT = "flat"
    """One row per (token, expert), straight to its rank: low-latency kernels, for small batches."""
    DEDUPLICATED = "deduplicated"
    """One row per (token, rank), straight to it: sums of a rank come back as one row."""
    HIERARCHICAL = "hierarchical"
    """One row per (token, node), forwarded inside; sums of a node come back as one row. For large batches."""
