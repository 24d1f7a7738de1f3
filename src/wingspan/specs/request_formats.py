"""How files of requests name their columns: public traces by their own names, other files by obvious ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class RequestFormat:
    """Where a file keeps what a request is; columns as the file spells them.

    Args:
        name: what a person calls it.
        prompt: column of the prompt's tokens.
        output: column of the answer's tokens.
        arrival: column of the arrival; None: the file has lengths alone.
        unit_seconds: what 1 in that column is; None: as the values tell (dates, Unix times, else seconds).
        blocks: column of the ids of a prompt's blocks, equal where prompts begin alike.
        block_tokens: tokens of one such block.
    """

    name: str
    prompt: str
    output: str
    arrival: str | None = None
    unit_seconds: float | None = None
    blocks: str | None = None
    block_tokens: int = 0


MOONCAKE_BLOCK_TOKENS = 512
"""Tokens of one of `hash_ids`. Source: kvcache-ai/Mooncake, README, Open Source Trace."""

_PUBLIC = (
    # Azure/AzurePublicDataset, its pages on the LLM inference datasets of 2023 and 2024.
    RequestFormat("Azure LLM inference trace", "ContextTokens", "GeneratedTokens", "TIMESTAMP"),
    # kvcache-ai/Mooncake, README: timestamps in milliseconds.
    RequestFormat(
        "Mooncake trace",
        "input_length",
        "output_length",
        "timestamp",
        1e-3,
        blocks="hash_ids",
        block_tokens=MOONCAKE_BLOCK_TOKENS,
    ),
    # HPMLL/BurstGPT, README: seconds from the first day's midnight; failed requests have no response tokens.
    RequestFormat("BurstGPT trace", "Request tokens", "Response tokens", "Timestamp", 1.0),
)

_PROMPT = (
    "prompt_tokens", "input_tokens", "context_tokens", "num_prompt_tokens", "num_input_tokens", "num_prefill_tokens",
    "prompt_length", "input_length", "prompt_len", "input_len", "request_tokens",
)  # fmt: skip
_OUTPUT = (
    "output_tokens", "completion_tokens", "generated_tokens", "num_output_tokens", "num_completion_tokens",
    "num_decode_tokens", "output_length", "output_len", "response_tokens",
)  # fmt: skip
_ARRIVAL = ("arrival", "arrival_time", "arrived_at", "timestamp", "time", "start_time", "created_at")
_UNITS = {"_seconds": 1.0, "_s": 1.0, "_ms": 1e-3, "_milliseconds": 1e-3, "_us": 1e-6, "_ns": 1e-9}


def recognised(columns: Iterable[str]) -> RequestFormat | None:
    """The format of a file with these columns; None where prompt or output is not among them."""
    named = {_plain(column): column for column in columns}
    for public in _PUBLIC:
        needed = [public.prompt, public.output, public.arrival or "", public.blocks or public.prompt]
        if all(_plain(column) in named for column in needed):
            return RequestFormat(
                public.name,
                named[_plain(public.prompt)],
                named[_plain(public.output)],
                named[_plain(public.arrival or "")],
                public.unit_seconds,
                named[_plain(public.blocks)] if public.blocks else None,
                public.block_tokens,
            )
    prompt, output = _first(named, _PROMPT), _first(named, _OUTPUT)
    if prompt is None or output is None:
        return None
    arrival = _first(named, [*(f"{name}{unit}" for name in _ARRIVAL for unit in _UNITS), *_ARRIVAL])
    unit = next((s for end, s in _UNITS.items() if arrival and _plain(arrival).endswith(end)), None)
    return RequestFormat("requests by column names", prompt, output, arrival, unit)


WANTED = "needs the tokens of prompts and outputs, as columns prompt_tokens and output_tokens, and best arrival_seconds"
"""What to say where a file's columns are not recognised."""


def _plain(column: str) -> str:
    """`Request tokens`, `request_tokens` and `RequestTokens` are one name."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column.strip())
    return re.sub(r"[\s_-]+", "_", split).lower()


def _first(named: dict[str, str], names: Iterable[str]) -> str | None:
    return next((named[name] for name in names if name in named), None)
