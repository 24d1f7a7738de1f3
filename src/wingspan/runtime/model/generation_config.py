"""What a checkpoint says of generating with it: the tokens that end a text, and what a run does not do."""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig, PreTrainedConfig

from wingspan.errors import InputError
from wingspan.reading import is_lfs_pointer, lfs_pointer_error
from wingspan.runtime.model.architecture import cause

GENERATION_CONFIG = "generation_config.json"

_NEUTRAL = {
    "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0,
    "min_new_tokens": 0, "num_beams": 1, "guidance_scale": 1.0, "bad_words_ids": None, "suppress_tokens": None,
    "begin_suppress_tokens": None, "forced_bos_token_id": None, "forced_eos_token_id": None, "sequence_bias": None,
    "exponential_decay_length_penalty": None, "stop_strings": None, "watermarking_config": None, "max_time": None,
    "penalty_alpha": None, "dola_layers": None, "token_healing": False,
}  # fmt: skip
"""Settings that change the text even where the likeliest token is always taken, with the values that do not."""


def load_generation_config(folder: Path, config: PreTrainedConfig) -> GenerationConfig:
    """The settings that transformers would generate with: of `generation_config.json`, else of the configuration.

    Args:
        folder: of the checkpoint, or its configuration file alone.
        config: the checkpoint's.

    Raises:
        InputError: the file cannot be read, or an end token in it is no token of the model.
    """
    file = folder / GENERATION_CONFIG
    if is_lfs_pointer(file):
        raise lfs_pointer_error(file)
    try:
        if file.is_file():
            found = GenerationConfig.from_pretrained(folder, local_files_only=True)
        else:
            found = GenerationConfig.from_model_config(config)
    except Exception as error:
        raise InputError(f"{file}: transformers cannot read it: {cause(error)}") from None
    ends = found.eos_token_id
    for end in ends if isinstance(ends, list) else [ends] * (ends is not None):
        if isinstance(end, bool) or not isinstance(end, int):
            raise InputError(f"{file}: eos_token_id {ends!r} is neither a token's number nor a list of them")
    return found


def not_applied(config: GenerationConfig) -> list[str]:
    """The checkpoint's settings that would change a greedy run's text and that a run does not follow."""
    return [
        f"{name} = {value}"
        for name, neutral in _NEUTRAL.items()
        if (value := getattr(config, name, None)) not in (None, neutral)
    ]
