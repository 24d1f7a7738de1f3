"""Fields that would change nothing beside the others of a call, or that nothing here does: refused by their names."""

from __future__ import annotations

from wingspan.server.errors import CallError
from wingspan.server.fields import CallFields, ChatCall, CompletionCall


def check_completion(call: CompletionCall) -> None:
    """Raise `CallError` for a field of a completion that would have no effect."""
    _check(call)
    if call.best_of not in (None, call.n):
        raise CallError(
            f"best_of: {call.best_of} answers are not chosen from here, all {call.n} are given; say n",
            "best_of",
        )
    if call.suffix:
        raise CallError("suffix: texts are only continued here; leave it out", "suffix")


def check_chat(call: ChatCall) -> None:
    """Raise `CallError` for a field of a chat completion that would have no effect."""
    _check(call)
    if call.top_logprobs is not None and not call.logprobs:
        raise CallError("top_logprobs: needs logprobs true", "top_logprobs")
    if call.max_tokens not in (None, call.max_completion_tokens or call.max_tokens):
        raise CallError(
            f"max_tokens: {call.max_tokens}, and max_completion_tokens {call.max_completion_tokens}; leave one out",
            "max_tokens",
        )
    if call.parallel_tool_calls:
        raise CallError(
            "parallel_tool_calls: an answer is one call here; leave it out", "parallel_tool_calls"
        )


def _check(call: CallFields) -> None:
    if call.stream_options is not None and not call.stream:
        raise CallError("stream_options: needs stream true", "stream_options")
    wanted = call.response_format
    if wanted is not None and wanted.type != "json_schema" and wanted.json_schema is not None:
        raise CallError(
            f"response_format.json_schema: is not followed with type {wanted.type!r}; use type 'json_schema'",
            "response_format.json_schema",
        )
