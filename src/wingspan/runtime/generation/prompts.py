"""Prompts: from text or ids to sequences, each with the rank where it lives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedConfig

from wingspan.errors import InputError
from wingspan.runtime.generation.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """One sequence to continue, and where it lives."""

    index: int
    ids: list[int]
    text: str | None
    home_rank: int


def assign(
    texts: Sequence[str],
    id_lists: Sequence[list[int]],
    tokenizer: Tokenizer,
    config: PreTrainedConfig,
    ranks: int,
) -> list[Prompt]:
    """All prompts in the order given, texts before ids, dealt to the ranks in turn.

    Raises:
        InputError: none at all, an empty one, or an id outside the vocabulary.
    """
    ids = [tokenizer.encode(text) for text in texts] + list(id_lists)
    shown: list[str | None] = [*texts, *(tokenizer.decode(i) for i in id_lists)]
    if not ids:
        raise InputError('nothing to complete; give `prompt` "...", `prompts_file` FILE or `prompt_ids`')
    vocabulary = config.get_text_config().vocab_size
    for number, prompt in enumerate(ids):
        if not prompt:
            raise InputError(f"prompt {number} is empty; give at least one token")
        if bad := [i for i in prompt if not 0 <= i < vocabulary]:
            raise InputError(f"prompt {number}: id {bad[0]} is outside the vocabulary 0..{vocabulary - 1}")
    return [Prompt(n, i, s, n % ranks) for n, (i, s) in enumerate(zip(ids, shown, strict=True))]


def check_context(prompts: Sequence[Prompt], max_new_tokens: int, config: PreTrainedConfig) -> None:
    """Raise `InputError` where a prompt and its continuation exceed what the model was made for."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    for prompt in prompts:
        if longest and len(prompt.ids) + max_new_tokens > longest:
            raise InputError(
                f"prompt {prompt.index} has {len(prompt.ids)} tokens; with `max_new_tokens` {max_new_tokens} that "
                f"exceeds the model's context of {longest}; at most {max(0, longest - len(prompt.ids))} would fit"
            )
