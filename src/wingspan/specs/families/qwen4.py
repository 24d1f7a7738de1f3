"""Qwen4: gated delta nets and attention with an index, over several residual streams, from a config."""

from __future__ import annotations

from wingspan.errors import InputError
from wingspan.limits import MOST_CONTEXT, MOST_LAYERS
from wingspan.specs.families.experts import experts_of, layer_count
from wingspan.specs.families.family import Family
from wingspan.specs.families.linear import delta_net_of, is_linear, parts_of
from wingspan.specs.families.mixers import heads
from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import HeadAttention, LinearMixer, Mixer, StreamMixer
from wingspan.specs.model import LayerKind
from wingspan.specs.reading import parse

_MOST_TABLE, _MOST_TABLES = 1 << 28, 1024
"""Rows of one n-gram table, and tables."""


def qwen4_layer(reader: Reader, family: Family, layer: int) -> LayerKind:
    """A mixer of tokens and experts, each between mixers of the streams; some layers add rows of n-grams.

    Raises:
        InputError: a field is missing or unfit.
    """
    hidden, streams = reader.integer("hidden_size"), _streams(reader)
    interval = reader.integer("full_attention_interval", default=4) or 4
    linear = is_linear(reader, layer, lambda n: (n + 1) % interval != 0)
    last = layer == layer_count(reader) - 1
    mixers: list[Mixer] = [delta_net_of(reader) if linear else _indexed(reader, family, layer)]
    if layer + 1 in _ngram_layers(reader):
        mixers.append(_ngram_mixer(reader))
    return LayerKind(
        mixers=(*mixers, _stream_mixer(reader, after_all=last)),
        experts=experts_of(reader, family),
        # A norm of all streams before each part; after the last layer one more, of which one width is the model's.
        norm_parameters=2 * streams + (streams - hidden if last else 0),
    )


def ngram_tables(reader: Reader) -> int:
    """Values of the tables that n-grams look up: as many rows each as the next prime number, padded together.

    Raises:
        InputError: a field is missing or unfit, or there are too many tables.
    """
    layers, heads_per_layer = len(_ngram_layers(reader)), _ngram_heads(reader)
    if not layers:
        return 0
    if layers * heads_per_layer > _MOST_TABLES:
        raise InputError(
            f"{reader.source}: {layers * heads_per_layer:,} n-gram tables are more than {_MOST_TABLES:,}"
        )
    width = _ngram_width(reader) // heads_per_layer
    padded = reader.integer("make_ngram_vocab_size_divisible_by") or 1
    rows, prime = 0, reader.integer("ngram_vocab_size_base", most=_MOST_TABLE) - 1
    for _ in range(layers):
        together = 0
        for _ in range(heads_per_layer):
            prime = _prime_after(prime)
            together += prime
        rows += -(-together // padded) * padded
    return rows * width


def _streams(reader: Reader) -> int:
    """Values of all streams of one token."""
    return reader.integer("hc_count") * reader.integer("hidden_size")


def _stream_mixer(reader: Reader, *, after_all: bool) -> StreamMixer:
    """The gates of a low rank before each part, and the weights with which it adds to the streams."""
    streams, rank = _streams(reader), reader.integer("hc_lowrank")
    gates = ((streams, rank), (rank, streams))
    around = (*gates, (streams, reader.integer("hc_count")))
    return parse(
        StreamMixer,
        {"heads": parts_of(streams), "matrices": (*around, *around, *(gates if after_all else ()))},
        reader.source,
    )


def _indexed(reader: Reader, family: Family, layer: int) -> HeadAttention:
    plain = heads(reader, family, layer)
    if reader.optional("indexer_n_heads") is None:
        return plain
    width, block = reader.integer("indexer_head_dim"), reader.integer("indexer_compress_ratio")
    budget = reader.integer("indexer_budget", most=MOST_CONTEXT)
    return parse(
        HeadAttention,
        {
            **plain.model_dump(),
            "index": {
                "heads": reader.integer("indexer_n_heads"),
                "head_dim": width,
                # The tokens after the last whole block are read as well.
                "top_tokens": budget + max(0, block - 1),
                "block_tokens": block,
            },
            "extra_parameters": plain.extra_parameters + 2 * width,
        },
        reader.source,
    )


def _ngram_layers(reader: Reader) -> frozenset[int]:
    """Layers that add rows of n-grams, counted from one."""
    return frozenset((reader.listed("ple_layer_ids", of=int) or [])[:MOST_LAYERS])


def _ngram_heads(reader: Reader) -> int:
    """Rows that a token looks up in one layer."""
    return max(1, (reader.integer("ngram_size") - 1) * reader.integer("heads_per_ngram"))


def _ngram_width(reader: Reader) -> int:
    return reader.integer("ple_embed_dim", default=reader.integer("hidden_size"))


def _ngram_mixer(reader: Reader) -> LinearMixer:
    """Projects looked-up rows to a key per stream and one value, which pass a convolution over tokens."""
    streams, width = _streams(reader), _ngram_width(reader)
    taps = reader.integer("ple_conv_kernel_size")
    return parse(
        LinearMixer,
        {
            "heads": parts_of(streams),
            "inward": ((width, streams),),
            "attended": width,
            "filtered": streams,
            # Its taps lie `ngram_size` tokens apart.
            "filter_taps": max(0, taps - 1) * reader.integer("ngram_size"),
            "extra_parameters": streams * (taps + 3),
        },
        reader.source,
    )


def _prime_after(number: int) -> int:
    number += 1
    while not _is_prime(number):
        number += 1
    return number


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
