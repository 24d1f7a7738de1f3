"""Presets of the architecture, as `config.json` files, and random checkpoints written from them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from wingspan.errors import InputError
from wingspan.models.configuration import WingspanMoeConfig
from wingspan.models.modeling import WingspanMoeForCausalLM
from wingspan.models.tokenizer import VOCAB_SIZE, build_byte_tokenizer

PRESETS = Path(__file__).parent / "presets"
"""One `<name>.json` per preset, each a `config.json` that any command takes as a model."""


def load_preset(name: str) -> WingspanMoeConfig:
    """Read a preset by name; raises `InputError` with the known names where there is none."""
    path = PRESETS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.json")))
        raise InputError(f"preset {name!r} is unknown; known: {known}")
    return WingspanMoeConfig.from_json_file(path)


def seed() -> WingspanMoeConfig:
    """The seed's exact dimensions (sections 1.1, 1.2), 64 experts, top-8: for planning."""
    return load_preset("seed")


def seed_small() -> WingspanMoeConfig:
    """All 61 layers (3 dense) of the seed, every width scaled down: runs on a small machine."""
    return load_preset("seed-small")


def write_random_checkpoint(config: WingspanMoeConfig, folder: Path | str, seed: int) -> Path:
    """Write a model of `config` with random BF16 weights, and the byte tokenizer, to `folder`.

    The same config and seed give the same bytes. The whole model is built in memory.

    Raises:
        InputError: the vocabulary has no room for the tokenizer's 258 tokens.
    """
    if config.vocab_size < VOCAB_SIZE:
        raise InputError(
            f"config: vocab_size {config.vocab_size} is too small for bytes; make it {VOCAB_SIZE} or more"
        )
    folder = Path(folder)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model: WingspanMoeForCausalLM = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    build_byte_tokenizer().save_pretrained(folder)
    return folder
