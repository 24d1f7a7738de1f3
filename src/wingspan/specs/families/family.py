"""What a family of models has in common beyond what its configs say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wingspan.specs.families.reader import Reader
from wingspan.specs.mixers import Mixer
from wingspan.specs.model import LayerKind


@dataclass(frozen=True)
class Family:
    """What a `model_type` implies beyond its config's fields (read off transformers 5.23's module sizes)."""

    latent: bool = False
    """Multi-head latent attention."""
    query_key_norm: Literal["none", "head", "width"] = "none"
    """RMSNorm of queries and keys: over one head, or over all heads together."""
    attention_bias: bool | None = None
    """Biases of the projections; None: as the config's `attention_bias` says, False where it is silent."""
    output_bias: bool = True
    """Whether the output projection takes the bias too."""
    sinks: bool = False
    """One learned logit per head."""
    windows: Literal["none", "alternate", "all"] = "none"
    """Layers with the config's `sliding_window` where it has no `layer_types`: every other from the first, or all."""
    output_gate: Literal["none", "head", "values"] = "none"
    """A gate on attention's output: one per head, or one per value."""
    expert_bias: bool = False
    router_bias: bool = False
    """A bias per expert that is a parameter (a buffer, as DeepSeek-V3's, is not)."""
    layer_norm: bool = False
    """Norms have a bias too."""
    shared_gate: bool = False
    """The shared expert is weighted by a gate of its own."""
    one_shared: bool = False
    """One shared expert as wide as a routed one, unnamed in the config."""
    tied_by_default: bool = False
    dense_by_default: int = 0
    """Layers without experts, from the first, where the config names none."""
    mixers: Callable[[Reader, Family, int], tuple[Mixer, ...]] | None = None
    """Reads the mixers of a layer, where they are neither heads nor latent."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Usual names of fields that the family's configs name otherwise, by theirs; a dot leads into an object."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Fields where the config is silent, as transformers' configuration class has them."""
    layer: Callable[[Reader, Family, int], LayerKind] | None = None
    """Reads a whole layer, where it is not mixers followed by a dense MLP or by experts."""
    embedding_extra: Callable[[Reader], int] | None = None
    """Parameters of further tables that tokens look up."""
    layer_extra: Callable[[Reader, int], int] | None = None
    """Parameters of a layer outside its mixers, MLPs and norms."""
    model_extra: Callable[[Reader], int] | None = None
    """Those behind the layers, beside the last norm."""
    norms: int = 2
    """Norms of a layer outside its mixers."""
    moe_norms: int = 0
    """Further norms of a layer with experts."""

    @property
    def norm_values(self) -> int:
        """Parameters of a norm for each value of the hidden state."""
        return 2 if self.layer_norm else 1
