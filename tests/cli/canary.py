"""Files that would run code of their own if anything let them: each would touch one file, the canary."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CODE_FILES = (
    "configuration_evil.py",
    "modeling_evil.py",
    "tokenization_evil.py",
    "custom_generate/generate.py",
)
AUTO_MAP = {
    "AutoConfig": "configuration_evil.EvilConfig",
    "AutoModel": "modeling_evil.EvilModel",
    "AutoModelForCausalLM": "modeling_evil.EvilModel",
    "AutoTokenizer": ["tokenization_evil.EvilTokenizer", "tokenization_evil.EvilTokenizer"],
}


class Payload:
    """Pickled, it is a shell command."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self._command,)


def write_all(folder: Path, canary: Path) -> list[Path]:
    """Write every kind of such a file and folder; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    command = f"touch {canary}"
    evil = pickle.dumps({"records": [Payload(command)], "logical_count": Payload(command)})
    _write(folder / "evil.yaml", f"name: !!python/object/apply:os.system ['{command}']\n")
    (folder / "evil.pkl").write_bytes(evil)
    (folder / "dumps").mkdir(exist_ok=True)
    for file in (folder / "evil.pt", folder / "dumps" / "a.pt"):
        _torch_file(file, evil)
    objects = np.array([Payload(command)], dtype=object)
    np.save(folder / "evil.npy", objects, allow_pickle=True)
    np.savez(folder / "dumps" / "a.npz", a=objects)
    _parquet(folder / "evil.parquet", evil)
    checkpoint = folder / "checkpoint"
    write_code(checkpoint, canary)
    _write(checkpoint / "config.json", json.dumps({"model_type": "evil", "auto_map": AUTO_MAP}))
    return sorted(folder.iterdir())


def write_code(checkpoint: Path, canary: Path) -> None:
    """Write code and pickled weights into a checkpoint's folder."""
    for name in CODE_FILES:
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        _write(checkpoint / name, f"import pathlib\npathlib.Path({str(canary)!r}).touch()\n")
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(f"touch {canary}")))


def names(canary: Path) -> Iterator[str]:
    """Texts that a shell, a template or Python would take for code."""
    yield f"x; touch {canary}"
    yield f"$(touch {canary})"
    yield f"`touch {canary}`"
    yield f"../{canary.name}"
    yield f"__import__('os').system('touch {canary}')"
    yield "{{ cycler.__init__.__globals__.os.system('touch " + str(canary) + "') }}"


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _torch_file(file: Path, data: bytes) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)


def _parquet(file: Path, data: bytes) -> None:
    """A column of an extension type as old versions of pyarrow wrote them: with a pickled class in its metadata."""
    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": data}
    column = pa.field("layer_0", pa.int16(), metadata=metadata)
    sink = io.BytesIO()
    schema = pa.schema([column], metadata={b"wingspan.routing_trace": b"{}"})
    pq.write_table(pa.table([pa.array([1], pa.int16())], schema=schema), sink)
    file.write_bytes(sink.getvalue())
