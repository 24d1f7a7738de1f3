"""In which precision a checkpoint was published, from its config.

Each library that quantises names its format in its own way; `ignore` lists say which modules it left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from wingspan.errors import InputError
from wingspan.specs.families.reader import Reader
from wingspan.specs.part_precision import WEIGHTS, PublishedPart, PublishedPrecision
from wingspan.specs.precision import Precision
from wingspan.specs.reading import shown

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_KNOWN = ("fp8", "fbgemm_fp8", "mxfp4", "compressed-tensors", "modelopt", "awq", "gptq")
_MODULES = {
    "attention": ("self_attn.o_proj", "linear_attn.out_proj"),
    "dense": ("mlp.down_proj", "feed_forward.down_proj"),
    "shared": (
        "mlp.shared_experts.down_proj",
        "mlp.shared_expert.down_proj",
        "feed_forward.shared_expert.down_proj",
        "block_sparse_moe.shared_experts.down_proj",
    ),
    "experts": (
        "mlp.experts.0.down_proj",
        "block_sparse_moe.experts.0.w2",
        "feed_forward.experts.0.down_proj",
    ),
}
"""Modules whose treatment stands for all of their part, as checkpoints name them below a layer."""
_OWN_MODULES: dict[str, dict[str, tuple[str, ...]]] = {
    "gemma4_text": {"experts": ("experts.0.down_proj",)},
    "nemotron_h": {
        "attention": ("mixer.out_proj", "mixer.o_proj"),
        "dense": ("mixer.down_proj",),
        "shared": ("mixer.shared_experts.down_proj",),
        "experts": ("mixer.experts.0.down_proj",),
    },
}
"""Those of types that name them otherwise."""
_LAYERS = (
    "model.layers",
    "language_model.model.layers",
    "model.language_model.layers",
    "backbone.layers",
)
_ALGORITHMS = {
    "FP8": PublishedPart(weights=Precision.FP8),
    "NVFP4": PublishedPart(weights=Precision.NVFP4),
    "NVFP4_AWQ": PublishedPart(weights=Precision.NVFP4),
    "W4A16_NVFP4": PublishedPart(weights=Precision.NVFP4, activations=Precision.BF16),
    "W4A16_AWQ": PublishedPart(weights=Precision.INT4, activations=Precision.BF16),
    "W4A8_AWQ": PublishedPart(weights=Precision.INT4, activations=Precision.FP8),
}
"""ModelOpt's names (NVIDIA Model Optimizer, its constants of quantised formats)."""


def published_precision(reader: Reader, places: Mapping[str, int] | None = None) -> PublishedPrecision:
    """Read in which precision every part was published.

    Args:
        reader: the config.
        places: of each part a layer that has it; None: dense MLPs lie in the first, the others in the middle.

    Raises:
        InputError: a format is not known.
    """
    dtype = reader.optional("dtype", "torch_dtype") or "bfloat16"
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InputError(f"{reader.source}: dtype {shown(dtype)} is not one of {', '.join(_DTYPES)}")
    plain = PublishedPart(weights=Precision(_DTYPES[dtype]))
    said = reader.optional("quantization_config")
    if said is None:
        return PublishedPrecision(**dict.fromkeys(WEIGHTS, plain))
    if not isinstance(said, Mapping):
        raise InputError(f"{reader.source}: quantization_config = {shown(said)} must be an object")
    middle = reader.integer("num_hidden_layers", "n_layers", "num_layers", default=2) // 2
    usual = {part: 0 if part == "dense" else middle for part in WEIGHTS}
    layers = {**usual, **(places or {})}
    parts = {part: _part(reader, said, part, layers[part]) or plain for part in WEIGHTS}
    if (said.get("expert_dtype") or reader.optional("expert_dtype")) == "fp4":
        # DeepSeek-V4 says it beside the format of the rest, whose activations its experts take too.
        parts["experts"] = PublishedPart(weights=Precision.MXFP4, activations=Precision.FP8)
    if said.get("moe_quant_algo") is not None:
        parts["experts"] = _algorithm(reader, said["moe_quant_algo"])
    return PublishedPrecision(**parts, kv=_cache(said))


def _part(reader: Reader, said: Mapping[str, Any], part: str, layer: int) -> PublishedPart | None:
    """How a part was quantised; None: it was left alone."""
    method = str(
        said.get("quant_method", said.get("producer", {}).get("name") if "producer" in said else None)
    )
    if method == "mxfp4":
        return PublishedPart(weights=Precision.MXFP4) if part == "experts" else None
    names = _names(reader, part, layer)
    found = _quantised(reader, said, method, names)
    ignored = _ignored(said)
    return None if any(_fits(pattern, name) for pattern in ignored for name in names) else found


def _names(reader: Reader, part: str, layer: int) -> list[str]:
    """Full names that the modules of a part may have in a layer."""
    modules = _OWN_MODULES.get(reader.type, {}).get(part, _MODULES[part])
    return [f"{above}.{layer}.{module}" for above in _LAYERS for module in modules]


def _quantised(
    reader: Reader, said: Mapping[str, Any], method: str, names: list[str]
) -> PublishedPart | None:
    """The format of the modules of these names, ignored ones too; None: none is said for them."""
    if method in ("fp8", "fbgemm_fp8"):
        return PublishedPart(weights=Precision.FP8)
    if method.startswith("modelopt"):
        return _modelopt(reader, said, names)
    if method in ("awq", "gptq"):
        bits, group = (
            said.get("bits", said.get("w_bit")),
            said.get("group_size", said.get("q_group_size")),
        )
        return PublishedPart(weights=_integers(reader, bits, group), activations=Precision.BF16)
    if method == "compressed-tensors":
        return _compressed(reader, said, names)
    raise InputError(
        f"{reader.source}: quantization_config.quant_method {shown(method)} is not known ({', '.join(_KNOWN)} are); "
        "remove quantization_config and give the precision of the weights in the workload"
    )


def _modelopt(reader: Reader, said: Mapping[str, Any], names: list[str]) -> PublishedPart | None:
    algorithm = next((place.get("quant_algo") for place in _places(said) if place.get("quant_algo")), None)
    if algorithm == "MIXED_PRECISION":
        layers = next((p["quantized_layers"] for p in _places(said) if "quantized_layers" in p), None)
        each = layers.items() if isinstance(layers, Mapping) else ()
        algorithm = next(
            (
                about["quant_algo"]
                for module, about in each
                if isinstance(about, Mapping)
                and "quant_algo" in about
                and any(_fits(module, n) for n in names)
            ),
            None,
        )
        if algorithm is None:
            return None
    return _algorithm(reader, algorithm)


def _algorithm(reader: Reader, algorithm: object) -> PublishedPart:
    if isinstance(algorithm, str) and algorithm in _ALGORITHMS:
        return _ALGORITHMS[algorithm]
    raise InputError(
        f"{reader.source}: quantization_config.quant_algo {shown(algorithm)} is not known "
        f"({', '.join(_ALGORITHMS)} are)"
    )


def _compressed(reader: Reader, said: Mapping[str, Any], names: list[str]) -> PublishedPart | None:
    groups = said.get("config_groups")
    each = (
        [group for group in groups.values() if isinstance(group, Mapping)]
        if isinstance(groups, Mapping)
        else []
    )
    if not each:
        raise InputError(f"{reader.source}: quantization_config.config_groups names no format of weights")
    group = next((group for group in each if _targets(group, names)), None)
    if group is None:
        return None
    weights = group.get("weights")
    if not isinstance(weights, Mapping):
        raise InputError(f"{reader.source}: quantization_config.config_groups names no format of weights")
    inputs = group.get("input_activations")
    activations = Precision.BF16 if inputs is None and "input_activations" in group else None
    if isinstance(inputs, Mapping):
        activations = _number(reader, inputs)
    return PublishedPart(weights=_number(reader, weights), activations=activations)


def _targets(group: Mapping[str, Any], names: list[str]) -> bool:
    """Whether a group is meant for modules of these names: by name, by expression or by class."""
    targets = group.get("targets")
    named = (
        [target for target in targets if isinstance(target, str)] if isinstance(targets, list) else ["Linear"]
    )
    return any(target == "Linear" or _fits(target, name) for target in named for name in names)


def _number(reader: Reader, said: Mapping[str, Any]) -> Precision:
    bits, group = said.get("num_bits"), said.get("group_size")
    if said.get("type") == "float" and bits == 8:
        return Precision.FP8
    if said.get("type") == "float" and bits == 4:
        return Precision.NVFP4 if group == 16 else Precision.MXFP4
    return _integers(reader, bits, group)


def _integers(reader: Reader, bits: object, group: object) -> Precision:
    if bits == 8:
        return Precision.INT8
    if bits == 4:
        return Precision.INT4_G32 if group == 32 else Precision.INT4
    raise InputError(
        f"{reader.source}: quantization_config: weights of {shown(bits)} bits are not known (4 and 8 are)"
    )


def _cache(said: Mapping[str, Any]) -> Precision | None:
    """FP8 where the checkpoint has scales for such a cache, which engines then keep; None: it says nothing."""
    for place in _places(said):
        scheme = place.get("kv_cache_scheme")
        eight = isinstance(scheme, Mapping) and (scheme.get("num_bits"), scheme.get("type")) == (8, "float")
        if eight or place.get("kv_cache_quant_algo") == "FP8":
            return Precision.FP8
    return None


def _ignored(said: Mapping[str, Any]) -> Iterator[str]:
    """Modules that are left alone: names, parts of names, `re:` expressions or patterns with `*`."""
    keys = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers")
    lists = [place.get(key) for place in _places(said) for key in keys]
    return (name for found in lists if isinstance(found, list) for name in found if isinstance(name, str))


def _places(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is said at the top, and below `quantization`, where ModelOpt says it."""
    inner = said.get("quantization")
    return [said, inner] if isinstance(inner, Mapping) else [said]


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], name) is not None
        except re.error:
            return False
    if "*" in pattern:
        return re.fullmatch(re.escape(pattern).replace(r"\*", ".*") + r"(\..*)?", name) is not None
    return f".{pattern}." in f".{name}."
