"""What a checkpoint's `config.json` says about the values that a command takes, read before torch is imported.

A configuration leaves out what is at its architecture's default: what is not known here is checked later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.interop.files import read_json
from wingspan.placement.simple import check_fits
from wingspan.reading import check_kind, is_lfs_pointer, lfs_pointer_error
from wingspan.specs.model import ModelSpec
from wingspan.specs.models import load_model


@dataclass(frozen=True)
class ConfigFacts:
    """What is known of a model; None = not written down."""

    model_type: str
    vocabulary: int | None
    longest_tokens: int | None
    experts: int | None
    spec: ModelSpec | None = None
    """The whole model, where the planner knows its family."""

    def check_placement(self, ranks: int, experts_per_rank: int | None) -> None:
        """Raise `InputError` where the experts of a layer do not fit the slots; None: as many as they need."""
        if self.experts is not None and experts_per_rank is not None:
            check_fits(self.experts, ranks, experts_per_rank)
            if experts_per_rank > self.experts:
                raise InputError(
                    f"`experts_per_rank` {experts_per_rank}: a layer has {self.experts} experts, and a rank that held "
                    f"one twice would gain nothing; use at most {self.experts}"
                )

    def check_ids(self, prompts: Sequence[Sequence[int]], first: int, max_new_tokens: int) -> None:
        """Raise `InputError` for an id outside the vocabulary, an empty prompt, or one that is too long.

        Args:
            prompts: ids.
            first: the number of the first of them among all prompts.
            max_new_tokens: to be added to each.
        """
        for number, prompt in enumerate(prompts, start=first):
            if not prompt:
                raise InputError(f"prompt {number} is empty; give at least one token")
            last = None if self.vocabulary is None else self.vocabulary - 1
            if bad := [i for i in prompt if i < 0 or (last is not None and i > last)]:
                end = "" if last is None else last
                raise InputError(f"prompt {number}: id {bad[0]} is outside the vocabulary 0..{end}")
            self.check_length(number, len(prompt), max_new_tokens)

    def check_length(self, number: int, tokens: int, max_new_tokens: int) -> None:
        """Raise `InputError` where a prompt of so many tokens and its continuation exceed the context."""
        longest = self.longest_tokens
        if longest is not None and tokens + max_new_tokens > longest:
            raise InputError(
                f"prompt {number} has {tokens} tokens; with `max_new_tokens` {max_new_tokens} that exceeds the "
                f"model's context of {longest}; at most {max(0, longest - tokens)} would fit"
            )


def config_facts(model: Path) -> ConfigFacts:
    """The facts of a folder with `config.json`, or of such a file itself.

    Raises:
        InputError: it is not the JSON of a configuration.
    """
    file = model / "config.json" if model.is_dir() else model
    if is_lfs_pointer(file):
        raise lfs_pointer_error(file)
    config = read_json(file)
    if not isinstance(config, dict):
        raise InputError(f"{file}: expected an object, found {type(config).__name__}")
    check_kind(config, str(file), "a model's configuration")
    if not isinstance(config.get("model_type"), str):
        raise InputError(f"{file}: not a configuration: it has no model_type")
    text = config.get("text_config")
    inner = text if isinstance(text, dict) else config
    spec = _spec(file)
    return ConfigFacts(
        config["model_type"],
        _count(inner, "vocab_size"),
        _count(inner, "max_position_embeddings"),
        None if spec is None else spec.experts.count,
        spec,
    )


def _count(config: dict[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _spec(file: Path) -> ModelSpec | None:
    try:
        return load_model(str(file))
    except InputError:
        return None  # a family that only the runtime knows, or a mistake that it names
