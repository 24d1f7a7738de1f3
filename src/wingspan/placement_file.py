"""A placement's JSON file, or a deployment's: how it is read and written."""

from __future__ import annotations

from pathlib import Path

from wingspan.deployment import load_deployment
from wingspan.errors import InputError
from wingspan.reading import json_value
from wingspan.specs.stored_placement import StoredPlacement
from wingspan.writing import write_json


def read_placement(path: Path) -> StoredPlacement:
    """The placement in a JSON file, under its key `placement`, or of a deployment; `InputError` where there is none."""
    try:
        data = json_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if isinstance(data, dict) and "model" in data:
        return _of_deployment(path)
    try:
        return StoredPlacement.from_dict(data.get("placement", data) if isinstance(data, dict) else data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _of_deployment(path: Path) -> StoredPlacement:
    deployment = load_deployment(path)
    model = deployment.model
    nodes_of = min(deployment.cluster.gpus_per_node, deployment.ranks)
    return StoredPlacement(deployment.build_placement(), model.moe_layers, model.layers, nodes_of)


def write_placement(stored: StoredPlacement, path: Path) -> None:
    """Write the JSON form."""
    write_json(path, stored.to_dict())
