"""Export a placement to an engine's file and read it back, so that nothing wrong leaves the house."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wingspan.errors import InputError, RunError
from wingspan.interop import sglang, tensorrt_llm, vllm
from wingspan.interop.physical import ImportOptions, fill_empty
from wingspan.specs.placement import EMPTY, Placement
from wingspan.specs.stored_placement import StoredPlacement, shown_layers


@dataclass(frozen=True)
class Target:
    """An engine that loads placements.

    Args:
        needs: fields of `StoredPlacement` without which its file or its command line would be wrong.
        write: the placement to a file.
        read: the file back.
        command: the command line that uses the file, of a placement and its ranks per node.
    """

    needs: tuple[str, ...]
    write: Callable[[StoredPlacement, Path], None]
    read: Callable[[Path, ImportOptions], StoredPlacement]
    command: Callable[[Placement, Path, int], str]


def _write_sglang(stored: StoredPlacement, path: Path) -> None:
    sglang.write(stored.placement, path, stored.moe_layers or (), stored.hidden_layers or 0)


def _write_tensorrt_llm(stored: StoredPlacement, path: Path) -> None:
    tensorrt_llm.write(stored.placement, path, stored.moe_layers or ())


ENGINES = {
    "sglang": Target(
        ("moe_layers", "hidden_layers", "ranks_per_node"), _write_sglang, sglang.read, sglang.command
    ),
    "vllm": Target(
        ("ranks_per_node",), lambda stored, path: vllm.write(stored.placement, path), vllm.read, vllm.command
    ),
    "vllm-ascend": Target(
        ("ranks_per_node",),
        lambda stored, path: vllm.write_ascend(stored.placement, path),
        vllm.read,
        vllm.command_ascend,
    ),
    "tensorrt-llm": Target(
        ("moe_layers", "ranks_per_node"), _write_tensorrt_llm, tensorrt_llm.read, tensorrt_llm.command
    ),
}


_MEANINGS = {
    "moe_layers": "the numbers of its MoE layers in the model, as 3-60",
    "hidden_layers": "how many layers the model has in all",
    "ranks_per_node": "how many ranks share a node",
}
"""For each field that an engine may need: what it is."""


def target(engine: str) -> Target:
    """An engine by its name; raises `InputError` where there is none."""
    if engine not in ENGINES:
        raise InputError(f"engine {engine!r} is unknown; use one of {', '.join(ENGINES)}")
    return ENGINES[engine]


def completed(stored: StoredPlacement, engine: str, given: Mapping[str, Any]) -> StoredPlacement:
    """A placement with all that an engine needs: what it says itself, and what is given beside it.

    Args:
        stored: the placement.
        engine: that is to load it.
        given: values by the fields of `StoredPlacement`; None: not given.

    Raises:
        InputError: a value is missing, contradicts what the placement says, or is not needed.
    """
    needs = target(engine).needs
    for field, meaning in _MEANINGS.items():
        value, said = given.get(field), getattr(stored, field)
        if value is not None and field not in needs:
            raise InputError(f"`{field}`: {engine} does not need {meaning}; leave it out")
        if None not in (value, said) and value != said:
            raise InputError(f"`{field}` {_shown(value)}: the file says {_shown(said)}; leave it out")
        if field in needs and value is None and said is None:
            raise InputError(f"it does not say {meaning}, and {engine} needs it; add `{field}`")
    return replace(stored, **{field: value for field, value in given.items() if value is not None})


def _shown(value: Any) -> str:
    return shown_layers(value) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Written:
    """What `export_filled` wrote: the command line that uses the file, and how many empty slots got a replica."""

    command: str
    filled_slots: int


def export_filled(stored: StoredPlacement, engine: str, path: Path) -> Written:
    """As `export`, with replicas in the slots that the placement leaves empty: engines know no empty slot.

    Raises:
        InputError, RunError: as `export` and `fill_empty`.
    """
    empty = int((stored.placement.slots_LRS == EMPTY).sum())
    full = replace(stored, placement=fill_empty(stored.placement)) if empty else stored
    return Written(export(full, engine, path), empty)


def export(stored: StoredPlacement, engine: str, path: Path) -> str:
    """Write the placement as `engine` loads it; returns the command line that uses the file.

    Raises:
        InputError: an unknown engine, something that it needs and the placement does not say, an empty slot, or a
            path that cannot be written.
        RunError: what was written reads back as another placement.
    """
    to = target(engine)
    for field in to.needs:
        if getattr(stored, field) is None:
            raise InputError(f"placement: {field} is not known, and {engine} needs it")
    try:
        to.write(stored, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    placement = stored.placement
    options = ImportOptions(placement.num_ranks, placement.num_experts, stored.moe_layers)
    if to.read(path, options).placement != placement:
        raise RunError(f"{path}: reads back as another placement than was written")
    return to.command(placement, path, stored.ranks_per_node or 1)
