"""Read files of `torch.save` without torch: tensors come out as numpy arrays, and nothing but data is ever built.

Format: a ZIP archive whose `<name>/data.pkl` is a pickle in which each tensor points to a raw `<name>/data/<key>`.
Only the classes that plain data needs are allowed, so a file cannot run code. Source: pytorch/pytorch,
torch/serialization.py and torch/_utils.py (`_rebuild_tensor_v2`).
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError

_STORAGES = {
    "BoolStorage": "?", "ByteStorage": "u1", "CharStorage": "i1", "ShortStorage": "<i2", "IntStorage": "<i4",
    "LongStorage": "<i8", "HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8",
}  # fmt: skip


def read_torch_file(path: Path) -> Any:
    """The object in the file, tensors as arrays; raises `InputError` where it holds anything but data."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_stored(archive, path)
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise InputError(f"{path}: not a file of torch.save (no data.pkl in it)")
            folder = pickles[0].removesuffix("data.pkl")
            return _Unpickler(archive, folder).load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except Exception as error:  # There is no end to what a damaged archive or pickle raises.
        raise InputError(f"{path}: not a file of torch.save that holds plain data ({error})") from None


def _check_stored(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise `InputError` where entries are compressed, which torch.save never does and which can unpack without end."""
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise InputError(f"{path}: not a file of torch.save ({entry.filename} is compressed)")


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, texts and arrays; refuses every other class."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(folder + "data.pkl")))
        self._archive = archive
        self._folder = folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it wants to build {module}.{name}")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        kind, dtype, key, _, count = pid
        if kind != "storage" or dtype not in _STORAGES.values():
            raise pickle.UnpicklingError(f"it points to a {kind} of {dtype}")
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), dtype=dtype)[:count]


def _rebuild_tensor(
    storage: NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    if 0 in size:
        return np.empty(size, dtype=storage.dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if offset < 0 or min(size, default=1) < 0 or min(stride, default=0) < 0 or last >= len(storage):
        raise pickle.UnpicklingError("a tensor reaches beyond its data")
    if math.prod(size) > len(storage):
        raise pickle.UnpicklingError("a tensor has more numbers than its data")
    steps = tuple(s * storage.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).copy()
