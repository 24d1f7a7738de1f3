"""Whether prompts of different lengths may go through a model together, the shorter ones padded on the left.

Padding is hidden from a token only where every layer masks it. Attention over plain keys and values does, and so do
transformers' recurrent and convolution states, which take no step on a masked input. A cache that counts columns is
another matter: an index of the best keys, blocks of tokens compressed into one entry, a length of the model's own.
So is a router that looks at the tokens beside a token, attention whose temperature follows a token's column, and
rotations whose frequencies follow the longest sequence of a forward (dynamic NTK, longrope).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

from wingspan.runtime.model.experts_table import experts_modules, need_row
from wingspan.runtime.model.library import DummyLayer
from wingspan.schedule.prefix_cache import BLOCK_TOKENS

MASKED = frozenset(
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
    known = all(type(layer) in MASKED for layer in layers)
    return (
        known
        and not any(map(_scales_by_column, model.modules()))
        and not mixes_tokens(model)
        and not _own_caches(model)
        and not rotations_by_length(model)
    )


def cuts_are_neutral(model: PreTrainedModel) -> bool:
    """Whether a prompt may be computed in several forwards, each of many tokens on the cache of those before.

    Attention over plain keys and values may; recurrent states of transformers' models go on by single tokens only.

    Args:
        model: also without memory behind its weights.
    """
    layers = DynamicCache(config=model.config).layers
    known = all(type(layer) in _CUT_ANYWHERE for layer in layers)
    return known and not mixes_tokens(model) and not _own_caches(model) and not rotations_by_length(model)


def mixes_tokens(model: nn.Module) -> bool:
    """Whether a router's choice for a token depends on the tokens beside it."""
    return any(need_row(module).mixes_tokens for _, module in experts_modules(model))


def _scales_by_column(part: nn.Module) -> bool:
    """Llama-4's attention without rotations counts the columns of its cache, padding among them."""
    return bool(getattr(part, "attn_temperature_tuning", False)) and not getattr(part, "use_rope", True)


def why_no_prefix_caching(model: PreTrainedModel, block_tokens: int = BLOCK_TOKENS) -> str | None:
    """Why a sequence cannot take over what another computed of a common beginning; None where it can.

    Args:
        model: also without memory behind its weights.
        block_tokens: what is taken over are whole blocks of so many tokens.
    """
    if mixes_tokens(model):
        return "its router chooses for several tokens at once"
    if rotations_by_length(model):
        return "its rotations follow the longest sequence of a forward"
    if not cuts_are_neutral(model):
        return "its caches hold more than keys and values of each token"
    if not padding_is_neutral(model):
        return "its sequences go together at one length only"
    layers = DynamicCache(config=model.config).layers
    windows = [layer.sliding_window for layer in layers if type(layer) is DynamicSlidingWindowLayer]
    if windows and min(windows) <= block_tokens:
        return f"its window of {min(windows)} tokens is no longer than a block of {block_tokens}"
    return None


def rotations_by_length(model: nn.Module) -> list[nn.Module]:
    """Parts of the model whose rotary frequencies follow the longest sequence of a forward."""
    return [part for part in model.modules() if any(map(_follows_length, _rope_types(part)))]


def forget_lengths(parts: Iterable[nn.Module]) -> None:
    """Let the frequencies follow the next forward alone: between forwards some of these parts keep the longest."""
    for part in parts:
        for name in vars(part):
            if name.endswith("max_seq_len_cached"):
                setattr(part, name, 0)


def _rope_types(part: nn.Module) -> list[str]:
    """One, or one for each type of layer."""
    found = getattr(part, "rope_type", None)
    return list(found.values()) if isinstance(found, dict) else [found] if isinstance(found, str) else []


def _follows_length(rope_type: str) -> bool:
    return "dynamic" in rope_type or rope_type == "longrope"


def _own_caches(model: nn.Module) -> bool:
    """Whether the code of any part of the model defines a cache, or a layer of one."""
    modules = {type(part).__module__ for part in model.modules()}
    return any(
        isinstance(value, type) and issubclass(value, CACHE_CLASSES) and value.__module__ == name
        for name in modules
        for value in vars(sys.modules[name]).values()
    )
