"""Which types of model run, read without torch: what `python -m benchmarks.registry` wrote down when it tried each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wingspan.writing import json_text, write_text

TABLE = Path(__file__).with_name("model_types.json")


@dataclass(frozen=True)
class TypeSupport:
    """What is known of one type.

    Args:
        checked: dtypes in which a run equals plain transformers; empty where it does not run.
        why: it does not.
        text: the type of the part that makes text, of a wrapper of several parts.
    """

    checked: tuple[str, ...] = ()
    why: str | None = None
    text: str | None = None

    @property
    def runs(self) -> bool:
        """Whether a checkpoint of it runs."""
        return self.why is None


@dataclass(frozen=True)
class TypeTable:
    """Every type that was tried, and with which version of transformers."""

    transformers: str
    types: Mapping[str, TypeSupport]


@cache
def type_table() -> TypeTable:
    """The table as it lies in the package."""
    read = json.loads(TABLE.read_text(encoding="utf-8"))
    types = {
        kind: TypeSupport(tuple(said.get("checked", ())), said.get("why"), said.get("text"))
        for kind, said in read["types"].items()
    }
    return TypeTable(read["transformers"], types)


def write_type_table(table: TypeTable, file: Path = TABLE) -> None:
    """A line for each type, sorted."""
    lines = [
        f"  {json_text(kind)}: {json_text(_written(said))}" for kind, said in sorted(table.types.items())
    ]
    text = ",\n".join(lines)
    write_text(file, f'{{"transformers": {json_text(table.transformers)}, "types": {{\n{text}\n}}}}\n')


def _written(said: TypeSupport) -> dict[str, object]:
    fields = {"text": said.text, "checked": list(said.checked), "why": said.why}
    return {name: value for name, value in fields.items() if value}
