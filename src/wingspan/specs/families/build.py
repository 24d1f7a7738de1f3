"""From a transformers `config.json` to a `ModelSpec`, without transformers.

Most families share field names under a few spellings; `Family` holds what the file does not say.
A config of a family that is not listed is refused, because its parameters would be guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wingspan.errors import InputError
from wingspan.limits import MOST_LAYERS
from wingspan.specs.families.experts import EXPERTS, dense_layers, dense_of, experts_of, layer_count
from wingspan.specs.families.family import Family
from wingspan.specs.families.mixers import mixers_of
from wingspan.specs.families.precision import published_precision
from wingspan.specs.families.reader import Reader
from wingspan.specs.families.table import FAMILIES, TEXT_PARTS
from wingspan.specs.model import LayerKind, ModelSpec
from wingspan.specs.reading import near_name, parse, shown


class UnknownModelError(InputError):
    """A config of a type whose sizes are not known; its tensors may tell them."""


def model_from_config(config: Mapping[str, Any], source: str) -> ModelSpec:
    """Sizes of the model that a `config.json` describes.

    Args:
        config: its content; of a model of several parts the one that makes text is taken.
        source: where it came from; errors start with it.

    Raises:
        InputError: the family is unknown, the model has no experts, or a field is missing or unfit.
    """
    config = text_part(config)
    kind = _kind(config, source)
    family = FAMILIES.get(kind, Family())
    said = _as_usual({name: value for name, value in config.items() if value is not None}, family)
    _check_known(Reader({**said, "model_type": kind}, source))
    return _model(Reader({**family.defaults, **said, "model_type": kind}, source), family)


_PARTS = ("thinker_config", "text_config", "language_config", "llm_config")
"""Keys under which wrappers of several parts keep the one that makes text."""
_SHARED = ("model_type", "quantization_config", "dtype", "torch_dtype", "tie_word_embeddings", "name")
"""Fields of a wrapper that hold for its text part where that says nothing."""


_MTP_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules", "num_mtp_layers")
"""Spellings of how many layers predict further tokens."""


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the part that makes text, with what the wrapper says for it; a plain config as it is."""
    inner = next((config[name] for name in _PARTS if isinstance(config.get(name), Mapping)), None)
    return config if inner is None else text_part({**_shared_fields(config), **inner})


def _shared_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: config[name] for name in _SHARED if name in config}


def _kind(config: Mapping[str, Any], source: str) -> str:
    """The type, of a wrapper that of its text part."""
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise InputError(f'{source}: no "model_type"; is this the config.json of a transformers model?')
    if kind in FAMILIES:
        return kind
    part = f"{kind}_text"
    return TEXT_PARTS.get(kind, part if part in FAMILIES else kind)


def _as_usual(config: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The config with usual names beside the family's own."""
    usual = {name: _at(config, path.split(".")) for path, name in family.names.items()}
    return {**{name: value for name, value in usual.items() if value is not None}, **config}


def _at(config: object, path: list[str]) -> Any:
    for name in path:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def _check_known(reader: Reader) -> None:
    if not any(reader.config.get(key) for key in EXPERTS):
        kind = InputError if reader.type in FAMILIES else UnknownModelError
        raise kind(
            f"{reader.source}: {reader.type} has no experts (none of {', '.join(EXPERTS)}); "
            "Wingspan plans Mixture-of-Experts models"
        )
    if reader.type not in FAMILIES:
        meant = near_name(reader.type, FAMILIES)
        raise UnknownModelError(
            f"{reader.source}: model_type {shown(reader.type)} is not among the {len(FAMILIES)} types whose sizes are "
            f"known; {f'did you mean {meant}? ' if meant else ''}if it has the modules of one of them, such as "
            "deepseek_v3, mixtral or qwen3_moe, write that model_type"
        )


def _model(reader: Reader, family: Family) -> ModelSpec:
    layers = _layers(reader, family)
    kinds = list(dict.fromkeys(layers))
    hidden, vocabulary = reader.integer("hidden_size"), reader.integer("vocab_size")
    head_bias = reader.flag("lm_head_bias", "use_bias", default=False)
    return parse(
        ModelSpec,
        {
            "name": str(reader.optional("name", "_name_or_path") or reader.type),
            "source": str(reader.optional("source") or reader.source),
            "hidden": hidden,
            "vocabulary": vocabulary,
            "kinds": kinds,
            "order": [kinds.index(layer) for layer in layers],
            "embedding_extra_parameters": family.embedding_extra(reader) if family.embedding_extra else 0,
            "tied_embeddings": reader.flag("tie_word_embeddings", default=family.tied_by_default),
            "norm_parameters": hidden * family.norm_values
            + (family.model_extra(reader) if family.model_extra else 0),
            "head_extra_parameters": vocabulary if head_bias else 0,
            "mtp_layers": reader.integer(*_MTP_LAYERS, default=0, most=MOST_LAYERS),
            "precision": published_precision(reader, _places(layers)),
            "max_context": reader.optional("max_position_embeddings"),
        },
        reader.source,
    )


def _places(layers: list[LayerKind]) -> dict[str, int]:
    """A layer that has each part: the middle one of them, of dense MLPs the first."""
    having = {
        "attention": [n for n, kind in enumerate(layers) if kind.mixers],
        "dense": [n for n, kind in enumerate(layers) if kind.dense][:1],
        "shared": [n for n, kind in enumerate(layers) if kind.experts],
        "experts": [n for n, kind in enumerate(layers) if kind.experts],
    }
    return {part: found[len(found) // 2] for part, found in having.items() if found}


def _layers(reader: Reader, family: Family) -> list[LayerKind]:
    """Every layer, from the first."""
    if family.layer is not None:
        return [family.layer(reader, family, n) for n in range(layer_count(reader))]
    count = layer_count(reader)
    experts, without = experts_of(reader, family), dense_layers(reader, family, count)
    dense = dense_of(reader, gated=experts.gated) if without else None
    norm = reader.integer("hidden_size") * family.norm_values
    return [
        LayerKind(
            mixers=mixers_of(reader, family, layer),
            dense=dense if layer in without else None,
            experts=None if layer in without else experts,
            norm_parameters=norm * (family.norms + (0 if layer in without else family.moe_norms))
            + (family.layer_extra(reader, layer) if family.layer_extra else 0),
        )
        for layer in range(count)
    ]
