"""Load that was recorded: tokens per expert, without what each token chose.

Shapes: W moments in time order, L layers as the file has them, E logical experts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError
from wingspan.writing import write_json

SCHEMA = "wingspan.recorded_load"
SCHEMA_VERSION = 1
MOST_WINDOWS = 64
"""More moments say little more of how a load drifts."""


@dataclass(frozen=True, eq=False)
class RecordedLoad:
    """Tokens per expert over time.

    Args:
        load_WLE: numbers of at least 0 (moments, layers, logical experts).
        moe_layers: numbers of these layers in the model; None where nobody says which they are.
        source: where it comes from, in words.
        remarks: sentences on what was left out or taken for granted.

    Raises:
        InputError: another shape, or numbers below 0 or not finite.
    """

    load_WLE: NDArray[Any]
    moe_layers: tuple[int, ...] | None
    source: str
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        load = self.load_WLE
        if load.ndim != 3 or not load.size:
            raise InputError(f"loads: shape {load.shape}, expected layers x experts, or moments of these")
        if not np.isfinite(load).all() or (load < 0).any():
            raise InputError("loads: every load must be a finite number of tokens, 0 or more")
        if not load.any():
            raise InputError("loads: no expert has any token")
        if self.moe_layers is not None and len(self.moe_layers) != load.shape[1]:
            raise InputError(f"loads: {load.shape[1]} layers, but numbers of {len(self.moe_layers)}")

    @property
    def load_LE(self) -> NDArray[Any]:
        """The load summed over all moments: (L, E)."""
        total: NDArray[Any] = self.load_WLE.sum(axis=0)
        return total

    def pooled(self, windows: int = MOST_WINDOWS) -> RecordedLoad:
        """Sum neighbouring moments into at most so many windows."""
        pieces = np.array_split(self.load_WLE, min(windows, len(self.load_WLE)))
        return replace(self, load_WLE=np.stack([p.sum(axis=0) for p in pieces]))

    def of_model(
        self, moe_layers: tuple[int, ...], hidden_layers: int, experts: int, model: str
    ) -> RecordedLoad:
        """The load of a model's MoE layers: rows of dense layers go, with a remark.

        Args:
            moe_layers: the model's, by number.
            hidden_layers: all of its layers.
            experts: logical experts of each.
            model: its name.

        Raises:
            InputError: it is transposed, or of other layers or experts.
        """
        _, rows, columns = self.load_WLE.shape
        wanted = len(moe_layers)
        if columns != experts:
            if rows == experts and columns in (wanted, hidden_layers):
                raise InputError(
                    f"loads: {rows} x {columns} is experts x layers; transpose it: {model} needs a row for each of "
                    f"{wanted} MoE layers (or all {hidden_layers}), and {experts} columns"
                )
            raise InputError(f"loads: of {columns} experts, {model} has {experts}; use loads of this model")
        if self.moe_layers is not None and set(moe_layers) <= set(self.moe_layers):
            return self._rows([self.moe_layers.index(n) for n in moe_layers], moe_layers, model)
        if self.moe_layers is None and rows == wanted:
            return replace(self, moe_layers=moe_layers)
        if self.moe_layers is None and rows == hidden_layers:
            return self._rows(list(moe_layers), moe_layers, model)
        which = "" if self.moe_layers is None else f" ({_shown(self.moe_layers)} of their model)"
        raise InputError(
            f"loads: of {rows} {'layer' if rows == 1 else 'layers'}{which}, {model} has {wanted} MoE layers "
            f"({_shown(moe_layers)}) of {hidden_layers} in all; give a row for each MoE layer, or for every layer"
        )

    def _rows(self, rows: list[int], moe_layers: tuple[int, ...], model: str) -> RecordedLoad:
        left = self.load_WLE.shape[1] - len(rows)
        if not left:
            return replace(self, load_WLE=self.load_WLE[:, rows], moe_layers=moe_layers)
        others = np.delete(self.load_WLE, rows, axis=1)
        counted = " although they count tokens" if others.any() else ""
        lines = f"{left} rows are of dense layers" if left > 1 else "1 row is of a dense layer"
        said = f"{lines} of {model} and left out{counted}"
        return RecordedLoad(self.load_WLE[:, rows], moe_layers, self.source, (*self.remarks, said))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (docs/interop.md)."""
        layers = {} if self.moe_layers is None else {"moe_layers": list(self.moe_layers)}
        return {
            "schema": SCHEMA,
            "version": SCHEMA_VERSION,
            "source": self.source,
            **layers,
            "load": self.load_WLE.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RecordedLoad:
        """Read the JSON form back; raises `InputError` where it is none."""
        if data.get("version") != SCHEMA_VERSION:
            raise InputError(f"version {data.get('version')}; this Wingspan reads {SCHEMA_VERSION}")
        try:
            load = np.asarray(data["load"], dtype=np.float64)
            layers = data.get("moe_layers")
            numbers = None if layers is None else tuple(int(n) for n in layers)
            return cls(load, numbers, str(data["source"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"lacks or garbles {error}") from None


def write_load(load: RecordedLoad, path: Path) -> None:
    """Write the JSON form."""
    write_json(path, load.to_dict())


def _shown(numbers: tuple[int, ...]) -> str:
    return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
