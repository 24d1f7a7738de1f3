"""Which parameter a tensor on disk belongs to, by transformers' own mapping of names.

So every layout that it knows (one file entry per expert, fused, transposed, renamed) is understood here too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor belongs: the parameters it becomes (mostly one), and as which of a conversion's sources."""

    parameters: tuple[str, ...]
    pattern: str | None
    """None where the tensor is its parameter as it is."""


class TensorPlaces:
    """The mapping of one model, which lies on the meta device."""

    def __init__(self, model: PreTrainedModel) -> None:
        transforms = get_model_conversion_mapping(model)
        self.parameters = model.state_dict()
        self._renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
        self._converters = [t for t in transforms if isinstance(t, WeightConverter)]
        self._by_pattern = {p: c for c in self._converters for p in c.source_patterns}
        self._prefix = model.base_model_prefix

    def of_all(self, keys: Iterable[str]) -> dict[str, TensorPlace]:
        """The place of each tensor; in transformers' order, on which some of its renamings depend."""
        return {key: self._of(key) for key in sorted(keys, key=dot_natural_key)}

    def sources(self, pattern: str) -> list[str]:
        """All sources of the conversion that has `pattern` as one of them."""
        return list(self._by_pattern[pattern].source_patterns)

    def _of(self, key: str) -> TensorPlace:
        known = self.parameters
        name, pattern = rename_source_key(key, self._renamings, self._converters, self._prefix, known)
        if name not in known and key in known:
            name, pattern = rename_source_key(key, [], [], self._prefix, known)
        if pattern is None:
            return TensorPlace((name,), None)
        to = self._by_pattern[pattern].target_patterns
        return TensorPlace(tuple(name.replace(to[0], each) for each in to), pattern)
