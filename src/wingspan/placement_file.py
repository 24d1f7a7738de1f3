"""A placement's file, Wingspan's or an engine's, or a deployment's: how it is read and written."""

from __future__ import annotations

from pathlib import Path

from wingspan.deployment import load_deployment
from wingspan.errors import InputError
from wingspan.interop.importing import read_engine_placement
from wingspan.interop.physical import ImportOptions
from wingspan.reading import json_value
from wingspan.specs.model import ModelSpec
from wingspan.specs.stored_placement import StoredPlacement
from wingspan.writing import write_json

_ENGINE_KEYS = {"physical_to_logical_map", "model_maps", "layer_list"}
"""Any of them shows that a JSON object is an engine's; Wingspan's own has `slots`."""


def read_placement(path: Path, options: ImportOptions | None = None) -> StoredPlacement:
    """The placement in a file: Wingspan's own JSON, a deployment's, or what a serving engine loads.

    Args:
        path: the file; a JSON object may hold the placement under its key `placement`.
        options: what an engine's file leaves open: ranks, and which of its layers are MoE layers.

    Raises:
        InputError: there is none in it.
        NotSaidError: an engine's file leaves something open that `options` do not say.
    """
    known = options or ImportOptions()
    if path.suffix in (".yaml", ".yml", ".jsonl"):
        return read_engine_placement(path, known)
    try:
        data = json_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if isinstance(data, dict) and "model" in data:
        return _of_deployment(path)
    if isinstance(data, list) or (isinstance(data, dict) and _ENGINE_KEYS & data.keys()):
        return read_engine_placement(path, known)
    try:
        return StoredPlacement.from_dict(data.get("placement", data) if isinstance(data, dict) else data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def placement_of_model(path: Path, model: ModelSpec, ranks: int | None) -> StoredPlacement:
    """The placement in a file for this model; an engine's file is completed by the model, and by `ranks`.

    Raises:
        InputError: as `read_placement`; or an engine's file that does not say over how many ranks.
    """
    return read_placement(path, ImportOptions(ranks, model.experts.count, model.moe_layers, None))


def _of_deployment(path: Path) -> StoredPlacement:
    deployment = load_deployment(path)
    model = deployment.model
    nodes_of = min(deployment.cluster.gpus_per_node, deployment.ranks)
    return StoredPlacement(deployment.build_placement(), model.moe_layers, model.layers, nodes_of)


def write_placement(stored: StoredPlacement, path: Path) -> None:
    """Write the JSON form."""
    write_json(path, stored.to_dict())
