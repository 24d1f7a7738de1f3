"""Read a safetensors file into numpy arrays: 8 bytes with the header's length, a JSON header, the data.

Source: huggingface/safetensors, README.md, section Format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wingspan.errors import InputError

_DTYPES = {
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "F32": "<f4",
    "F64": "<f8",
    "BOOL": "?",
}


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of the file by name; raises `InputError` where it is damaged or holds another dtype."""
    try:
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        tensors = {}
        for name, about in header.items():
            if name == "__metadata__":
                continue
            begin, end = about["data_offsets"]
            raw = data[start + begin : start + end]
            tensors[name] = np.frombuffer(raw, dtype=_DTYPES[about["dtype"]]).reshape(about["shape"])
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a safetensors file of whole numbers ({error})") from None
    return tensors
