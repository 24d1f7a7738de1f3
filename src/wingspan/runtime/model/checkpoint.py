"""A checkpoint on disk in the Hugging Face format, opened without reading it: tensors are read slice by slice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from wingspan.errors import InputError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


class Checkpoint:
    """The safetensors files of one folder, sharded or not.

    Raises:
        InputError: no weights, a file that the index names is missing, or a file is truncated or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._slices: dict[str, Any] = {}
        self._files = []
        for file in _weight_files(folder):
            handle = _open(file)
            self._files.append(handle)
            for key in handle.keys():  # noqa: SIM118 - not a mapping
                self._slices[key] = handle.get_slice(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._slices)

    def __getitem__(self, key: str) -> Any:
        """A safetensors slice: `.get_shape()`, and indexing that reads only what is asked for."""
        return self._slices[key]


class ExpertRows:
    """A lazy part of a fused tensor: only these experts along dimension 0, read when indexed with `[...]`."""

    def __init__(self, source: Any, experts: Sequence[int]) -> None:
        self._source = source
        self._experts = experts

    def __getitem__(self, index: Any) -> torch.Tensor:
        if index is not ...:
            raise TypeError(f"an expert selection is read whole, with [...]; got [{index!r}]")
        return torch.cat([self._source[e : e + 1] for e in self._experts])

    def get_shape(self) -> list[int]:
        """Shape of the part."""
        return [len(self._experts), *self._source.get_shape()[1:]]

    def get_dtype(self) -> str:
        """Dtype in safetensors' notation."""
        return str(self._source.get_dtype())


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{index}: not a safetensors index ({error}); copy the file again") from None
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{folder}: {len(missing)} of {len(names)} weight files are missing, the first is {missing[0]}; "
                f"{_INDEX} names them: copy them beside it"
            )
        return [folder / name for name in names]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    raise InputError(
        f"{folder}: no weights; expected {_SINGLE} or {_INDEX} (convert .bin files to safetensors)"
    )


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file}: damaged or truncated ({file.stat().st_size} bytes; {error}); copy the file again"
        ) from None
