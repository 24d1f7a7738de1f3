"""A placement with where its layers lie in the model and its ranks in nodes: what a placement's file holds.

A placement alone counts MoE layers from 0; engines number the model's layers, dense ones included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from wingspan.errors import InputError
from wingspan.specs.placement import Placement

SCHEMA_VERSION = 2
"""Files of version 1 had no version, and the placement alone."""


@dataclass(frozen=True)
class StoredPlacement:
    """A placement and what is known of the model and the nodes that it is for; None = not known.

    Args:
        placement: which expert each slot holds.
        moe_layers: number of each MoE layer, counted over all hidden layers from 0.
        hidden_layers: hidden layers in all.
        ranks_per_node: ranks that share the fast link.
        remarks: sentences on what an engine's file says and this placement does not; not kept in its own file.

    Raises:
        InputError: layer numbers that are not as many as the placement's layers, do not rise, or lie beyond
            `hidden_layers`; or no rank in a node.
    """

    placement: Placement
    moe_layers: tuple[int, ...] | None = None
    hidden_layers: int | None = None
    ranks_per_node: int | None = None
    remarks: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        layers, all_layers = self.moe_layers, self.hidden_layers
        if layers is not None:
            self._check_numbers(layers)
        if all_layers is not None:
            last = self.placement.num_layers - 1 if layers is None else layers[-1]
            if last >= all_layers:
                raise InputError(f"placement: {all_layers} hidden layers leave out MoE layer {last}")
        if self.ranks_per_node is not None and self.ranks_per_node < 1:
            raise InputError(f"placement: ranks_per_node {self.ranks_per_node}; use 1 or more")

    def _check_numbers(self, layers: tuple[int, ...]) -> None:
        if len(layers) != self.placement.num_layers:
            raise InputError(
                f"placement: has {self.placement.num_layers} MoE layers, but numbers of {len(layers)} are given"
            )
        if layers[0] < 0 or any(b <= a for a, b in pairwise(layers)):
            raise InputError(f"placement: MoE layers {shown_layers(layers)}; expected rising numbers from 0")

    def check_model(self, moe_layers: tuple[int, ...], hidden_layers: int, model: str) -> None:
        """Raise `InputError` where the file says that it is for another model than `model`."""
        if self.moe_layers is not None and self.moe_layers != moe_layers:
            raise InputError(
                f"placement: for MoE layers {shown_layers(self.moe_layers)}, {model} has {shown_layers(moe_layers)}"
            )
        if self.hidden_layers is not None and self.hidden_layers != hidden_layers:
            raise InputError(
                f"placement: for a model of {self.hidden_layers} layers, {model} has {hidden_layers}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: the placement's, with `schema_version` and whatever else is known."""
        known = {
            "moe_layers": None if self.moe_layers is None else list(self.moe_layers),
            "hidden_layers": self.hidden_layers,
            "ranks_per_node": self.ranks_per_node,
        }
        about = {name: value for name, value in known.items() if value is not None}
        return {"schema_version": SCHEMA_VERSION, **about, **self.placement.to_dict()}

    @classmethod
    def from_dict(cls, data: Any) -> StoredPlacement:
        """Read the JSON form back, of this version or the one before; raises `InputError` where it is neither."""
        placement = Placement.from_dict(data)
        version = data.get("schema_version", 1)
        if version not in (1, SCHEMA_VERSION):
            raise InputError(
                f"placement: schema_version {version!r}; this version reads 1 and {SCHEMA_VERSION}"
            )
        layers = data.get("moe_layers")
        if layers is not None and not (isinstance(layers, list) and layers and all(map(_is_whole, layers))):
            raise InputError("placement: moe_layers must be a list of whole numbers")
        for name in ("hidden_layers", "ranks_per_node"):
            if not (data.get(name) is None or _is_whole(data[name])):
                raise InputError(f"placement: {name} = {data[name]!r} must be a whole number")
        numbers = None if layers is None else tuple(layers)
        return cls(placement, numbers, data.get("hidden_layers"), data.get("ranks_per_node"))


def shown_layers(numbers: tuple[int, ...]) -> str:
    """`3-60`, or `1,3,5`, or both: as short as it goes."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
