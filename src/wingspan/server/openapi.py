"""What /openapi.json says of every route beside its body: the errors it answers with, and the key it wants."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from wingspan.server.bodies import Body, ChatPiece, CompletionPiece, ErrorBody

_REFERENCE = "#/components/schemas/{model}"

_ERRORS = {
    400: "A field, or the body, is wrong; `param` names the field.",
    401: "The key is missing, or wrong.",
    404: "Another model, or nothing, is there.",
    413: "The body is too long.",
    429: "Too many calls wait.",
    503: "The engine has ended, or its queue is full.",
}
_RETRY = {
    "Retry-After": {"description": "Seconds to wait before calling again.", "schema": {"type": "integer"}}
}

_TAKEN_OUT = ("HTTPValidationError", "ValidationError")
"""FastAPI's own form of an error, which it declares beside status 422; here such a call gets status 400."""


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare that a route answers with these statuses."""
    body = {"application/json": {"schema": _reference(ErrorBody)}}
    declared: dict[int | str, dict[str, Any]] = {
        status: {"description": _ERRORS[status], "content": body} for status in statuses
    }
    if 429 in declared:
        declared[429]["headers"] = _RETRY
    return declared


def in_pieces(piece: type[Body]) -> dict[int | str, dict[str, Any]]:
    """Declare that a route answers a call with `stream` by events that carry such bodies, and then the end."""
    bodies = {"anyOf": [_reference(piece), _reference(ErrorBody)]}
    event = {
        "type": "object",
        "properties": {
            "data": {
                "type": "string",
                "anyOf": [
                    {"const": "[DONE]"},
                    {"contentMediaType": "application/json", "contentSchema": bodies},
                ],
            }
        },
        "required": ["data"],
    }
    return {200: {"content": {"text/event-stream": {"itemSchema": event}}}}


def _reference(body: type[Body]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=body.__name__)}


def correct(app: FastAPI, open_paths: frozenset[str], *, keyed: bool) -> None:
    """Let an application's description say what is true of this server.

    Args:
        app: with all its routes.
        open_paths: that need no key.
        keyed: the others do.
    """
    generated = app.openapi

    def described() -> dict[str, Any]:
        schema = generated()
        for path, methods in schema["paths"].items():
            for route in methods.values():
                route["responses"].pop("422", None)
                if keyed and path in open_paths:
                    route["security"] = []
                    route["responses"].pop("401", None)
        parts = schema["components"]
        parts["schemas"] = {name: part for name, part in parts["schemas"].items() if name not in _TAKEN_OUT}
        parts["schemas"] |= _streamed_and_errors()
        if keyed:
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"key": []}]
        return schema

    app.openapi = described  # type: ignore[method-assign] # FastAPI's own way to extend it


def _streamed_and_errors() -> dict[str, Any]:
    """The schemas of bodies that no route returns as a value of Python's."""
    bodies = [(body, "serialization") for body in (ErrorBody, CompletionPiece, ChatPiece)]
    _, schema = models_json_schema(bodies, ref_template=_REFERENCE)  # type: ignore[arg-type]
    defined: dict[str, Any] = schema["$defs"]
    return defined
