"""A conversation as one prompt: by the checkpoint's chat template, or plainly where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wingspan.runtime.generation.tokenizer import Tokenizer
from wingspan.server.errors import CallError
from wingspan.server.fields import Message, Tool
from wingspan.writing import json_text


def prompt_ids(tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Tool] | None) -> list[int]:
    """Token ids of a conversation that the model is to continue.

    Raises:
        CallError: no tokenizer, messages that the template refuses, or tools that it has no place for.
    """
    if tokenizer.why_no_text:
        raise CallError(f"messages: {tokenizer.why_no_text}; use /v1/completions with token ids", "messages")
    template = tokenizer.chat_template
    if tools and template is not None and "tools" not in template:
        raise CallError(
            "tools: the model's chat template has no place for them; describe them in a message, or leave them out",
            "tools",
        )
    if template is None:
        return tokenizer.encode(plain(messages, tools))
    try:
        return tokenizer.apply_chat_template(
            [_as_template(message) for message in messages],
            [tool.model_dump(exclude_none=True) for tool in tools or ()] or None,
        )
    except Exception as error:
        # A template is a program of the checkpoint; whatever it raises is about these messages.
        raise CallError(f"messages: the model's chat template refuses them: {error}", "messages") from None


def plain(messages: Sequence[Message], tools: Sequence[Tool] | None = None) -> str:
    """The conversation as lines that begin with their speakers, after a line for each tool."""
    lines = [f"tool: {json_text(tool.function.model_dump(exclude_none=True))}\n" for tool in tools or ()]
    lines += [f"{_speaker(message)}: {_said(message)}\n" for message in messages]
    return "".join(lines) + "assistant:"


def _speaker(message: Message) -> str:
    """Who says a message, or which call it answers."""
    return " ".join(filter(None, (message.role, message.name, message.tool_call_id)))


def _said(message: Message) -> str:
    """A message's text, and the calls it makes."""
    calls = [json_text(call.model_dump()) for call in message.tool_calls or ()]
    return " ".join(filter(None, (message.text, *calls)))


def _as_template(message: Message) -> dict[str, Any]:
    said = message.model_dump(exclude_none=True)
    return said | {"content": message.text}
