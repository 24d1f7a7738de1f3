"""Answers that must follow a grammar: which tokens may come next, by llguidance.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from wingspan.errors import InputError
from wingspan.runtime.generation.ledger import Continuation

_MOST_BYTES = 100_000
"""The longest schema that is taken; longer ones take seconds to compile."""


def json_grammar(schema: str) -> str:
    """The grammar of JSON values that fit a schema.

    Raises:
        InputError: not a schema that can be followed.
    """
    from llguidance import LLMatcher

    if len(schema) > _MOST_BYTES:
        raise InputError(
            f"the schema has {len(schema):,} characters; at most {_MOST_BYTES:,} can be followed"
        )
    try:
        # Compact: a model that is free to write white space may write nothing else.
        grammar = str(LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False}))
    except ValueError as error:
        raise InputError(f"the schema cannot be followed: {error}") from None
    if problem := LLMatcher.validate_grammar(grammar):
        raise InputError(f"the schema cannot be followed: {_first_line(problem)}")
    return grammar


class Grammars:
    """The grammars of the requests of one rank, each as far as its answer has come.

    Args:
        tokenizer: transformers' own; None where the checkpoint has none.
        vocabulary: entries of the logits.
        end_ids: the model's end-of-text tokens.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, end_ids: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._end_ids = list(end_ids)
        self._compiled: Any = None
        self._matchers: dict[int, tuple[Any, int]] = {}

    def allowed(self, continuation: Continuation) -> torch.Tensor | None:
        """Which tokens may come next (V,); None where the request has no grammar."""
        request = continuation.request
        if request.sampling.grammar is None:
            return None
        matcher, told = self._matchers.get(request.number) or (self._matcher(request.sampling.grammar), 0)
        new = continuation.tokens[told:]
        if new:
            matcher.consume_tokens(new)
        self._matchers[request.number] = matcher, len(continuation.tokens)
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed_V = np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(bool)
        if not allowed_V.any():
            allowed_V[self._end_ids] = True
        return torch.from_numpy(allowed_V)

    def keep(self, numbers: Collection[int]) -> None:
        """Forget the requests that are not among these."""
        self._matchers = {number: kept for number, kept in self._matchers.items() if number in numbers}

    def _matcher(self, grammar: str) -> Any:
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        if self._compiled is None:
            self._compiled = from_tokenizer(self._tokenizer, self._vocabulary, self._end_ids or None)
        return LLMatcher(self._compiled, grammar)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0]
