"""Which parameter a tensor on disk belongs to, and how it becomes that, by transformers' own mapping of names.

So every layout that it knows (one file entry per expert, fused, transposed, renamed) is understood here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Chunk,
    ConversionOps,
    ErnieFuseAndSplitTextVisionExperts,
    WeightConverter,
    WeightRenaming,
    WeightTransform,
    dot_natural_key,
    rename_source_key,
)

from wingspan.runtime.model.text_part import NOT_OF_TEXT

Read = Callable[[], torch.Tensor]
"""Reads a tensor, or a part of one, from disk."""


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor belongs: the parameters it becomes (mostly one), and as which of a conversion's sources."""

    parameters: tuple[str, ...]
    pattern: str | None
    """None where the tensor is its parameter as it is."""


def conversions(model: PreTrainedModel) -> list[WeightTransform]:
    """transformers' own; where they make experts of text and of pictures from one list, those of text alone.

    Args:
        model: the whole, or its text part, which has no experts of pictures.
    """
    parameters = model.state_dict()
    whole = any(f".{name}." in parameter for parameter in parameters for name in NOT_OF_TEXT)
    found = get_model_conversion_mapping(model)
    return found if whole else [_of_text(transform) for transform in found]


def splits_experts(transforms: Iterable[WeightTransform]) -> bool:
    """Whether a checkpoint numbers as many experts of pictures behind those of text."""
    return any(isinstance(t, WeightConverter) and _is_split(t) for t in transforms)


def _of_text(transform: WeightTransform) -> WeightTransform:
    if not isinstance(transform, WeightConverter):
        return transform
    targets = [to for to in transform.target_patterns if not any(name in to for name in NOT_OF_TEXT)]
    if not 0 < len(targets) < len(transform.target_patterns):
        return transform
    operations = [_FirstHalf() if isinstance(o, Chunk) else o for o in transform.operations]
    return WeightConverter(transform.source_patterns, targets, operations)


class _FirstHalf(ConversionOps):
    """Text's half of what is one tensor for text and pictures."""

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],  # noqa: ARG002 - as transformers calls it
        target_patterns: list[str],
        **_: Any,
    ) -> dict[str, Any]:
        """As transformers asks for it."""
        ((tensor,),) = input_dict.values()
        return {target_patterns[0]: tensor.chunk(2)[0].contiguous()}


def _is_split(converter: WeightConverter) -> bool:
    return any(isinstance(o, ErnieFuseAndSplitTextVisionExperts) for o in converter.operations)


class TensorPlaces:
    """The mapping of one model, which lies on the meta device."""

    def __init__(self, model: PreTrainedModel) -> None:
        transforms = conversions(model)
        self.splits_experts = splits_experts(transforms)
        self.parameters = model.state_dict()
        self._renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
        self._converters = [t for t in transforms if isinstance(t, WeightConverter)]
        self._by_pattern = {p: c for c in self._converters for p in c.source_patterns}
        self._prefix = model.base_model_prefix
        self._model = model

    def of_all(self, keys: Iterable[str]) -> dict[str, TensorPlace]:
        """The place of each tensor; in transformers' order, on which some of its renamings depend."""
        return {key: self._of(key) for key in sorted(keys, key=dot_natural_key)}

    def sources(self, pattern: str) -> list[str]:
        """All sources of the conversion that has `pattern` as one of them."""
        return list(self._by_pattern[pattern].source_patterns)

    def make(self, tensors: Mapping[str, tuple[TensorPlace, Read]]) -> dict[str, torch.Tensor]:
        """The parameters that tensors become together, in their own dtypes; no other tensor is read.

        Args:
            tensors: by their names on disk: where each belongs, and what reads it.
        """
        made: dict[str, torch.Tensor] = {}
        converters: dict[str, WeightConverter] = {}
        for key in sorted(tensors, key=dot_natural_key):
            place, read = tensors[key]
            name = place.parameters[0]
            dtype = self.parameters[name].dtype
            if place.pattern is None:
                made[name] = read().to(dtype)
                continue
            if name not in converters:
                converters[name] = deepcopy(self._by_pattern[place.pattern])
            later: Any = partial(_read_as, read, dtype)
            converters[name].add_tensor(name, key, place.pattern, later)
        for name, converter in converters.items():
            made |= converter.convert(name, model=self._model, config=self._model.config)
        return made

    def _of(self, key: str) -> TensorPlace:
        known = self.parameters
        name, pattern = rename_source_key(key, self._renamings, self._converters, self._prefix, known)
        if name not in known and key in known:
            name, pattern = rename_source_key(key, [], [], self._prefix, known)
        if pattern is None:
            return TensorPlace((name,), None)
        to = self._by_pattern[pattern].target_patterns
        return TensorPlace(tuple(name.replace(to[0], each) for each in to), pattern)


def _read_as(read: Read, dtype: torch.dtype) -> torch.Tensor:
    return read().to(dtype)
