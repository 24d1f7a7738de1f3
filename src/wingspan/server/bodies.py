"""What the server answers with, as its OpenAPI description declares it. Every field that is sent is declared here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Finish = Literal["stop", "length", "tool_calls"]


class Body(BaseModel):
    """A body or a part of one; it has no other fields."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Body):
    """What is wrong, and with which field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Body):
    """OpenAI's form of an error."""

    error: ErrorDetail


class PromptDetails(Body):
    """Tokens of the prompts that were found computed."""

    cached_tokens: int


class Usage(Body):
    """How many tokens went in and came out; without prefix caching there are no details of prompts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | None


class CompletionLogprobs(Body):
    """How likely each token was, which others were likeliest, and where its text begins.

    The first token of a prompt that is repeated follows nothing: it has null.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Body):
    """One continuation of one prompt."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish
    stop_reason: str | None = Field(description="The stop string that ended the answer.")


class TextCompletion(Body):
    """The answer to /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class CompletionChoicePiece(CompletionChoice):
    """What a continuation has gained."""

    finish_reason: Finish | None  # type: ignore[assignment] # none before its end


class CompletionPiece(Body):
    """An event of a stream from /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoicePiece]
    usage: Usage | None = None


class Likely(Body):
    """A token, and how likely it was."""

    token: str
    logprob: float
    bytes: list[int]


class LikelyAndOthers(Likely):
    """A token of the answer, and which were likeliest in its place."""

    top_logprobs: list[Likely]


class ChatLogprobs(Body):
    """The probabilities of an answer, token by token."""

    content: list[LikelyAndOthers]


class CalledFunction(Body):
    """A function, and its arguments as JSON."""

    name: str
    arguments: str


class Called(Body):
    """A tool that the model calls."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Said(Body):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    tool_calls: list[Called] = Field(default_factory=list)


class ChatChoice(Body):
    """One answer to a conversation."""

    index: int
    message: Said
    logprobs: ChatLogprobs | None
    finish_reason: Finish
    stop_reason: str | None


class ChatCompletion(Body):
    """The answer to /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class CalledPiece(Called):
    """A tool that the model calls, and which of its calls this is."""

    index: int


class Gained(Body):
    """What an answer has gained."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[CalledPiece] = Field(default_factory=list)


class ChatChoicePiece(Body):
    """What one answer to a conversation has gained."""

    index: int
    delta: Gained
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None
    stop_reason: str | None


class ChatPiece(Body):
    """An event of a stream from /v1/chat/completions."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChoicePiece]
    usage: Usage | None = None


class ModelCard(Body):
    """What is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "wingspan"
    max_model_len: int | None = Field(
        description="Most tokens of prompt and answer; null: no limit is known."
    )


class ModelList(Body):
    """The answer to /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class TokenIds(Body):
    """The answer to /tokenize."""

    count: int
    max_model_len: int | None
    tokens: list[int]


class Detokenized(Body):
    """The answer to /detokenize."""

    prompt: str


class Health(Body):
    """How the server is."""

    status: Literal["ok", "ready"]


class Version(Body):
    """The server's version."""

    version: str
