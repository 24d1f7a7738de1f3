"""Text that every Python installation has: several kinds, in a fixed order, part of it held out.

Everything comes from the running interpreter's own standard library; nothing is fetched.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wingspan.models.tokenizer import END_ID

SHARES = {"code": 0.60, "prose": 0.30, "table": 0.10}
"""Kinds of text, with the share of training windows each gets: programs; documentation strings and help topics;
tables of character codes. They differ enough for experts to specialise."""

HELD_OUT_EVERY = 16
"""One file in this many, chosen by the hash of its name, is never trained on: neither its code nor its words."""

SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "__pycache__", "lib2to3", "ensurepip"}


@dataclass(frozen=True)
class Document:
    """One text: its kind (a key of `SHARES`), the name of its file within the library, and its content."""

    kind: str
    name: str
    text: str


def is_held_out(name: str) -> bool:
    """Whether the file is kept for validation; decided by its name alone, so the same on every machine."""
    return _hash(name)[0] % HELD_OUT_EVERY == 0


def standard_library(*, held_out: bool) -> list[Document]:
    """The held-out documents, or all others, in an order that mixes the library's packages."""
    root = Path(sysconfig.get_path("stdlib"))
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    names = (name for name in files if not SKIPPED_FOLDERS.intersection(Path(name).parts))
    chosen = sorted((name for name in names if is_held_out(name) == held_out), key=_hash)
    return [document for name in chosen for document in _documents_of(files[name], name)]


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _documents_of(path: Path, name: str) -> Iterator[Document]:
    if path.suffix == ".txt":
        yield Document("prose", name, path.read_text("utf-8", errors="replace"))
    elif path.suffix == ".py":
        source = path.read_text("utf-8", errors="replace")
        if name.startswith("pydoc_data/"):
            yield Document("prose", name, _help_topics(source))
        elif name.startswith("encodings/") or name in {"html/entities.py", "stringprep.py"}:
            yield Document("table", name, source)
        else:
            yield Document("code", name, source)
            yield Document("prose", name, _docstrings(source))


def _docstrings(source: str) -> str:
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, nodes))
    return "\n\n".join(text for text in found if text)


def _help_topics(source: str) -> str:
    tables = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Dict))
    values = (value for table in tables for value in table.values)
    return "\n\n".join(str(value.value) for value in values if isinstance(value, ast.Constant))


def streams(documents: list[Document]) -> dict[str, Tensor]:
    """Each kind's bytes, (N,): its documents one after the other, each closed by the end token."""
    ids: dict[str, list[int]] = {kind: [] for kind in SHARES}
    for document in documents:
        if document.text:
            ids[document.kind].extend(document.text.encode())
            ids[document.kind].append(END_ID)
    return {kind: torch.tensor(values, dtype=torch.int16) for kind, values in ids.items()}


def fingerprint(parts: dict[str, Tensor]) -> str:
    """Short hash of all streams: two trainings with the same one saw the same text."""
    digest = hashlib.sha256()
    for kind in sorted(parts):
        digest.update(parts[kind].numpy().tobytes())
    return digest.hexdigest()[:12]


def sample_batch(parts: dict[str, Tensor], sequences: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw windows of `length` ids, kinds by `SHARES`, places evenly: (sequences, length) int64."""
    kinds = list(SHARES)
    drawn = torch.multinomial(torch.tensor(list(SHARES.values())), sequences, True, generator=generator)
    windows = [_window(parts[kinds[int(kind)]], length, generator) for kind in drawn]
    return torch.stack(windows).long()


def fixed_batch(stream: Tensor, sequences: int, length: int) -> Tensor:
    """`sequences` windows of `length` ids at even distances over one stream: (sequences, length) int64."""
    starts = torch.linspace(0, len(stream) - length, sequences).long().tolist()
    return torch.stack([stream[start : start + length] for start in starts]).long()


def _window(stream: Tensor, length: int, generator: torch.Generator) -> Tensor:
    start = int(torch.randint(len(stream) - length, (), generator=generator))
    return stream[start : start + length]
