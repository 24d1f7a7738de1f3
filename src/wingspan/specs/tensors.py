"""Names, shapes and dtypes of a checkpoint's tensors, from the headers of its files: no weight is read.

A safetensors file begins with 8 bytes that hold the length of its header, which is JSON. Source:
huggingface/safetensors, README.md, section Format.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from wingspan.errors import InputError
from wingspan.reading import is_lfs_pointer, lfs_pointer_error

_LARGEST_HEADER_BYTES = 100_000_000
"""More is no header."""


@dataclass(frozen=True)
class Tensor:
    """One as its file has it; `dtype` as safetensors spells it (BF16, F8_E4M3, U8 ...)."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def values(self) -> int:
        """Numbers in it, of packed ones those of the packing."""
        return prod(self.shape)


def tensors_in(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the folder's safetensors files, by name; none where it has no such file.

    Raises:
        InputError: a file is damaged, or stands for one that was not fetched.
    """
    return {
        name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in header(file).items()
    }


def header(file: Path) -> dict[str, Tensor]:
    """The tensors of one file.

    Raises:
        InputError: as `tensors_in`.
    """
    if is_lfs_pointer(file):
        raise lfs_pointer_error(file)
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > min(_LARGEST_HEADER_BYTES, file.stat().st_size):
                raise InputError(f"{file}: not a safetensors file, or cut off; fetch it again")
            said = json.loads(stream.read(length))
        return {
            name: Tensor(tuple(map(int, about["shape"])), str(about["dtype"]))
            for name, about in said.items()
            if name != "__metadata__" and "dtype" in about
        }
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{file}: not a safetensors file, or cut off; fetch it again") from None
