"""What callers may say, as OpenAI's API and vLLM's additions to it name it."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from wingspan.runtime.generation.requests import Length
from wingspan.runtime.generation.sampling import Sampling

MOST_CHOICES = 128
MOST_LOGPROBS = 20
_SEED_BITS = 63


def _one_as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIdKey = Annotated[int, Field(ge=0, lt=2**31, strict=False)]
"""A token id as a name in JSON, where names are texts."""
StopText = Annotated[str, Field(min_length=1)]
StopTexts = Annotated[list[StopText], Field(max_length=16)]


def _declare_null(schema: dict[str, Any]) -> None:
    """Let a body's description say that whatever may be left out may be null, whether the server has it or not."""
    schema["additionalProperties"] = {"type": "null"}
    for name, said in schema.get("properties", {}).items():
        if name not in schema.get("required", ()) and {"type": "null"} not in said.get("anyOf", ()):
            schema["properties"][name] = {"anyOf": [said, {"type": "null"}]}


class Fields(BaseModel):
    """A body; a field that is not declared is refused, so that nothing is ignored without a word.

    Strictly read: a number in quotes is no number, as `/openapi.json` says. But null is nothing: clients send it for
    all that their caller left out.
    """

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, strict=True, json_schema_extra=_declare_null
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if value is not None}


class StreamOptions(Fields):
    """What a caller wants of an answer that comes in pieces."""

    include_usage: bool = False
    continuous_usage_stats: Literal[False] = False


class JsonSchema(Fields):
    """A schema that the answer must fit."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class ResponseFormat(Fields):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class CallFields(Fields):
    """What completions and chat completions share."""

    model: str | None = None
    temperature: float = Field(default=1.0, ge=0, le=100)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=-1, description="0 and -1: all tokens")
    min_p: float = Field(default=0.0, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    n: int = Field(default=1, ge=1, le=MOST_CHOICES)
    stop: Annotated[
        StopTexts | None, BeforeValidator(_one_as_list, json_schema_input_type=StopText | StopTexts | None)
    ] = None
    stop_token_ids: list[TokenId] = Field(default_factory=list, max_length=64)
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logit_bias: dict[TokenIdKey, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        default=None, max_length=1024
    )
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float = Field(default=1.0, gt=0, le=10)
    response_format: ResponseFormat | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    priority: int = Field(default=0, ge=-(2**31), lt=2**31, description="lower goes first")
    # What callers say of themselves; it changes no answer.
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    safety_identifier: str | None = None

    def sampling(self, grammar: str | None) -> Sampling:
        """How tokens are chosen; without a seed, by one that is drawn here, so that all ranks draw alike."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k if self.top_k > 0 else None,
            top_p=self.top_p if self.top_p < 1 else None,
            min_p=self.min_p or None,
            seed=secrets.randbits(_SEED_BITS) if self.seed is None else self.seed,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=tuple(sorted((self.logit_bias or {}).items())),
            grammar=grammar,
        )

    def length(self, most_tokens: int) -> Length:
        """When the answer ends, beside stop strings."""
        return Length(most_tokens, tuple(self.stop_token_ids), self.ignore_eos)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a count of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionCall(CallFields):
    """The body of /v1/completions."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    max_tokens: int = Field(default=16, ge=1)
    echo: bool = False
    best_of: int | None = Field(default=None, ge=1, description="As n: all answers are given.")
    suffix: str | None = Field(default=None, description="Not supported; empty or null.")
    logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)


class TextPart(Fields):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class FunctionCall(Fields):
    """A function that the model called before."""

    name: str
    arguments: str


class ToolCall(Fields):
    """A call of a tool in an earlier message."""

    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Fields):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class Function(Fields):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool | None = None


class Tool(Fields):
    """A tool that the model may use."""

    type: Literal["function"]
    function: Function


class NamedFunction(Fields):
    """The name of a function."""

    name: str


class NamedTool(Fields):
    """The one tool that the model must use."""

    type: Literal["function"]
    function: NamedFunction


class ChatCall(CallFields):
    """The body of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)
    tools: list[Tool] | None = Field(default=None, min_length=1, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = Field(default=None, description="Not supported; false or null.")


class TokenizeCall(Fields):
    """The body of /tokenize."""

    model: str | None = None
    prompt: str


class DetokenizeCall(Fields):
    """The body of /detokenize."""

    model: str | None = None
    tokens: list[TokenId]
