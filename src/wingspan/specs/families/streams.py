"""Several residual streams beside each other, which every half of a layer reads from and writes to.

Manifold-constrained hyper-connections (arXiv:2512.24880): a matrix from all streams gives how much each is read,
how much each is written to, and how they are mixed.
"""

from __future__ import annotations

from wingspan.specs.families.reader import Reader

_HALVES = 2


def mixed_streams(reader: Reader, layer: int) -> int:  # noqa: ARG001 - a hook's form
    """DeepSeek-V4: reading, writing and mixing, each with a scale."""
    streams = _streams(reader)
    return _HALVES * (_matrix(reader, streams * (streams + 2)) + 3)


def gated_streams(reader: Reader, layer: int) -> int:  # noqa: ARG001 - a hook's form
    """Hunyuan 4: reading and writing, each with a scale."""
    return _HALVES * (_matrix(reader, 2 * _streams(reader)) + 2)


def joined_streams(reader: Reader) -> int:
    """What makes one of all streams behind the last layer."""
    return _matrix(reader, _streams(reader)) + 1


def _matrix(reader: Reader, rows: int) -> int:
    """Rows over all streams, and a bias for each."""
    return rows * (_streams(reader) * reader.integer("hidden_size") + 1)


def _streams(reader: Reader) -> int:
    return reader.integer("hc_mult", default=4, most=64)
