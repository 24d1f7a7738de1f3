"""Reading what a user gave: plain data of JSON and YAML texts, and pointers in the place of files.

A text that is wrong in any way raises the format's own error and nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from wingspan.errors import InputError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a pointer file begins. Source: git-lfs/git-lfs, docs/spec.md."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Plain data only, ten times faster where PyYAML was built with libyaml."""


def json_value(text: str | bytes) -> Any:
    """The value of a JSON text; raises `json.JSONDecodeError` alone, whatever is wrong with it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError as error:  # a number of thousands of digits, bytes of no encoding
        raise json.JSONDecodeError(str(error), "", 0) from None


def yaml_value(text: str) -> Any:
    """The value of a YAML text, plain data only; raises `yaml.YAMLError` alone, whatever is wrong with it."""
    try:
        return yaml.load(text, Loader=_LOADER)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, TypeError) as error:  # a day that no month has, a number of thousands of digits
        raise yaml.YAMLError(str(error)) from None


_KINDS = (
    ({"schema_version", "model", "cluster"}, "a deployment"),
    ({"schema_version", "slots"}, "a placement"),
    ({"num_experts", "slots"}, "a placement"),
    ({"physical_to_logical_map"}, "an engine's placement"),
    ({"schema", "moe_layers"}, "a recorded load"),
    ({"gpus_per_node", "gpu"}, "a cluster"),
    ({"step_seconds", "layer_seconds"}, "an engine's profile"),
    ({"model_type"}, "a model's configuration"),
)
"""Keys that show what a file holds."""


def check_kind(data: object, source: str, wanted: str) -> None:
    """Raise `InputError` where the keys show that a file holds something else than is `wanted`, as `a cluster`."""
    keys = set(data) if isinstance(data, dict) else set()
    found = next((kind for shown, kind in _KINDS if shown <= keys), wanted)
    if found != wanted:
        raise InputError(f"{source}: holds {found}, and {wanted} is wanted")


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what `git clone` leaves without Git LFS: a few lines that stand for the real one."""
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False


def lfs_pointer_error(path: Path) -> InputError:
    """What to say of such a file."""
    return InputError(f"{path}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
