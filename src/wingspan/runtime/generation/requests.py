"""What is asked of the engine: a sequence to continue, how its tokens are chosen, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wingspan.errors import InputError
from wingspan.runtime.generation.sampling import Sampling
from wingspan.schedule.batching import BatchLimits


@dataclass(frozen=True)
class Length:
    """When an answer ends.

    Args:
        max_new_tokens: the most tokens of it.
        end_ids: tokens after which it ends, beside the model's own.
        ignore_eos: the model's own end-of-text tokens do not end it.

    Raises:
        InputError: no token at all is wanted, or an end that is no token.
    """

    max_new_tokens: int = 32
    end_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.max_new_tokens, int) and self.max_new_tokens >= 1):
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; use a whole number from 1 on")
        if not (isinstance(self.end_ids, tuple) and all(isinstance(i, int) for i in self.end_ids)):
            raise InputError(f"end_ids is {self.end_ids!r}; use a tuple of token ids")


@dataclass(frozen=True)
class Request:
    """One sequence to continue; the same on every rank.

    Args:
        number: its name, which no other request has that the engine holds.
        ids: the prompt, at least one token.
        sampling: how its tokens are chosen.
        length: when it ends.
        stream: which of several draws with one seed this is.
        home_rank: where it must live; None lets the batching policy choose.
        logprobs: how many of the likeliest tokens to name beside each new one; None: no probabilities at all.
        prompt_logprobs: the same for each token of the prompt but the first, which follows nothing.
    """

    number: int
    ids: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    length: Length = field(default_factory=Length)
    stream: int = 0
    home_rank: int | None = None
    logprobs: int | None = None
    prompt_logprobs: bool = False

    def __post_init__(self) -> None:
        if self.prompt_logprobs and self.logprobs is None:
            raise InputError("prompt_logprobs needs logprobs: how many of the likeliest tokens to name")

    @property
    def kv_tokens(self) -> int:
        """The KV cache that it may come to need, in tokens."""
        return len(self.ids) + self.length.max_new_tokens

    def check_fits(self, limits: BatchLimits) -> None:
        """Raise `InputError` where no rank ever has room for it."""
        if self.kv_tokens > limits.kv_tokens_per_home:
            raise InputError(
                f"prompt {self.number} may need {self.kv_tokens} tokens of KV cache, a rank has room for "
                f"{limits.kv_tokens_per_home}; shorten it, or give ranks more"
            )
