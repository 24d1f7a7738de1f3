"""A checkpoint on disk in the Hugging Face format, opened without reading it: tensors are read slice by slice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from wingspan.errors import InputError
from wingspan.reading import is_lfs_pointer, json_value, lfs_pointer_error

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_WITH_CODE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Weights in Python's pickle format, which may run code when it is read; it never is."""


class Checkpoint:
    """The safetensors files of one folder, sharded or not.

    Raises:
        InputError: no weights, a file that the index names is missing, or a file is truncated, damaged or a mere
            pointer to one; or a tensor is in two files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = _weight_files(folder)
        self._slices: dict[str, Any] = {}
        self._handles = []
        for file in self.files:
            handle = _open(file)
            self._handles.append(handle)
            for key in handle.keys():  # noqa: SIM118 - not a mapping
                if key in self._slices:
                    raise InputError(f"{folder}: {key} is in two files, {file.name} is one; leave it in one")
                self._slices[key] = handle.get_slice(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._slices)

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, key: str) -> Any:
        """A safetensors slice: `.get_shape()`, and indexing that reads only what is asked for."""
        return self._slices[key]

    def shape_of(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor on disk."""
        return tuple(self._slices[key].get_shape())

    def dtype_of(self, key: str) -> str:
        """The dtype of a tensor on disk, in safetensors' notation: BF16, F8_E4M3, I32 ..."""
        return str(self._slices[key].get_dtype())

    @property
    def size_bytes(self) -> int:
        """Bytes of the files."""
        return sum(file.stat().st_size for file in self.files)


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        names = _indexed(index)
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{folder}: {len(missing)} of {len(names)} weight files are missing, the first is {missing[0]}; "
                f"{_INDEX} names them: copy them beside it"
            )
        return [folder / name for name in names]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    others = sorted(file.name for pattern in _WITH_CODE for file in folder.glob(pattern))
    has = f" ({others[0]} is a pickle, which can run code: it is not read; convert it)" if others else ""
    raise InputError(f"{folder}: no weights; expected {_SINGLE} or {_INDEX}{has}")


def _indexed(index: Path) -> list[str]:
    """Names of the files that an index lists; all lie in its own folder."""
    if is_lfs_pointer(index):
        raise lfs_pointer_error(index)
    try:
        names = sorted(set(json_value(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise InputError(f"{index}: not a safetensors index ({error}); copy the file again") from None
    if not names:
        raise InputError(f"{index}: its weight_map names no file; copy the file again")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(f"{index}: {name!r} is not the name of a safetensors file beside it")
    return names


def _open(file: Path) -> Any:
    if is_lfs_pointer(file):
        raise lfs_pointer_error(file)
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        size = f"{file.stat().st_size} bytes"
        raise InputError(f"{file}: damaged or truncated ({size}; {error}); copy the file again") from None
