"""Presets of the architecture, as `config.json` files, and random checkpoints written from them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig

from wingspan.errors import InputError
from wingspan.host import free_memory_bytes
from wingspan.models.classes import TextClass, text_class
from wingspan.models.configuration import WingspanMoeConfig
from wingspan.models.tokenizer import VOCAB_SIZE, build_byte_tokenizer
from wingspan.specs.models import MODEL_PRESETS, model_presets
from wingspan.writing import output_folder


def load_preset(name: str) -> WingspanMoeConfig:
    """A preset of this architecture by name; raises `InputError` with the known names where there is none."""
    known = [preset for preset in model_presets() if preset.startswith("seed")]
    if name not in known:
        raise InputError(f"preset {name!r} is unknown; known: {', '.join(known)}")
    return WingspanMoeConfig.from_json_file(MODEL_PRESETS / f"{name}.json")


def seed() -> WingspanMoeConfig:
    """The exact dimensions of docs/reference-model.md, 64 experts, top-8: for planning."""
    return load_preset("seed")


def seed_small() -> WingspanMoeConfig:
    """All 61 layers (3 dense) of the reference model, every width scaled down: runs on a small machine."""
    return load_preset("seed-small")


def write_random_checkpoint(config: PreTrainedConfig, folder: Path | str, seed: int) -> Path:
    """Write a model of `config` with random BF16 weights to `folder`; the reference architecture gets its tokenizer.

    The same config and seed give the same bytes. The whole model is built in memory.

    A quantisation in the config is dropped from it.

    Raises:
        InputError: it does not fit the memory that is free, or its vocabulary has no room for the tokenizer.
    """
    ours = isinstance(config, WingspanMoeConfig)
    if ours and config.vocab_size < VOCAB_SIZE:
        raise InputError(
            f"config: vocab_size {config.vocab_size} is too small for bytes; make it {VOCAB_SIZE} or more"
        )
    for part in (config, config.get_text_config()):
        if hasattr(part, "quantization_config"):
            del part.quantization_config  # The random weights are plain.
    found = text_class(config)
    _check_memory(found)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = found.model._from_config(found.config, dtype=torch.bfloat16)
    with output_folder(Path(folder)) as unfinished:
        try:
            model.save_pretrained(unfinished)
        except SafetensorError as error:
            raise InputError(f"{folder}: cannot be written ({error}); choose another place") from None
        if ours:
            build_byte_tokenizer().save_pretrained(unfinished)
    return Path(folder)


def _check_memory(found: TextClass) -> None:
    with torch.device("meta"):
        model = found.model._from_config(found.config, dtype=torch.bfloat16)
    needed_bytes = sum(p.nbytes for p in model.parameters())
    free_bytes = free_memory_bytes()
    if needed_bytes > free_bytes:
        raise InputError(
            f"config: {needed_bytes / 1e9:,.1f} GB of weights do not fit {free_bytes / 1e9:,.1f} GB of free memory; "
            "lower num_experts, num_hidden_layers or hidden_size"
        )
