"""Whether a checkpoint's weights are quantised, and in which format: by what its files say, and by its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wingspan.reading import json_value

_SAID_IN = ("quantization_config", "compression_config")
"""Keys of a configuration, or of a part of it (`text_config` ...), that describe quantised weights."""

_FILES = {"hf_quant_config.json": "ModelOpt", "quantize_config.json": "GPTQ", "quant_config.json": "AWQ"}
"""Files beside the configuration that describe quantised weights, and whose they are."""

_LONGEST_NAME = 120

_ENDINGS = {
    "weight_scale_2": "NVFP4",
    "weight_global_scale": "NVFP4",
    "weight_packed": "packed integers of compressed-tensors",
    "weight_scale_inv": "FP8 in blocks",
    "_scale_inv": "FP8 in blocks",
    "_blocks": "MXFP4",
    "_scales": "MXFP4",
    "qweight": "GPTQ or AWQ",
    "qzeros": "GPTQ or AWQ",
    "g_idx": "GPTQ or AWQ",
    "absmax": "bitsandbytes",
    "quant_map": "bitsandbytes",
    "bitsandbytes__nf4": "bitsandbytes",
    "bitsandbytes__fp4": "bitsandbytes",
    "SCB": "bitsandbytes",
    "W_q": "HQQ",
    "weight_scale": "scaled weights",
    "weight_zero_point": "scaled weights",
    "weight_shape": "packed integers of compressed-tensors",
    "input_scale": "scaled activations",
    "activation_scale": "scaled activations",
    "k_scale": "a scaled KV cache",
    "v_scale": "a scaled KV cache",
    "scales": "scaled weights",
    "_scale": "scaled weights",
}
"""How the names of tensors end that only a quantised checkpoint has, the telling ones first."""


def format_said(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The format that the configuration or a file beside it names; None where they name none.

    Args:
        folder: of the checkpoint, or its configuration file alone.
        config: the configuration as its file has it.
    """
    for said in _within(config):
        return _format(said)
    if folder.is_dir():
        for name, owner in _FILES.items():
            beside = _read(folder / name)
            if beside:
                return _format({"quant_method": owner, **beside})
    return None


def settings_said(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of quantised weights, those of compressed-tensors' first group of modules among it; {}: nothing.

    Args:
        folder: of the checkpoint, or its configuration file alone.
        config: the configuration as its file has it.
    """
    said = next(iter(_within(config)), None)
    if said is None:
        said = next((found for name in _FILES if (found := _read(folder / name))), {})
    groups = said.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = first.get("weights") if isinstance(first, dict) else None
    return {**said, **(weights if isinstance(weights, dict) else {})}


def format_of_dtype(dtype: str) -> str:
    """A name for weights that are stored as `dtype` (safetensors' notation) and are not plain floating point."""
    return f"FP{dtype[1]}" if dtype[:1] == "F" and dtype[1:2].isdigit() else f"integers ({dtype})"


def format_of_names(names: Iterable[str]) -> str | None:
    """The format that the names of tensors without a place in the model give away; None where they tell of none."""
    names = list(names)
    return next((kind for end, kind in _ENDINGS.items() if any(n.endswith(end) for n in names)), None)


def _within(config: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Descriptions of quantised weights in a configuration, or in a part of it."""
    for key in _SAID_IN:
        if isinstance(config.get(key), dict) and config[key]:
            yield config[key]
    for value in config.values():
        if isinstance(value, dict):
            yield from _within(value)


def _read(file: Path) -> dict[str, Any] | None:
    """What a file says of quantisation; None where it is not there or says none."""
    if not file.is_file():
        return None
    try:
        data = json_value(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    said = data.get("quantization", data) if isinstance(data, dict) else {}
    if isinstance(said, dict) and "quant_algo" in said and not _algorithms(said):
        return None
    return said if isinstance(said, dict) else {}


def _format(said: Mapping[str, Any]) -> str:
    """A format by its usual name, with what tells its variants apart."""
    method = str(said.get("quant_method") or "")
    details = _algorithms(said) or _of_groups(said)
    bits = said.get("bits") or said.get("w_bit")
    if not details and isinstance(bits, int):
        details = [f"{bits} bits"]
    if said.get("load_in_4bit") or said.get("load_in_8bit"):
        details = ["4 bits" if said.get("load_in_4bit") else "8 bits"]
    if isinstance(block := said.get("weight_block_size"), list):
        details = [*details, f"blocks of {' x '.join(map(str, block))}"]
    name = method.upper() if method.lower() in ("fp8", "mxfp4", "gptq", "awq", "hqq") else method
    text = f"{name or 'a method without a name'}, {', '.join(details)}" if details else name
    return " ".join(text.split())[:_LONGEST_NAME] or "a method without a name"


def _algorithms(said: Mapping[str, Any]) -> list[str]:
    weights, cache = said.get("quant_algo"), said.get("kv_cache_quant_algo")
    return [str(weights)] * bool(weights) + [f"KV cache {cache}"] * bool(cache)


def _of_groups(said: Mapping[str, Any]) -> list[str]:
    """What compressed-tensors says of its weights: INT4, FP8 ... and how they are packed."""
    groups = said.get("config_groups")
    found = []
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict):
            kind = "FP" if weights.get("type") == "float" else "INT"
            found.append(f"{kind}{weights.get('num_bits', '')}")
    packed = said.get("format")
    return sorted(set(found)) + ([str(packed)] if packed else [])
