"""Several residual streams beside each other, which every half of a layer reads from and writes to.

Manifold-constrained hyper-connections (arXiv:2512.24880): a matrix from all streams gives how much each is read,
how much each is written to, and how they are mixed.
"""

from __future__ import annotations

from wingspan.specs.families.experts import layer_count
from wingspan.specs.families.linear import parts_of
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import StreamMixer
from wingspan.specs.reading import parse

_HALVES = 2


def mixed_streams(reader: Reader, layer: int) -> StreamMixer:
    """DeepSeek-V4: reading, writing and mixing, each with a scale; behind the last layer one of all streams.

    Raises:
        InputError: a field is missing or unfit.
    """
    streams = streams_of(reader)
    return _stream_mixer(reader, layer, rows=streams * (streams + 2), scales=3, joined=streams)


def gated_streams(reader: Reader, layer: int) -> StreamMixer:
    """Hunyuan 4: reading and writing, each with a scale; behind the last layer one of all streams.

    Raises:
        InputError: a field is missing or unfit.
    """
    streams = streams_of(reader)
    return _stream_mixer(reader, layer, rows=2 * streams, scales=2, joined=streams)


def averaged_streams(reader: Reader, layer: int) -> StreamMixer:
    """GLM-5-Next: as DeepSeek-V4's, without what joins them: the last layer's are averaged.

    Raises:
        InputError: a field is missing or unfit.
    """
    streams = streams_of(reader)
    return _stream_mixer(reader, layer, rows=streams * (streams + 2), scales=3, joined=0)


def streams_of(reader: Reader) -> int:
    """How many a token has."""
    return reader.integer("hc_mult", default=4, most=64)


def _stream_mixer(reader: Reader, layer: int, *, rows: int, scales: int, joined: int) -> StreamMixer:
    """A matrix of so many rows over all streams for each half, a bias for each row and the scales."""
    width = streams_of(reader) * reader.integer("hidden_size")
    last = bool(joined) and layer == layer_count(reader) - 1
    return parse(
        StreamMixer,
        {
            "heads": parts_of(width),
            "matrices": ((width, rows),) * _HALVES + (((width, joined),) if last else ()),
            "extra_parameters": _HALVES * (rows + scales) + (joined + 1 if last else 0),
        },
        reader.source,
    )
