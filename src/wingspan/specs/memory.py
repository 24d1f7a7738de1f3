"""The parts of a rank's memory, named alike wherever memory is predicted, measured or shown."""

from __future__ import annotations

from enum import StrEnum


class MemoryPart(StrEnum):
    """What a rank's memory is for, in the order in which it fills; together they are all that the rank holds."""

    ATTENTION = "attention"
    DENSE = "dense"
    SHARED_EXPERTS = "shared experts"
    ROUTERS_AND_NORMS = "routers and norms"
    EMBEDDING_AND_HEAD = "embedding and head"
    EXPERTS = "experts"
    KV_CACHE = "kv cache"
    ACTIVATIONS = "activations"
    """What a layer computes and drops again. A process cannot tell it from `OTHER`, which it is measured as."""
    BUFFERS = "buffers"
    """Rows on their way out and back."""
    STAGING = "staging"
    """Experts' weights on their way to another slot, where live balancing moves them."""
    OTHER = "other"
    """Interpreter, libraries, contexts, allocators. Predicted: what calibration found, else a share of the memory;
    measured: the most that the process held, less all parts above."""


WEIGHTS = tuple(MemoryPart)[:6]
"""The parts that are a model's weights."""
