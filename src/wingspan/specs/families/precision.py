"""In which precision a checkpoint was published, from its config.

Each library that quantises names its format in its own way; `ignore` lists say which modules it left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from wingspan.errors import InputError
from wingspan.specs.families.reader import Reader
from wingspan.specs.precision import Precision

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_KNOWN = ("fp8", "fbgemm_fp8", "mxfp4", "compressed-tensors", "modelopt", "awq", "gptq")
_ATTENTION = ("model.layers.{}.self_attn.o_proj", "language_model.model.layers.{}.self_attn.o_proj")
_EXPERT = (
    "model.layers.{}.mlp.experts.0.down_proj",
    "language_model.model.layers.{}.mlp.experts.0.down_proj",
)
"""Modules whose treatment stands for all of their part, as checkpoints name them."""


def precisions_of(reader: Reader) -> tuple[Precision, Precision]:
    """Read the published precision of all weights but the experts, and that of the experts.

    Raises:
        InputError: the format is not known.
    """
    dtype = reader.optional("dtype", "torch_dtype") or "bfloat16"
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InputError(f"{reader.source}: dtype {dtype!r} is not one of {', '.join(_DTYPES)}")
    plain = Precision(_DTYPES[dtype])
    quantization = reader.optional("quantization_config")
    if quantization is None:
        return plain, plain
    if not isinstance(quantization, Mapping):
        raise InputError(f"{reader.source}: quantization_config = {quantization!r} must be an object")
    found = _format(reader, quantization)
    if quantization.get("quant_method") == "mxfp4":
        return plain, found
    middle = reader.integer("num_hidden_layers", "n_layers", "num_layers", default=2) // 2
    ignored = _ignored(quantization)
    parts = (_left_alone(names, middle, ignored) for names in (_ATTENTION, _EXPERT))
    attention, experts = (plain if alone else found for alone in parts)
    # DeepSeek-V4 says it beside the format of the rest.
    if (quantization.get("expert_dtype") or reader.optional("expert_dtype")) == "fp4":
        experts = Precision.FP4
    return attention, experts


def _format(reader: Reader, said: Mapping[str, Any]) -> Precision:
    method = str(
        said.get("quant_method", said.get("producer", {}).get("name") if "producer" in said else None)
    )
    if method in ("fp8", "fbgemm_fp8"):
        return Precision.FP8
    if method == "mxfp4":
        return Precision.FP4
    if method.startswith("modelopt"):
        algorithm = next((p.get("quant_algo") for p in _places(said) if p.get("quant_algo")), None)
        known = {"FP8": Precision.FP8, "NVFP4": Precision.NVFP4, "W4A16_AWQ": Precision.INT4}
        if isinstance(algorithm, str) and algorithm in known:
            return known[algorithm]
        raise InputError(
            f"{reader.source}: quantization_config.quant_algo {algorithm!r} is not known ({', '.join(known)} are)"
        )
    if method in ("awq", "gptq"):
        return _integers(
            reader, said.get("bits", said.get("w_bit")), said.get("group_size", said.get("q_group_size"))
        )
    if method == "compressed-tensors":
        return _compressed(reader, said)
    raise InputError(
        f"{reader.source}: quantization_config.quant_method {method!r} is not known ({', '.join(_KNOWN)} are); "
        "remove quantization_config and give the precision of the weights in the workload"
    )


def _compressed(reader: Reader, said: Mapping[str, Any]) -> Precision:
    groups = said.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if not isinstance(weights, Mapping):
        raise InputError(f"{reader.source}: quantization_config.config_groups names no format of weights")
    bits, kind = weights.get("num_bits"), weights.get("type")
    if kind == "float" and bits in (4, 8):
        if bits == 8:
            return Precision.FP8
        return Precision.NVFP4 if weights.get("group_size") == 16 else Precision.FP4
    return _integers(reader, bits, weights.get("group_size"))


def _integers(reader: Reader, bits: object, group: object) -> Precision:
    if bits == 8:
        return Precision.INT8
    if bits == 4:
        return Precision.INT4_G32 if group == 32 else Precision.INT4
    raise InputError(
        f"{reader.source}: quantization_config: weights of {bits!r} bits are not known (4 and 8 are)"
    )


def _ignored(said: Mapping[str, Any]) -> list[str]:
    """Modules that are left alone: names, parts of names, `re:` expressions or patterns with `*`."""
    keys = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers")
    lists = [place.get(key) for place in _places(said) for key in keys]
    return [name for found in lists if isinstance(found, list) for name in found if isinstance(name, str)]


def _places(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is said at the top, and below `quantization`, where ModelOpt says it."""
    inner = said.get("quantization")
    return [said, inner] if isinstance(inner, Mapping) else [said]


def _left_alone(names: tuple[str, ...], layer: int, ignored: list[str]) -> bool:
    written = [name.format(layer) for name in names]
    return any(_fits(pattern, name) for pattern in ignored for name in written)


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], name) is not None
        except re.error:
            return False
    if "*" in pattern:
        return re.fullmatch(re.escape(pattern).replace(r"\*", ".*") + r"(\..*)?", name) is not None
    return f".{pattern}." in f".{name}."
