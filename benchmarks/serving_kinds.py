"""Streams of uneven requests that come and go on 4 ranks, for every kind of attention: each is what it is alone.

A tiny random model of each architecture that the experts registry serves answers 32 requests: prompts and answers of
many lengths, greedy and sampled, more of them than there are places, in less room for caches than they would fill; some
leave before their end. The engine is the one behind `wingspan serve`; with `--http` it is the server itself, as a
process. Every text must equal, in FP32, what plain transformers gives that prompt alone on one process.

    python -m benchmarks.serving_kinds
    python -m benchmarks.serving_kinds gpt_oss qwen3_next --http
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx2 as httpx
import torch
import typer
from tests.runtime.plain import SAMPLINGS, plain_model, plain_tokens
from tests.server.running import server
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from benchmarks.architectures import VOCABULARY, tiny_configuration, write_checkpoint
from wingspan.errors import WingspanError
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.llm import LLM
from wingspan.server.answers import Answer, Ask
from wingspan.server.step_loop import StepLoop, StoppedError
from wingspan.server.text import TextStream

RANKS, SLOTS = 4, 2
STREAMS = 32
_SEQUENCES_PER_RANK = 5
_TOKENS_PER_STEP = 24
_KV_TOKENS_PER_RANK = 120

KINDS = {
    "full": (
        "aria_text", "ernie4_5_moe", "flex_olmo", "glm4_moe", "granitemoe", "granitemoeshared", "hunyuan_v1_moe",
        "hy_v3", "minimax_m2", "olmoe", "phimoe", "solar_open",
    ),
    "sliding window": (
        "afmoe", "beam", "cohere2_moe", "dots1", "exaone_moe", "flint", "gpt_oss", "granitemoe_swa", "inkling2_text",
        "inkling_text", "kolibri1", "laguna", "mellum", "mimo_v2_flash", "mixtral", "qwen2_moe", "qwen3_moe",
    ),
    "latent": ("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite"),
    "sparse by an index": (
        "axk2", "deepseek_v32", "dots3_note", "dots3_note_text", "glm_moe_dsa", "hy_v4", "minimax_m3_vl_text",
    ),
    "linear": (
        "bailing_hybrid", "kimi_linear", "minimax", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next", "qwen4_exp",
        "qwen4_exp_text",
    ),
    "Mamba": ("granitemoehybrid", "jamba", "nemotron_h"),
    "short convolution": ("lfm2_moe", "zaya"),
    "shared across layers": ("gemma4", "gemma4_text"),
    "compressed": ("deepseek_v4",),
}  # fmt: skip
"""Every architecture, under what is rarest in its layers; most of them mix kinds."""


@dataclass(frozen=True)
class Stream:
    """A request, when it comes, and whether its caller leaves before its end."""

    request: Request
    after_seconds: float
    leaves: bool


def streams(seed: str) -> list[Stream]:
    """What is asked of a model; the same for a seed."""
    draw = random.Random(seed)
    return [
        Stream(
            Request(
                number,
                tuple(draw.randrange(VOCABULARY - 1) for _ in range(draw.choice((1, 2, 5, 9, 14, 33)))),
                SAMPLINGS[draw.randrange(len(SAMPLINGS))],
                Length(draw.randint(1, 20), ignore_eos=True),
            ),
            draw.random() * 0.5,
            number % 8 == 7,
        )
        for number in range(STREAMS)
    ]


def checkpoint(architecture: str, folder: Path) -> Path:
    """A tiny random model of an architecture, whose tokens are characters."""
    written = write_checkpoint(tiny_configuration(architecture), folder, seed=1)
    backend = Tokenizer(WordLevel({chr(ord(" ") + i): i for i in range(VOCABULARY)}, unk_token=" "))
    backend.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False).save_pretrained(
        written
    )
    return written


def by_engine(folder: Path, asked: Sequence[Stream]) -> list[str]:
    """The text of each stream, so far as it was read, by the engine behind the server."""
    with LLM(
        folder,
        RANKS,
        SLOTS,
        dtype="float32",
        sequences_per_rank=_SEQUENCES_PER_RANK,
        tokens_per_step=_TOKENS_PER_STEP,
        kv_tokens_per_rank=_KV_TOKENS_PER_RANK,
    ) as llm:
        return asyncio.run(_by_engine(llm, asked))


async def _by_engine(llm: LLM, asked: Sequence[Stream]) -> list[str]:
    engine = StepLoop(llm, most_waiting=STREAMS)
    stepping = asyncio.create_task(engine.run())

    async def read(stream: Stream) -> str:
        await asyncio.sleep(stream.after_seconds)
        request = stream.request
        answer = Answer(
            Ask(request.ids, request.sampling, request.length),
            TextStream(lambda ids: llm.tokenizer.decode(ids) or ""),
        )
        await engine.submit([answer])
        text = ""
        async for piece in answer.pieces():
            text += piece.text
            if stream.leaves:
                engine.withdraw([answer])
                break
        return text

    reading = asyncio.gather(*map(read, asked))
    await asyncio.wait({stepping, reading}, return_when=asyncio.FIRST_COMPLETED)
    stepping.cancel()
    with suppress(asyncio.CancelledError):
        await stepping
    return await reading


def by_http(folder: Path, asked: Sequence[Stream]) -> list[str]:
    """The text of each stream, so far as it was read, by a server of its own."""
    options = {
        "--ranks": RANKS,
        "--experts-per-rank": SLOTS,
        "--dtype": "float32",
        "--max-sequences": _SEQUENCES_PER_RANK,
        "--step-tokens": _TOKENS_PER_STEP,
    }
    with server(*(str(text) for option in options.items() for text in option), model=str(folder)) as running:
        return asyncio.run(_by_http(running.address, asked))


async def _by_http(address: str, asked: Sequence[Stream]) -> list[str]:
    async def read(stream: Stream) -> str:
        await asyncio.sleep(stream.after_seconds)
        text = ""
        async with client.stream("POST", "/v1/completions", json=_body(stream.request)) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                    if stream.leaves:
                        break
        return text

    async with httpx.AsyncClient(base_url=address, timeout=120) as client:
        return await asyncio.gather(*map(read, asked))


def _body(request: Request) -> dict[str, Any]:
    sampling = request.sampling
    body = {
        "prompt": request.ids,
        "max_tokens": request.length.max_new_tokens,
        "ignore_eos": True,
        "stream": True,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "seed": sampling.seed % 2**64,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
    }
    return {name: value for name, value in body.items() if value is not None}


def differing(folder: Path, asked: Sequence[Stream], got: Sequence[str]) -> list[str]:
    """Which streams are not what plain transformers gives that prompt alone."""
    model, wrong = plain_model(folder), []
    for stream, text in zip(asked, got, strict=True):
        expected = "".join(chr(ord(" ") + token) for token in plain_tokens(model, stream.request))
        if not (expected.startswith(text) and text if stream.leaves else text == expected):
            wrong.append(f"stream {stream.request.number}: {text!r} instead of {expected!r}")
    return wrong


def judge(architecture: str, folder: Path, *, http: bool = False) -> list[str]:
    """What is not as it must be with an architecture; nothing where all is well."""
    written = checkpoint(architecture, folder)
    asked = streams(architecture)
    try:
        got = (by_http if http else by_engine)(written, asked)
    except (StoppedError, WingspanError) as error:
        return [str(error)]
    return differing(written, asked, got)


def main(
    architectures: Annotated[list[str] | None, typer.Argument()] = None,
    http: Annotated[bool, typer.Option("--http", help="Through a server's process.")] = False,
) -> None:
    """Print a line for each architecture; exit code 1 where any differs."""
    torch.set_num_threads(1)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    failed = False
    for kind, members in KINDS.items():
        for architecture in members:
            if architectures and architecture not in architectures:
                continue
            begun = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                wrong = judge(architecture, Path(folder), http=http)
            failed |= bool(wrong)
            verdict = f"DIFFERENT in {len(wrong)}: {wrong[0]}" if wrong else "equal"
            print(f"{kind:20} {architecture:20} {time.monotonic() - begun:5.1f} s  {verdict}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    typer.run(main)
