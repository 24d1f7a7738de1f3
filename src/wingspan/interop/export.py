"""Export a placement to an engine's file and read it back, so that nothing wrong leaves the house."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wingspan.errors import InputError, RunError
from wingspan.interop import sglang, tensorrt_llm, vllm
from wingspan.interop.physical import ImportOptions, fill_empty
from wingspan.specs.placement import EMPTY, Placement
from wingspan.specs.stored_placement import StoredPlacement


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


def target(engine: str) -> Target:
    """An engine by its name; raises `InputError` where there is none."""
    if engine not in ENGINES:
        raise InputError(f"engine {engine!r} is unknown; use one of {', '.join(ENGINES)}")
    return ENGINES[engine]


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
