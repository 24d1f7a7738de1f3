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
"""One document in this many, chosen by the hash of its name, is never trained on."""

SKIPPED_FOLDERS = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "__pycache__",
    "lib2to3",
    "ensurepip",
    "config",
}


@dataclass(frozen=True)
class Document:
    """One text: its kind (a key of `SHARES`), its name within the standard library, and its content."""

    kind: str
    name: str
    text: str

    @property
    def held_out(self) -> bool:
        """Whether it is kept for validation; depends on the name alone, so it is the same everywhere."""
        return hashlib.sha256(self.name.encode()).digest()[0] % HELD_OUT_EVERY == 0


def standard_library() -> list[Document]:
    """All documents, in the order of their names."""
    root = Path(sysconfig.get_path("stdlib"))
    documents: list[Document] = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not SKIPPED_FOLDERS.intersection(path.relative_to(root).parts):
            documents.extend(_documents_of(path, name))
    return documents


def _documents_of(path: Path, name: str) -> Iterator[Document]:
    if path.suffix == ".txt":
        yield Document("prose", name, path.read_text("utf-8", errors="replace"))
    elif path.suffix == ".py":
        source = path.read_text("utf-8", errors="replace")
        if name.startswith("pydoc_data/"):
            yield from _help_topics(source, name)
        elif name.startswith("encodings/") or name in {"html/entities.py", "stringprep.py"}:
            yield Document("table", name, source)
        else:
            yield Document("code", name, source)
            yield Document("prose", f"{name} docstrings", _docstrings(source))


def _docstrings(source: str) -> str:
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a few templates in the library are not programs
        return ""
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, nodes))
    return "\n\n".join(text for text in found if text)


def _help_topics(source: str, name: str) -> Iterator[Document]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                    yield Document("prose", f"{name} {key.value}", str(value.value))


def streams(documents: list[Document], *, held_out: bool) -> dict[str, Tensor]:
    """Each kind's bytes, (N,): documents in the order of their names' hashes, each closed by the end token."""
    chosen = [d for d in documents if d.held_out == held_out and d.text]
    chosen.sort(key=lambda d: hashlib.sha256(d.name.encode()).hexdigest())
    ids: dict[str, list[int]] = {kind: [] for kind in SHARES}
    for document in chosen:
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
