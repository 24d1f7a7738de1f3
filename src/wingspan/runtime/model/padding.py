"""Whether prompts of different lengths may go through a model together, the shorter ones padded on the left.

Padding is hidden from a token only where every layer masks it. Attention over plain keys and values does, and so do
transformers' recurrent and convolution states, which take no step on a masked input. A cache that counts columns is
another matter: an index of the best keys, blocks of tokens compressed into one entry, a length of the model's own.
"""

from __future__ import annotations

import sys

from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

_MASKED = frozenset(
    {
        DummyLayer,
        DynamicLayer,
        DynamicSlidingWindowLayer,
        LinearAttentionLayer,
        LinearAttentionAndFullAttentionLayer,
        LinearAttentionAndSlidingWindowAttentionLayer,
    }
)
"""Layers of a cache in which a masked column changes nothing for the others. A subclass may count columns."""

_CUT_ANYWHERE = frozenset({DummyLayer, DynamicLayer, DynamicSlidingWindowLayer})

CACHE_CLASSES = (Cache, CacheLayerMixin, LinearAttentionCacheLayerMixin, DummyLayer)


def padding_is_neutral(model: PreTrainedModel) -> bool:
    """Whether a prompt's logits are the same with padding before it, but for rounding.

    Read off the caches that the model keeps; what is not known to mask padding counts as if it did not.

    Args:
        model: also without memory behind its weights.
    """
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in _MASKED for layer in layers) and not _own_caches(model)


def cuts_are_neutral(model: PreTrainedModel) -> bool:
    """Whether a prompt may be computed in several forwards, each of many tokens on the cache of those before.

    Attention over plain keys and values may; recurrent states of transformers' models go on by single tokens only.

    Args:
        model: also without memory behind its weights.
    """
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in _CUT_ANYWHERE for layer in layers) and not _own_caches(model)


def _own_caches(model: nn.Module) -> bool:
    """Whether the code of any part of the model defines a cache, or a layer of one."""
    modules = {type(part).__module__ for part in model.modules()}
    return any(
        isinstance(value, type) and issubclass(value, CACHE_CLASSES) and value.__module__ == name
        for name in modules
        for value in vars(sys.modules[name]).values()
    )
