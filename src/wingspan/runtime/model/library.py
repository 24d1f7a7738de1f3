"""What of transformers is younger than the oldest version that Wingspan runs with."""

from __future__ import annotations

from transformers import cache_utils


class _NoSuchLayer:
    """Stands for a kind of cache layer that this version of transformers never makes."""


DummyLayer: type = getattr(cache_utils, "DummyLayer", _NoSuchLayer)
"""The cache layer of layers that keep nothing; not in 5.17."""
