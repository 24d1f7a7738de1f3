"""What `wingspan run` completes: prompts that were given, else a few of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wingspan.cli.values import ids
from wingspan.errors import InputError
from wingspan.interop.files import read_text
from wingspan.runtime.setup.config_facts import ConfigFacts

if TYPE_CHECKING:
    from wingspan.runtime.api import Tokenizer

BUILT_IN = (
    "def main():",
    "Once upon a time",
    "import ",
    "The answer is",
    "class Node:",
    "In the year 1900,",
    "for name in ",
    "1, 2, 3, ",
)
"""Completed where nobody gives a prompt: prose and code, and short, so that any model has room for them."""

_BUILT_IN_IDS = 4
"""Tokens of such a prompt where a model has no text."""


@dataclass(frozen=True)
class GivenPrompts:
    """Texts, and prompts as token ids; both empty = nobody gave one."""

    texts: list[str]
    id_lists: list[list[int]]

    def __bool__(self) -> bool:
        return bool(self.texts or self.id_lists)


def read_prompts(
    texts: Sequence[str],
    file: Path | None,
    id_texts: Sequence[str],
    facts: ConfigFacts,
    max_new_tokens: int,
    *,
    first: bool,
) -> GivenPrompts:
    """Every prompt that was given.

    Args:
        texts, id_texts: of the command line.
        file: of one prompt a line; `-` is standard input, which is also read where nothing else was given.
        facts: of the model, to check lengths and ids by.
        max_new_tokens: to be added to each.
        first: this process is rank 0: under a launcher no other has standard input.

    Raises:
        InputError: a file without prompts, or a prompt that the model has no room or no tokens for.
    """
    id_lists = [ids(text, "--prompt-ids") for text in id_texts]
    lines = _lines(file, alone=not texts and not id_texts, first=first)
    if file is not None and not lines:
        raise InputError(f"--prompts-file {file}: nothing to complete: it holds no line of text")
    found = GivenPrompts([*texts, *lines], id_lists)
    facts.check_ids(id_lists, len(found.texts), max_new_tokens)
    for number in range(len(found.texts)):
        facts.check_length(number, 1, max_new_tokens)
    return found


def built_in_prompts(tokenizer: Tokenizer, vocabulary: int, ranks: int) -> tuple[GivenPrompts, str]:
    """One prompt for each of up to eight ranks, and the line that says so."""
    count = min(ranks, len(BUILT_IN))
    if tokenizer.why_no_text:
        id_lists = [
            [(number * _BUILT_IN_IDS + n) % vocabulary for n in range(1, _BUILT_IN_IDS + 1)]
            for number in range(count)
        ]
        said = f"no prompt was given: it continues {count} of its own, of ids; --prompt-ids gives others"
        return GivenPrompts([], id_lists), said
    said = f"no prompt was given: it completes {count} of its own; --prompt gives others"
    return GivenPrompts([*BUILT_IN[:count]], []), said


def _lines(file: Path | None, *, alone: bool, first: bool) -> list[str]:
    """Lines of the prompts file; of standard input where nothing else was given and it is not a terminal."""
    if file is None:
        if not alone or not first or sys.stdin is None or sys.stdin.isatty():
            return []
        file = Path("-")
    if str(file) == "-" and not first:
        raise InputError(
            "prompts from standard input reach only rank 0 under a launcher; give a --prompts-file"
        )
    text = _standard_input() if str(file) == "-" else read_text(file)
    return [line for line in text.splitlines() if line.strip()]


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"standard input: cannot be read as text ({error})") from None
