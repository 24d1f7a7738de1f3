"""Precisions in a word: `fp8`, or `nvfp4,attention=fp8,kv=fp8`."""

from __future__ import annotations

from typing import Any

from wingspan.errors import InputError
from wingspan.specs.part_precision import WEIGHTS, AskedPrecision
from wingspan.specs.precision import Precision
from wingspan.specs.reading import parse

PRESETS: dict[str, dict[str, Precision]] = {
    "fp8": dict.fromkeys(WEIGHTS, Precision.FP8),
    # As ModelOpt publishes large models: attention stays what it was (nvidia/DeepSeek-R1-0528-NVFP4,
    # hf_quant_config.json, exclude_modules).
    "nvfp4": dict.fromkeys(("dense", "shared", "experts"), Precision.NVFP4),
    # As gpt-oss was published: routed experts alone (arXiv:2508.10925, section 2.1).
    "mxfp4": {"experts": Precision.MXFP4},
    "int8": dict.fromkeys(WEIGHTS, Precision.INT8),
    # llm-compressor's scheme of this name: every linear layer but the head, in groups of 128.
    "w4a16": dict.fromkeys(WEIGHTS, Precision.INT4),
    "bf16": dict.fromkeys(WEIGHTS, Precision.BF16),
}
"""Weights of parts as engines mean these names; parts that are not named stay as published."""

PARTS = (*WEIGHTS, "activations", "dispatch", "combine", "kv", "core")


def with_precision(before: AskedPrecision, text: str, name: str) -> AskedPrecision:
    """What was asked for before, changed as a text says.

    A preset takes the place of all weights and activations that were asked for; `part=format` changes one, and
    `weights=format` all four parts with weights.

    Args:
        before: what the workload asks for.
        text: presets and parts with commas between, read from left to right.
        name: of the option, for errors.

    Raises:
        InputError: no such preset, part or format, or a format that does not fit its part.
    """
    formats: dict[str, Any] = before.model_dump()
    named: dict[str, str] = {}
    for number, word in enumerate(text.split(",")):
        part, equals, value = (piece.strip() for piece in word.partition("="))
        if not equals:
            if number:
                raise InputError(
                    f"{name} {text}: {part!r} stands behind another; one preset, then parts as kv=fp8"
                )
            formats |= dict.fromkeys((*WEIGHTS, "activations")) | _preset(part, f"{name} {text}")
            continue
        if part in named:
            raise InputError(f"{name} {text}: names {part} twice")
        named[part] = value
        formats |= dict.fromkeys(_parts(part, f"{name} {text}"), _format(value, f"{name} {text}"))
    return parse(AskedPrecision, formats, f"{name} {text}")


def text_of(asked: AskedPrecision) -> str:
    """What `with_precision` reads as this; empty where nothing is asked for."""
    formats = {name: value.value for name in PARTS if (value := getattr(asked, name)) is not None}
    weights = {formats.get(name) for name in WEIGHTS}
    if None not in weights and len(weights) == 1:
        formats = {"weights": formats["experts"]} | {n: v for n, v in formats.items() if n not in WEIGHTS}
    return ",".join(f"{name}={value}" for name, value in formats.items())


def _preset(word: str, shown: str) -> dict[str, Precision]:
    if word not in PRESETS:
        raise InputError(
            f"{shown}: {word!r} is none of {', '.join(PRESETS)}; name a part's format as experts=nvfp4"
        )
    return PRESETS[word]


def _parts(part: str, shown: str) -> tuple[str, ...]:
    if part == "weights":
        return WEIGHTS
    if part not in PARTS:
        raise InputError(f"{shown}: {part!r} is no part; use weights, {', '.join(PARTS)}")
    return (part,)


def _format(value: str, shown: str) -> Precision:
    try:
        return Precision(value)
    except ValueError:
        raise InputError(f"{shown}: {value!r} is no format; use one of {', '.join(Precision)}") from None
