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
    for number, prompt in enumerate(ids):
        check_ids(f"prompt {number}", prompt, config)
    return [Prompt(n, i, s, n % ranks) for n, (i, s) in enumerate(zip(ids, shown, strict=True))]


def check_ids(name: str, ids: Sequence[int], config: PreTrainedConfig) -> None:
    """Raise `InputError` for a prompt without tokens, or with one that the model does not have."""
    vocabulary = config.get_text_config().vocab_size
    if not ids:
        raise InputError(f"{name} is empty; give at least one token")
    if bad := [i for i in ids if not (isinstance(i, int) and 0 <= i < vocabulary)]:
        raise InputError(f"{name}: id {bad[0]!r} is outside the vocabulary 0..{vocabulary - 1}")


def check_length(name: str, ids: Sequence[int], max_new_tokens: int, config: PreTrainedConfig) -> None:
    """Raise `InputError` where a prompt and its continuation exceed what the model was made for."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if longest and len(ids) + max_new_tokens > longest:
        raise InputError(
            f"{name} has {len(ids)} tokens; with `max_new_tokens` {max_new_tokens} that exceeds the model's context "
            f"of {longest}; at most {max(0, longest - len(ids))} would fit"
        )


def check_context(prompts: Sequence[Prompt], max_new_tokens: int, config: PreTrainedConfig) -> None:
    """Raise `InputError` where a prompt and its continuation exceed what the model was made for."""
    for prompt in prompts:
        check_length(f"prompt {prompt.index}", prompt.ids, max_new_tokens, config)
