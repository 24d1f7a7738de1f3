"""A model whose type nobody listed, from the names and shapes of its checkpoint's tensors."""

from wingspan.specs.from_weights.build import counted_model

__all__ = ["counted_model"]
