"""Import an engine's file, whichever kind it is: a placement, a routing trace, or a recorded load."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.interop import (
    sglang,
    sglang_recorder,
    tensorrt_llm,
    tensorrt_llm_statistics,
    vllm,
    vllm_statistics,
)
from wingspan.interop.files import read_json, read_json_lines
from wingspan.interop.physical import ImportOptions
from wingspan.interop.torch_file import read_torch_file
from wingspan.routing.recorded_load import RecordedLoad
from wingspan.routing.trace import RoutingTrace
from wingspan.specs.stored_placement import StoredPlacement

Imported = StoredPlacement | RoutingTrace | RecordedLoad
ENGINES = ("sglang", "vllm", "vllm-ascend", "tensorrt-llm")
_FIELDS = frozenset(field.name for field in fields(ImportOptions))


def import_from(engine: str, path: Path, options: ImportOptions) -> Imported:
    """Read what an engine wrote.

    Args:
        engine: one of `ENGINES`; what vLLM Ascend writes shows in the file, so vllm reads it too.
        path: a file or folder of the engine.
        options: what it does not say itself.

    Raises:
        InputError: an unknown engine, or a file that is not of its making.
    """
    try:
        return _import_from(engine, path, options)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        # Others' formats, of which any part may be of another type than they say.
        raise InputError(f"{path}: not what {engine} writes ({type(error).__name__}: {error})") from None


def import_all_said(engine: str, path: Path, options: ImportOptions) -> Imported:
    """As `import_from`, and refuses what the file has no use for: which values it needs shows only in it.

    Raises:
        InputError: as `import_from`; or a value was given and never asked for.
    """
    watched = _Watched(**vars(options))
    found = import_from(engine, path, watched)
    for field in _FIELDS - vars(watched).get("used", set()):
        if vars(options)[field] is not None:
            raise InputError(f"`{field}`: what {path} holds has no use for it; leave it out")
    return found


class _Watched(ImportOptions):
    """Options that remember which of them were asked for."""

    def __getattribute__(self, name: str) -> Any:
        if name in _FIELDS:
            vars(self).setdefault("used", set()).add(name)
        return super().__getattribute__(name)


def _import_from(engine: str, path: Path, options: ImportOptions) -> Imported:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if engine == "sglang":
        return _from_sglang(path, options)
    if engine in ("vllm", "vllm-ascend"):
        return _from_vllm(path, options)
    if engine == "tensorrt-llm":
        if path.is_dir():
            return tensorrt_llm_statistics.read_folder(path, options)
        return tensorrt_llm.read(path, options)
    raise InputError(f"engine {engine!r} is unknown; use one of {', '.join(ENGINES)}")


def _from_sglang(path: Path, options: ImportOptions) -> Imported:
    if path.suffix == ".csv" or (path.is_dir() and any(path.glob("*.csv"))):
        return sglang_recorder.read_csv(path, options)
    if path.is_dir():
        dumps = sorted(path.glob("*.pt"))
        if not dumps:
            raise InputError(f"{path}: no .pt or .csv dump in this folder")
        if len(dumps) == 1:
            return _from_sglang(dumps[0], options)
        return sglang_recorder.read_records(dumps, options)
    data = read_torch_file(path) if path.suffix == ".pt" else read_json(path)
    if isinstance(data, dict) and "logical_count" in data:
        return sglang_recorder.read_counts(data, str(path), options)
    if isinstance(data, dict) and "records" in data:
        return sglang_recorder.read_records([path], options)
    return sglang.from_map(data, str(path), options)


def _from_vllm(path: Path, options: ImportOptions) -> Imported:
    if path.is_dir() or path.suffix in (".npy", ".npz"):
        return vllm_statistics.read_routed_experts(path, options)
    if path.suffix == ".jsonl":
        kinds = [record.get("record_type") for record in read_json_lines(path)]
        if "eplb_load_stats" in kinds:
            return vllm_statistics.read_load_statistics(path, options)
    return vllm.read(path, options)


def read_engine_placement(path: Path, options: ImportOptions) -> StoredPlacement:
    """An engine's placement, whichever engine's it shows to be.

    Raises:
        InputError: it is no engine's placement.
        NotSaidError: something is open that `options` do not say.
    """
    found = import_from(_engine_of(path), path, options)
    if not isinstance(found, StoredPlacement):
        raise InputError(f"{path}: holds no placement; it is routing that an engine recorded")
    return found


def _engine_of(path: Path) -> str:
    if path.suffix in (".yaml", ".yml"):
        return "tensorrt-llm"
    data = None if path.suffix == ".jsonl" else read_json(path)
    of_sglang = isinstance(data, dict) and "physical_to_logical_map" in data and "format" not in data
    return "sglang" if of_sglang else "vllm"
