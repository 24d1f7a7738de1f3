"""How likely tokens are, as the model has it: of new tokens, and of a prompt's.

Shapes: P sequences, N columns of a forward, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from wingspan.runtime.generation.ledger import Continuation, PromptLogprobs, TokenLogprobs


@dataclass
class Logprobs:
    """What a rank found in a step, by request: of the new tokens, and of prompts."""

    new: dict[int, TokenLogprobs] = field(default_factory=dict)
    prompts: dict[int, PromptLogprobs] = field(default_factory=dict)


def logprobs_of(
    logits_PV: torch.Tensor, chosen_P: torch.Tensor, held_P: Sequence[Continuation]
) -> dict[int, TokenLogprobs]:
    """By request, of those that want them."""
    found = {}
    for n, continuation in enumerate(held_P):
        most = continuation.request.logprobs
        if most is not None:
            (found[continuation.request.number],) = _likely(logits_PV[n : n + 1], chosen_P[n : n + 1], most)
    return found


def prompt_logprobs_of(
    logits_PNV: torch.Tensor, held_P: Sequence[Continuation], computed_P: Sequence[slice]
) -> dict[int, PromptLogprobs]:
    """By request, of those that want them: from where their prompts, or pieces of them, were computed.

    Args:
        logits_PNV: of all columns of the forward; those of a row's tokens are its last.
        held_P: the request of each row.
        computed_P: which of its tokens each row has.
    """
    found = {}
    for logits_NV, continuation, computed in zip(logits_PNV, held_P, computed_P, strict=True):
        request = continuation.request
        # The logits of each token say how likely the next one was; behind the prompt come tokens that were chosen.
        told = torch.tensor(request.ids[computed.start + 1 : computed.stop + 1], dtype=torch.int64)
        if not (request.prompt_logprobs and request.logprobs is not None and len(told)):
            continue
        first = len(logits_NV) - (computed.stop - computed.start)
        likely = _likely(logits_NV[first : first + len(told)], told, request.logprobs)
        found[request.number] = PromptLogprobs(computed.start + 1, tuple(likely))
    return found


def _likely(logits_TV: torch.Tensor, told_T: torch.Tensor, most: int) -> list[TokenLogprobs]:
    """Those of each token that was told."""
    logprobs_TV = logits_TV.float().log_softmax(-1).cpu()
    values, ids = logprobs_TV.topk(min(most, logprobs_TV.shape[1]))
    return [
        TokenLogprobs(token, logprob, tuple(zip(likeliest, their_values, strict=True)))
        for token, logprob, likeliest, their_values in zip(
            told_T.tolist(),
            logprobs_TV.gather(1, told_T[:, None])[:, 0].tolist(),
            ids.tolist(),
            values.tolist(),
            strict=True,
        )
    ]
