"""Clusters as people write them: a preset or a file, what differs from one, and both on one line.

`h100-sxm+efa+gpus_per_node=4` is the preset `h100-sxm`, with what the variant `efa` says of its network, in nodes of
four. A file says the same by `base: h100-sxm+efa` and the keys that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from math import gcd
from pathlib import Path
from typing import Any

import yaml

from wingspan.errors import InputError
from wingspan.reading import check_kind, yaml_value
from wingspan.specs.reading import near_name, read_yaml

_PRESETS = "clusters"
_VARIANTS = "cluster_variants"
_WHOLE = {"peak_flops"}
"""Tables that replace the base's: a GPU without FP8 has none of another's."""


def cluster_data(text: str, within: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keys of a cluster, whichever way it is written.

    Args:
        text: NAME, or NAME+PART+PART: the name of a preset or the path of a YAML file, then variants and `key=value`.
        within: the files whose `base` led here.

    Raises:
        InputError: neither a preset nor a readable file, an unknown variant, or bases that lead in a circle.
    """
    if text in cluster_presets() or Path(text).is_file():
        return _file_data(text, within)
    name, *parts = text.split("+")
    if not parts or not (name in cluster_presets() or Path(name).is_file()):
        raise InputError(
            f"{name}: neither a cluster file nor a preset{_known(name, 'presets', cluster_presets())}"
        )
    data = _file_data(name, within)
    for part in parts:
        data = merged(data, _part(text, part))
    return data | {"name": text}


def has_any_size(text: str) -> bool:
    """Whether a cluster's text says what its nodes are but not how many: a preset, alone or changed.

    Raises:
        InputError: a file that is not YAML.
    """
    if text in cluster_presets():
        return True
    if Path(text).is_file():
        data = read_yaml(Path(text))
        base = data.get("base")
        return "nodes" not in data and isinstance(base, str) and has_any_size(_beside(text, base))
    name, *parts = text.split("+")
    return bool(parts) and has_any_size(name) and not any(part.startswith("nodes=") for part in parts)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What `base` says, with `changes` key by key, also inside mappings.

    Nodes of another size keep what scale-up domains and shared network cards they can, unless these are given too.
    """
    data = _deep(base, changes)
    node, resized = base.get("gpus_per_node"), data.get("gpus_per_node")
    if resized != node and _counts(node, resized, base.get("scale_up_domain_gpus"), data.get("nodes")):
        if "scale_up_domain_gpus" not in changes:
            data["scale_up_domain_gpus"] = resized_domain(
                base["scale_up_domain_gpus"], base["gpus_per_node"], data["gpus_per_node"], data["nodes"]
            )
        if "gpus_per_network_card" in base and "gpus_per_network_card" not in changes:
            data["gpus_per_network_card"] = min(base["gpus_per_network_card"], data["gpus_per_node"])
    return data


def resized_domain(domain: int, node: int, resized: int, nodes: int) -> int:
    """The scale-up domain of nodes of another size.

    A domain of whole nodes stays of as many nodes. One that is part of a node stays as wide, as far as nodes of
    the new size consist of such domains: several nodes of three GPUs, cut from pairs, hold no whole number.

    Args:
        domain: GPUs of a domain before.
        node: GPUs of a node before.
        resized: GPUs of a node from now on.
        nodes: their number.
    """
    if domain >= node:
        return domain // node * resized
    return gcd(domain, resized) if nodes > 1 else min(domain, resized)


def cluster_presets() -> list[str]:
    """Names of the clusters that come with Wingspan."""
    return _names(_PRESETS)


def cluster_variants() -> list[str]:
    """Names of what can be added to a cluster by `+`."""
    return _names(_VARIANTS)


def said_of(folder: str, name: str) -> str:
    """The first line of a preset's file, which says in a sentence what it is."""
    text = (resources.files("wingspan.specs") / "presets" / folder / f"{name}.yaml").read_text("utf-8")
    return text.splitlines()[0].removeprefix("#").strip()


def described_presets() -> dict[str, str]:
    """Every cluster preset and what it is."""
    return {name: said_of(_PRESETS, name) for name in cluster_presets()}


def described_variants() -> dict[str, str]:
    """Every variant and what it is."""
    return {name: said_of(_VARIANTS, name) for name in cluster_variants()}


def _names(folder: str) -> list[str]:
    files = (resources.files("wingspan.specs") / "presets" / folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def _file_data(name: str, within: tuple[str, ...]) -> dict[str, Any]:
    """A preset's or a file's keys, on top of those of its `base`."""
    if name in within:
        raise InputError(f"{name}: its base leads back to itself ({' -> '.join((*within, name))})")
    data = _shipped(_PRESETS, name) if name in cluster_presets() else read_yaml(Path(name))
    check_kind(data, name, "a cluster")
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise InputError(f"{name}: base = {base!r}: give a preset's name or a cluster file")
    below = cluster_data(_beside(name, base), (*within, name))
    return merged(below, {"name": Path(name).stem} | data)


def _beside(name: str, base: str) -> str:
    """The base of a file: a file that lies beside it, else what `base` says."""
    beside = Path(name).parent / base
    return str(beside) if beside.is_file() else base


def _shipped(folder: str, name: str) -> dict[str, Any]:
    with resources.as_file(resources.files("wingspan.specs") / "presets" / folder / f"{name}.yaml") as path:
        return read_yaml(path)


def _part(text: str, part: str) -> dict[str, Any]:
    """What one part behind a `+` changes."""
    key, equals, value = part.partition("=")
    if not equals:
        if part not in cluster_variants():
            raise InputError(
                f"{text}: no variant {part!r}{_known(part, 'variants', cluster_variants())}; "
                "or write KEY=VALUE with a key of the cluster file"
            )
        return _shipped(_VARIANTS, part)
    try:
        changes: Any = yaml_value(value)
    except yaml.YAMLError:
        raise InputError(f"{text}: {part}: not a value as YAML has them") from None
    for name in reversed(key.replace("-", "_").split(".")):
        changes = {name: changes}
    return dict(changes)


def _deep(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    data = dict(base)
    for key, value in changes.items():
        old = data.get(key)
        if key == "kernels" and isinstance(old, str) and isinstance(value, Mapping):
            old = {"base": old}
        if isinstance(old, Mapping) and isinstance(value, Mapping) and key not in _WHOLE:
            data[key] = _deep(old, value)
        else:
            data[key] = value
    return data


def _counts(*values: object) -> bool:
    """Whether all are numbers of something; what is not is refused where the spec is read."""
    return all(isinstance(value, int) and value > 0 for value in values)


def _known(name: str, what: str, known: list[str]) -> str:
    meant = near_name(name, known)
    return (f"; did you mean {meant}?" if meant else ";") + f" {what}: {', '.join(known)}"
