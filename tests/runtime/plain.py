"""The oracle of generation: plain transformers, one prompt at a time, without a cache, and a slow sampling by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.generation.sampling import Sampling


def plain_model(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation="eager"
    )
    return model.eval()


def plain_tokens(model: PreTrainedModel, request: Request) -> list[int]:
    """What this request alone would get."""
    ends = model.generation_config.eos_token_id
    stops = set(request.length.end_ids)
    if not request.length.ignore_eos:
        stops |= {ends} if isinstance(ends, int) else set(ends or [])
    tokens: list[int] = []
    for logits_V in _logits(model, request, tokens):
        _penalise(logits_V, request, tokens)
        tokens.append(by_hand(logits_V, request.sampling, request.stream, len(request.ids) + len(tokens)))
        if tokens[-1] in stops:
            break
    return tokens


@torch.inference_mode()
def _logits(model: PreTrainedModel, request: Request, tokens: Sequence[int]) -> Iterator[NDArray[np.float64]]:
    """With transformers' own cache, as plain generation has it."""
    cache, new = None, [*request.ids]
    for number in range(request.length.max_new_tokens):
        begin = 0 if cache is None else len(request.ids) + number - 1
        out = model(
            input_ids=torch.tensor([new]),
            position_ids=torch.arange(begin, begin + len(new))[None],
            past_key_values=cache,
            use_cache=True,
        )
        cache = out.past_key_values
        yield out.logits[0, -1].double().numpy()
        new = [tokens[-1]]


def _penalise(logits_V: NDArray[np.float64], request: Request, tokens: Sequence[int]) -> None:
    """Biases and penalties, token by token; the repetition penalty looks at the prompt too."""
    sampling = request.sampling
    for token in {*request.ids, *tokens}:
        factor = sampling.repetition_penalty
        logits_V[token] *= 1 / factor if logits_V[token] > 0 else factor
    for token in set(tokens):
        logits_V[token] -= sampling.presence_penalty + sampling.frequency_penalty * tokens.count(token)
    for token, bias in sampling.logit_bias:
        logits_V[token] += bias


def by_hand(logits_V: NDArray[np.float64], sampling: Sampling, stream: int, position: int) -> int:
    """One token, by the definitions of temperature, top-k, top-p and min-p."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    chance_V = _chances(logits_V / sampling.temperature)
    order = np.argsort(-chance_V, kind="stable")
    if sampling.top_k is not None:
        chance_V[order[sampling.top_k :]] = 0
        chance_V /= chance_V.sum()
    if sampling.top_p is not None:
        before = np.cumsum(chance_V[order]) - chance_V[order]
        chance_V[order[before >= sampling.top_p]] = 0
        chance_V /= chance_V.sum()
    if sampling.min_p is not None:
        chance_V[chance_V < sampling.min_p * chance_V.max()] = 0
        chance_V /= chance_V.sum()
    key = np.array([sampling.seed % 2**64, stream], dtype=np.uint64)
    at = np.random.Generator(np.random.Philox(key=key, counter=position)).random()
    for token in np.flatnonzero(chance_V):
        at -= chance_V[token]
        if at < 0:
            break
    return int(token)


def _chances(scores_V: NDArray[np.float64]) -> NDArray[np.float64]:
    exponents = np.exp(scores_V - scores_V.max())
    chances: NDArray[np.float64] = exponents / exponents.sum()
    return chances


SAMPLINGS = (
    Sampling(),
    Sampling(temperature=1.0, seed=3),
    Sampling(temperature=0.7, top_k=5),
    Sampling(temperature=1.3, top_p=0.8, seed=2**70 - 1),
    Sampling(temperature=1.0, min_p=0.2, seed=-4),
    Sampling(temperature=2.0, top_k=20, top_p=0.9, min_p=0.01, seed=8),
    Sampling(
        temperature=0.9,
        seed=5,
        presence_penalty=1.5,
        frequency_penalty=0.5,
        repetition_penalty=1.4,
        logit_bias=((9, 3.0),),
    ),
)

LENGTHS = (
    Length(3),
    Length(17),
    Length(1),
    Length(9, ignore_eos=True),
    Length(6, end_ids=(7, 11)),
    Length(25),
    Length(14),
)


def mixed_requests(prompts: Sequence[Sequence[int]]) -> list[Request]:
    """Each with a sampling and a length of its own."""
    return [
        Request(n, tuple(ids), SAMPLINGS[n % len(SAMPLINGS)], LENGTHS[n % len(LENGTHS)], stream=n)
        for n, ids in enumerate(prompts)
    ]
