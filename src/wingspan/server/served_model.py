"""What every route needs: the engine, the model's name and tokenizer, and how a call becomes answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wingspan.errors import InputError
from wingspan.runtime.generation.grammars import json_grammar
from wingspan.runtime.generation.tokenizer import Tokenizer
from wingspan.server.answers import Answer, Ask
from wingspan.server.errors import CallError
from wingspan.server.fields import CallFields, ResponseFormat
from wingspan.server.step_loop import StepLoop
from wingspan.server.text import TextStream
from wingspan.writing import json_text

_ANY_JSON_OBJECT = '{"type": "object"}'


@dataclass(frozen=True)
class ServedModel:
    """One model, served.

    Args:
        engine: that answers.
        name: of the model, as callers say it.
        tokenizer: the checkpoint's.
        longest: tokens of prompt and answer together; None: no limit is known.
        longest_of: what that is, in words before the number.
        vocabulary: how many token ids there are.
        started_seconds: since the epoch.
    """

    engine: StepLoop
    name: str
    tokenizer: Tokenizer
    longest: int | None
    longest_of: str
    vocabulary: int
    started_seconds: int

    def check_model(self, name: str | None) -> None:
        """Raise `CallError` where a call names another model."""
        if name not in (None, self.name):
            raise CallError(
                f"model {name!r} is not served here; use {self.name!r}", "model", 404, "model_not_found"
            )

    def check_known(self, ids: Sequence[int], field: str) -> None:
        """Raise `CallError` for ids that the model does not have."""
        if bad := [i for i in ids if i >= self.vocabulary]:
            raise CallError(f"{field}: id {bad[0]} is outside the vocabulary 0..{self.vocabulary - 1}", field)

    def check_prompt(self, ids: Sequence[int], field: str) -> None:
        """Raise `CallError` for a prompt without tokens, or with ids that the model does not have."""
        if not ids:
            raise CallError(f"{field}: has no token; give at least one", field)
        self.check_known(ids, field)

    def encode(self, text: str, field: str) -> list[int]:
        """Ids of a text."""
        try:
            ids = self.tokenizer.encode(text)
        except InputError as error:
            raise CallError(f"{field}: {error}; send token ids", field) from None
        self.check_known(ids, field)
        return ids

    def room(self, ids: Sequence[int], wanted: int | None, field: str) -> int:
        """The most tokens of an answer to this prompt.

        Args:
            ids: the prompt.
            wanted: by the caller; None: all that fit.
            field: that the prompt came in.

        Raises:
            CallError: the prompt, or it and what is wanted, exceed what is served.
        """
        if self.longest is None:
            return 1024 if wanted is None else wanted
        left = self.longest - len(ids)
        if left < 1:
            raise CallError(
                f"{field}: {len(ids)} tokens leave no room for an answer in {self.longest_of} {self.longest}; "
                f"send at most {self.longest - 1}",
                field,
                code="context_length_exceeded",
            )
        if wanted is not None and wanted > left:
            raise CallError(
                f"{len(ids)} tokens of {field} and max_tokens {wanted} exceed {self.longest_of} {self.longest}; "
                f"ask for at most {left}",
                "max_tokens",
                code="context_length_exceeded",
            )
        return left if wanted is None else wanted

    def grammar(self, wanted: ResponseFormat | None) -> str | None:
        """The grammar of a `response_format`."""
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_schema" and wanted.json_schema is None:
            raise CallError("response_format: json_schema is missing", "response_format.json_schema")
        schema = _ANY_JSON_OBJECT if wanted.json_schema is None else json_text(wanted.json_schema.schema_)
        return self.schema_grammar(schema, "response_format")

    def schema_grammar(self, schema: str, field: str) -> str:
        """The grammar of a JSON schema that came in a field."""
        if self.tokenizer.why_no_text:
            raise CallError(f"{field}: {self.tokenizer.why_no_text}", field)
        try:
            return json_grammar(schema)
        except InputError as error:
            raise CallError(f"{field}: {error}", field) from None

    def answers(
        self,
        call: CallFields,
        ids: Sequence[int],
        most_tokens: int,
        logprobs: int | None,
        grammar: str | None,
        *,
        prompt_logprobs: bool = False,
    ) -> list[Answer]:
        """The answers that a call wants to one prompt."""
        if bad := [token for token in call.logit_bias or () if token >= self.vocabulary]:
            raise CallError(f"logit_bias: id {bad[0]} is outside the vocabulary", "logit_bias")
        if call.stop and self.tokenizer.why_no_text:
            raise CallError(f"stop: {self.tokenizer.why_no_text}; use stop_token_ids", "stop")
        sampling, length = call.sampling(grammar), call.length(most_tokens)
        return [
            Answer(
                Ask(tuple(ids), sampling, length, number, logprobs, call.priority, prompt_logprobs),
                TextStream(self.decode, call.stop or (), keep_stop=call.include_stop_str_in_output),
            )
            for number in range(call.n)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; empty where the checkpoint has no tokenizer."""
        return self.tokenizer.decode(ids) or ""
