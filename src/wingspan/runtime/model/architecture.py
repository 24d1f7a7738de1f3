"""A model's architecture, from its configuration alone: always transformers' own code, never the checkpoint's."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

import wingspan.models  # noqa: F401 - transformers knows the reference architecture from here on
from wingspan.errors import InputError, WingspanError
from wingspan.models.classes import TextClass, text_class
from wingspan.reading import is_lfs_pointer, json_value, lfs_pointer_error
from wingspan.runtime.model.experts_table import count_of, cut_idle, experts_modules, idle_of
from wingspan.runtime.model.text_part import drop_other_parts

PLAIN_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What weights can be in memory."""

_ATTENTION = ("eager", "sdpa")
"""Attention that comes with transformers. Any other name in a configuration may be a kernel to download and run."""

_OWN_CODE = Path(__file__).parents[2]
_MODEL_CODE = (Path(transformers.__file__).parent, _OWN_CODE / "models")
"""Where models' own code lies: transformers', and the reference model's."""


@dataclass(frozen=True)
class MoeShape:
    """What expert parallelism needs to know of a model: its MoE layers by path, and experts per layer."""

    paths: list[str]
    num_experts: int
    top_k: int
    idle: int = 0
    """Experts beyond these that a token can choose and that compute nothing."""

    def check_choices_can_be_kept(self) -> None:
        """Raise `InputError` where a token's choices are more than experts: a routing trace has no number for them."""
        if self.idle:
            raise InputError(
                f"{self.idle} of {self.num_experts + self.idle} experts compute nothing, and a routing trace has no "
                "numbers for them; run the model without recording its routing"
            )


def config_file(folder: Path) -> Path:
    """The configuration of a checkpoint's folder, or `folder` itself where it is such a file."""
    return folder if folder.is_file() else folder / "config.json"


def read_config(folder: Path) -> dict[str, Any]:
    """The keys and values of a configuration as its file has them.

    Raises:
        InputError: there is none, or it is not a JSON object.
    """
    file = config_file(folder)
    if not file.is_file():
        raise InputError(f"{folder}: no model here (expected a folder with config.json, or the file itself)")
    if is_lfs_pointer(file):
        raise lfs_pointer_error(file)
    try:
        data = json_value(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: not a configuration: not JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{file}: not a configuration: expected an object, found {type(data).__name__}")
    return data


SAME_MODULES = {"kimi_k2": "deepseek_v3"}
"""Types without code in transformers whose published modules are those of another type."""

_DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}


def dtype_named(name: str) -> torch.dtype | None:
    """The dtype of a name; None for `auto`, the checkpoint's own; raises `InputError` for another."""
    if name not in _DTYPES:
        raise InputError(f"`dtype` {name}: use one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def load_config(folder: Path) -> PreTrainedConfig:
    """The model's configuration, from a folder with `config.json` or from such a file itself.

    Raises:
        InputError: there is none, or transformers itself has no code for its architecture.
    """
    file, data = config_file(folder), read_config(folder)
    same_as = SAME_MODULES.get(str(data.get("model_type")))
    if same_as is None:
        _check_own_code(file, data)
    try:
        if same_as is None:
            config = AutoConfig.from_pretrained(
                file.parent if file.name == "config.json" else file,
                trust_remote_code=False,
                local_files_only=True,
            )
        else:
            known = CONFIG_MAPPING[same_as]
            config = known.from_dict({**data, "model_type": same_as}, name_or_path=str(file.parent))
        _forget_foreign_code(config)
    except Exception as error:
        raise InputError(f"{file}: not a configuration that transformers can read: {cause(error)}") from None
    for said in (config.dtype, config.get_text_config().dtype):
        if not isinstance(said, torch.dtype | None) or said not in (None, *PLAIN_DTYPES):
            raise InputError(f"{file}: dtype {said}: weights are kept in bfloat16, float16 or float32")
    return config


def dtype_said(config: PreTrainedConfig) -> torch.dtype:
    """What the weights are kept in, as the part that makes text says it, else the whole; FP32 where neither does."""
    said = (config.get_text_config().dtype, config.dtype)
    return next((dtype for dtype in said if isinstance(dtype, torch.dtype)), torch.float32)


def build_on_meta(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model's structure with no memory behind its parameters.

    Raises:
        InputError: transformers cannot build it from these values, or has no model of that type that generates text.
    """
    found = class_of(config)
    try:
        with torch.device("meta"):
            model = found.model._from_config(found.config, dtype=dtype)
    except Exception as error:
        raise InputError(
            f"{_source(config)}: transformers builds no text model of type {config.model_type!r} from these values: "
            f"{cause(error)}"
        ) from None
    if found.wraps:
        drop_other_parts(model)
    cut_idle(model)
    return model


def class_of(config: PreTrainedConfig) -> TextClass:
    """transformers' class that makes text with a configuration; raises `InputError` where it has none."""
    try:
        return text_class(config)
    except InputError as error:
        raise InputError(f"{_source(config)}: {error}") from None


def moe_shape(model: nn.Module, config: PreTrainedConfig) -> MoeShape:
    """Where the model's experts are.

    Raises:
        InputError: there are none, layers differ in their number of experts, or a token cannot choose that many.
    """
    modules = dict(experts_modules(model))
    if not modules:
        raise InputError(
            f"{_source(config)}: model type {config.model_type!r} has no experts that are known here; "
            "expert parallelism needs a Mixture-of-Experts architecture"
        )
    counts = {count_of(m) for m in modules.values()}
    if len(counts) > 1:
        raise InputError(
            f"{_source(config)}: layers with different numbers of experts ({sorted(counts)}) are not supported"
        )
    num_experts = counts.pop()
    top_k = _top_k(config)
    if not 0 < top_k <= num_experts:
        raise InputError(
            f"{_source(config)}: num_experts_per_tok = {top_k} of {num_experts} experts; use 1 to {num_experts}"
        )
    _check_groups(config, num_experts)
    return MoeShape(list(modules), num_experts, top_k, max(idle_of(m) for m in modules.values()))


@contextmanager
def model_errors(config: PreTrainedConfig) -> Iterator[None]:
    """Tell an error of the model's own code, which its configuration caused, from ours: raise it as `InputError`."""
    try:
        yield
    except WingspanError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        where = _last_frame(error)
        if where is None or isinstance(error, torch.OutOfMemoryError) or "memory" in str(error):
            raise
        raise InputError(
            f"{_source(config)}: transformers cannot run the model with these values: {cause(error)} ({where})"
        ) from error


def cause(error: BaseException) -> str:
    """What another library's error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) if lines and lines[0].endswith(":") else (lines or [""])[0]
    return f"{type(error).__name__}: {text}" if isinstance(error, LookupError) or not text else text


def _check_own_code(file: Path, data: dict[str, Any]) -> None:
    kind = data.get("model_type")
    if isinstance(kind, str) and kind in CONFIG_MAPPING:
        return
    version = f"transformers {transformers.__version__}"
    if "auto_map" in data:
        raise InputError(
            f"{file}: model_type {kind!r} needs the code that auto_map names, and a checkpoint's code is never run; "
            f"use an architecture that {version} has itself, or upgrade transformers"
        )
    if kind is None:
        raise InputError(f"{file}: not a configuration that transformers can read: no model_type")
    raise InputError(
        f"{file}: model_type {kind!r} is unknown to {version}; correct it, or upgrade transformers"
    )


def _forget_foreign_code(config: PreTrainedConfig) -> None:
    """Drop what a configuration says of code that is not transformers' own."""
    for part in (config, config.get_text_config()):
        if hasattr(part, "auto_map"):
            del part.auto_map
        if part._attn_implementation not in (None, *_ATTENTION):
            part._attn_implementation = None
        part._experts_implementation = None


def _check_groups(config: PreTrainedConfig, num_experts: int) -> None:
    """Raise `InputError` where experts are chosen group by group, and the groups do not come out."""
    text = config.get_text_config()
    groups, chosen = getattr(text, "n_group", None), getattr(text, "topk_group", None)
    method = getattr(text, "topk_method", None)
    if groups is None or method == "greedy":
        return
    if not 0 < groups <= num_experts or num_experts % groups:
        raise InputError(
            f"{_source(config)}: n_group = {groups} does not divide {num_experts} experts into groups; "
            "use one that does"
        )
    if chosen is None or not 0 < chosen <= groups:
        raise InputError(f"{_source(config)}: topk_group = {chosen} of n_group = {groups}; use 1 to {groups}")
    # A group is judged by the sum of its two best experts, but in DeepSeek-V2 by its best one.
    if num_experts // groups < 2 and method != "group_limited_greedy":
        raise InputError(
            f"{_source(config)}: n_group = {groups} groups of {num_experts} experts have one expert each, "
            f"but a group is judged by its two best; use n_group = {max(1, num_experts // 2)} or fewer"
        )


def _top_k(config: PreTrainedConfig) -> int:
    text = config.get_text_config()
    parts = (text, getattr(text, "ffn_config", None))
    for name in (
        "num_experts_per_tok",
        "moe_k",
        "moe_topk",
        "num_experts_per_token",
        "top_k_experts",
        "moe_top_k",
    ):
        for part in parts:
            if isinstance(value := getattr(part, name, None), int):
                return value
    raise InputError(f"config of {config.model_type!r}: no number of experts per token (num_experts_per_tok)")


def _source(config: PreTrainedConfig) -> str:
    """Where a configuration came from."""
    name = config.name_or_path
    return str(config_file(Path(name))) if name else "config"


def _last_frame(error: BaseException) -> str | None:
    """The model's line in which the error arose; None where code of ours was called after it."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        in_models = any(file.is_relative_to(folder) for folder in _MODEL_CODE)
        if not in_models and file.is_relative_to(_OWN_CODE):
            return None
        if in_models:
            return f"{file.name}, {frame.name}"
    return None
