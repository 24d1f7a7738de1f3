"""What a request wants changed in its logits before a token is chosen: biases, penalties, a grammar.

Everything follows from the request and its tokens so far, so that a sequence begun again elsewhere goes on alike.

Shapes: P sequences, V vocabulary, N tokens so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from wingspan.runtime.generation.grammars import Grammars
from wingspan.runtime.generation.ledger import Continuation


def adjusted(logits_PV: torch.Tensor, held_P: Sequence[Continuation], grammars: Grammars) -> torch.Tensor:
    """The logits that tokens are chosen from; the given ones where no request wants a change."""
    changed = [n for n, continuation in enumerate(held_P) if continuation.request.sampling.adjusts]
    if not changed:
        return logits_PV
    scores_PV = logits_PV.float().clone()
    for n in changed:
        _adjust(scores_PV[n], held_P[n])
        allowed_V = grammars.allowed(held_P[n])
        if allowed_V is not None:
            scores_PV[n, : len(allowed_V)].masked_fill_(~allowed_V.to(scores_PV.device), -torch.inf)
            scores_PV[n, len(allowed_V) :] = -torch.inf
    return scores_PV


def _adjust(scores_V: torch.Tensor, continuation: Continuation) -> None:
    """Apply penalties and biases in place.

    The repetition penalty (Keskar et al. 2019) looks at prompt and answer; the presence and frequency penalties, which
    are OpenAI's, at the answer alone.
    """
    sampling = continuation.request.sampling
    if sampling.repetition_penalty != 1:
        seen_N = torch.tensor(continuation.ids, device=scores_V.device).unique()
        seen = scores_V[seen_N]
        scores_V[seen_N] = torch.where(
            seen > 0, seen / sampling.repetition_penalty, seen * sampling.repetition_penalty
        )
    if continuation.tokens and (sampling.presence_penalty or sampling.frequency_penalty):
        told_N, times_N = torch.tensor(continuation.tokens, device=scores_V.device).unique(return_counts=True)
        scores_V[told_N] -= sampling.presence_penalty + sampling.frequency_penalty * times_N
    for token, bias in sampling.logit_bias:
        scores_V[token] += bias
