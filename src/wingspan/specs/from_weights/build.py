"""The description of a model from its tensors, and what is counted, read or guessed of it in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wingspan.errors import InputError
from wingspan.specs.families.experts import TOP_K
from wingspan.specs.families.precision import published_precision
from wingspan.specs.families.reader import Reader
from wingspan.specs.from_weights.layers import DOWN, Layer, Stack, text_stack
from wingspan.specs.from_weights.mixers import mixers_of
from wingspan.specs.from_weights.weights import Weight, weights_of
from wingspan.specs.model import DenseMlp, Experts, LayerKind, ModelSpec
from wingspan.specs.part_precision import WEIGHTS, PublishedPart, PublishedPrecision
from wingspan.specs.precision import Precision
from wingspan.specs.reading import parse
from wingspan.specs.tensors import Tensor

_EMBEDDING = ("embed_tokens", "word_embeddings", "tok_embeddings", "wte", "embedding", "embeddings", "embed")
_HEAD = ("lm_head", "output", "head", "embed_out")


def counted_model(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> ModelSpec:
    """The model that these tensors are.

    Sizes, parameters and formats are counted. What no shape tells is read from the config under its usual names
    (experts per token, heads, windows, groups of experts) or guessed; `remarks` says which.

    Args:
        config: of its text part.
        tensors: of the checkpoint.
        source: where they lie; errors start with it.

    Raises:
        InputError: no layer has experts, a layer is missing, or the shapes fit nothing known.
    """
    try:
        return _counted(Reader(_flat(config), source), tensors)
    except (IndexError, ZeroDivisionError) as error:
        raise InputError(
            f"{source}: the shapes of its tensors fit no layer that is known ({error})"
        ) from None


def _counted(reader: Reader, tensors: Mapping[str, Tensor]) -> ModelSpec:
    source = reader.source
    weights = list(weights_of(tensors, _bits(reader)))
    stack = text_stack(weights)
    if stack is None:
        raise InputError(f"{source}: no tensor is an expert's; Wingspan plans Mixture-of-Experts models")
    numbers = [n for n, layer in stack.layers.items() if not layer.predicts]
    if numbers != list(range(len(numbers))):
        missing = next(n for n in range(len(numbers) + 1) if n not in numbers)
        raise InputError(f"{source}: layer {missing} has no tensors; fetch all files of the checkpoint")
    embedding, head = _one(stack.beside, _EMBEDDING), _one(stack.beside, _HEAD)
    if embedding is None:
        raise InputError(f"{source}: no tensor is named as an embedding ({', '.join(_EMBEDDING)})")
    vocabulary, hidden = embedding.shape
    guessed: set[str] = set()
    layers = [_kind(stack.layers[n], n, hidden, reader, guessed) for n in numbers]
    kinds = list(dict.fromkeys(layers))
    tied = head is None or head is embedding or bool(reader.flag("tie_word_embeddings", default=False))
    named = sum(weight.values for weight in (embedding, head) if weight is not None)
    spec = parse(
        ModelSpec,
        {
            "name": str(reader.optional("name", "_name_or_path") or reader.type),
            "source": source,
            "hidden": hidden,
            "vocabulary": vocabulary,
            "kinds": kinds,
            "order": [kinds.index(layer) for layer in layers],
            "tied_embeddings": tied,
            "norm_parameters": sum(weight.values for weight in stack.beside) - named,
            "mtp_layers": len(stack.layers) - len(numbers),
            "precision": _precision(stack, reader),
            "max_context": reader.optional("max_position_embeddings", "n_positions", "max_seq_len"),
        },
        source,
    )
    held = sum(stack.layers[n].values for n in numbers) + sum(weight.values for weight in stack.beside)
    held -= head.values if head is not None and tied else 0
    if spec.parameters.total != held:
        guessed.add(f"{spec.parameters.total:,} parameters by these sizes, where the tensors hold {held:,}")
    return spec.model_copy(update={"remarks": tuple(_remarks(reader, stack, len(numbers), guessed))})


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what its parts say (`ffn_config`), where it says nothing under that name itself."""
    parts = [part for name, part in config.items() if name.endswith("_config") and isinstance(part, Mapping)]
    return {key: value for part in (*parts, config) for key, value in part.items() if value is not None}


def _kind(layer: Layer, number: int, hidden: int, reader: Reader, guessed: set[str]) -> LayerKind:
    return parse(
        LayerKind,
        {
            "mixers": mixers_of(layer.attention, hidden, number, reader, guessed),
            "dense": _dense(layer.dense, hidden) if layer.dense else None,
            "experts": _experts(layer, hidden, reader) if layer.experts else None,
            "norm_parameters": sum(weight.values for weight in layer.norms),
        },
        f"{reader.source}: layer {number}",
    )


def _dense(weights: list[Weight], hidden: int) -> DenseMlp:
    down, inward = _down(weights)
    inner = down // hidden
    gated = inward == 2 * inner * hidden
    extra = sum(weight.values for weight in weights) - (3 if gated else 2) * inner * hidden
    return parse(
        DenseMlp, {"intermediate": inner, "gated": gated, "extra_parameters": max(0, extra)}, "dense MLP"
    )


def _experts(layer: Layer, hidden: int, reader: Reader) -> Experts:
    """Those of one layer: each alone under its number, or all in one tensor whose first side counts them."""
    numbers = {part for weight in layer.experts for part in [_number(weight.name)] if part is not None}
    count = len(numbers) or layer.experts[0].shape[0]
    matrices = [weight for weight in layer.experts if len(weight.shape) >= (2 if numbers else 3)]
    down, inward = (values // count for values in _down(matrices))
    sides = [set(w.shape if numbers else w.shape[1:]) for w in matrices]
    row = hidden if all(hidden in side for side in sides) else _shared_side(sides, hidden, reader)
    inner = down // row
    if inner < 1 or down % row or inward % down:
        one = layer.experts[0]
        raise InputError(
            f"{reader.source}: experts such as {one.name} {list(one.shape)} lie in no order that is known"
        )
    gated = inward == 2 * inner * row
    rest = sum(weight.values for weight in layer.experts) // count - (3 if gated else 2) * inner * row
    bias = rest == (2 if gated else 1) * inner + row
    router = [weight for weight in layer.router if len(weight.shape) == 2]
    choices = next((w.shape[0] for w in router if w.shape[1] == hidden), count)
    shared_down, shared_in = _down([w for w in layer.shared if len(w.shape) == 2 and min(w.shape) > 1])
    shared = shared_down // hidden if shared_in == (2 if gated else 1) * shared_down else 0
    groups = reader.integer("n_group", "num_expert_group", default=1) or 1
    groups = groups if count % groups == 0 else 1
    latent = 0 if row == hidden else 2 * hidden * row
    unexplained = 0 if bias else max(0, rest) * count
    extra = sum(w.values for w in layer.router) - choices * hidden - latent + unexplained
    return parse(
        Experts,
        {
            "count": count,
            "per_token": reader.integer(*TOP_K, "top_k", "top_k_experts", "n_activated_experts"),
            "intermediate": inner,
            "gated": gated,
            "bias": bias,
            "shared_intermediate": shared,
            "shared_extra_parameters": sum(w.values for w in layer.shared)
            - (3 if gated else 2) * shared * hidden,
            "router_extra_parameters": max(0, extra),
            "row_width": None if row == hidden else row,
            "zero": max(0, choices - count),
            "groups": groups,
            "groups_per_token": min(groups, reader.integer("topk_group", default=groups) or groups),
        },
        f"{reader.source}: experts",
    )


def _shared_side(sides: list[set[int]], hidden: int, reader: Reader) -> int:
    """The width of a row that experts take, where it is none of the model: the side that all matrices have."""
    common = set.intersection(*sides) - {hidden} if sides else set()
    if len(common) != 1:
        raise InputError(f"{reader.source}: the shapes of its experts' matrices share no one side")
    return common.pop()


def _number(name: str) -> str | None:
    after = name.rpartition("experts.")[2].partition(".")[0]
    return after if after.isdigit() else None


def _down(weights: list[Weight]) -> tuple[int, int]:
    """Values of the matrices that lead back, and of those that lead in."""
    matrices = [weight for weight in weights if len(weight.shape) >= 2]
    down = sum(w.values for w in matrices if w.module in DOWN)
    return down, sum(w.values for w in matrices) - down


def _one(beside: list[Weight], modules: tuple[str, ...]) -> Weight | None:
    """The largest matrix that is named so; its name's own order says which word is likelier."""
    for module in modules:
        found = [weight for weight in beside if weight.module == module and len(weight.shape) == 2]
        if found:
            return max(found, key=lambda weight: weight.values)
    return None


def _precision(stack: Stack, reader: Reader) -> PublishedPrecision:
    """Formats by the tensors; what activations and cache they are meant for, by the config."""
    try:
        said = published_precision(reader)
    except InputError:
        said = PublishedPrecision()
    parts = {}
    for name in WEIGHTS:
        own = [w for layer in stack.layers.values() for w in getattr(layer, name) if len(w.shape) >= 2]
        sizes: dict[Precision, int] = {}
        for weight in own:
            sizes[weight.precision] = sizes.get(weight.precision, 0) + weight.values
        stored = max(sizes, key=lambda kind: sizes[kind], default=Precision.BF16)
        config: PublishedPart = getattr(said, name)
        parts[name] = config if config.weights is stored else PublishedPart(weights=stored)
    return PublishedPrecision(**parts, kv=said.kv)


def _bits(reader: Reader) -> int:
    """Bits of packed integers, as the config says them; 4 where it says nothing."""
    said = reader.optional("quantization_config") or {}
    groups = said.get("config_groups") if isinstance(said, Mapping) else None
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    for place in (weights, said):
        bits = (
            (place.get("num_bits") or place.get("bits") or place.get("w_bit"))
            if isinstance(place, Mapping)
            else 0
        )
        if bits in (4, 8):
            return int(bits)
    return 4


def _remarks(reader: Reader, stack: Stack, layers: int, guessed: set[str]) -> list[str]:
    found = [
        f"sizes of {reader.type} are counted from the tensors of its checkpoint: layers, experts, widths, projections, "
        "vocabulary, formats of weights; experts per token, heads and windows are read from its config"
    ]
    found += [f"guessed: {'; '.join(sorted(guessed))}"] if guessed else []
    further = [layer for layer in stack.layers.values() if layer.predicts]
    if further:
        count = f"{len(further)} layer{'s' * (len(further) > 1)}"
        found.append(f"{count} behind the {layers} for further tokens: taken to be like the last of these")
    if stack.other_parts:
        found.append(f"parts that make no text are not counted: {stack.other_parts / 1e9:.3g} B parameters")
    return found
