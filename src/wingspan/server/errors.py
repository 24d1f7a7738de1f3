"""What is wrong with a call, in the form that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from wingspan.errors import InputError
from wingspan.server.step_loop import QueueFullError, StoppedError

_KINDS = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    413: "invalid_request_error",
}
_RETRY_SECONDS = 1


class CallError(Exception):
    """A call that cannot be answered.

    Args:
        message: the thing, its value and the mend.
        param: the field that is wrong.
        status: of the answer.
        code: a word for programs.
    """

    def __init__(
        self, message: str, param: str | None = None, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code


def error_body(
    message: str, status: int, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The JSON body of an error."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def install(app: FastAPI) -> None:
    """Answer every error in this form."""

    def answer(
        message: str,
        status: int,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> JSONResponse:
        return JSONResponse(error_body(message, status, param, code), status, headers)

    @app.exception_handler(CallError)
    async def _(_: Request, error: CallError) -> JSONResponse:
        return answer(error.message, error.status, error.param, error.code)

    @app.exception_handler(InputError)
    async def _(_: Request, error: InputError) -> JSONResponse:
        return answer(str(error), 400)

    @app.exception_handler(RequestValidationError)
    async def _(_: Request, error: RequestValidationError) -> JSONResponse:
        message, param = _worst(error)
        return answer(message, 400, param)

    @app.exception_handler(QueueFullError)
    async def _(_: Request, __: QueueFullError) -> JSONResponse:
        headers = {"Retry-After": str(_RETRY_SECONDS)}
        return answer("too many requests wait; try again later", 429, code="queue_full", headers=headers)

    @app.exception_handler(StoppedError)
    async def _(_: Request, error: StoppedError) -> JSONResponse:
        return answer(f"the engine has ended: {error}", 503, code="engine_ended")

    @app.exception_handler(HTTPException)
    async def _(_: Request, error: HTTPException) -> JSONResponse:
        return answer(str(error.detail), error.status_code, headers=error.headers)


def _worst(error: RequestValidationError) -> tuple[str, str | None]:
    """The first thing that is wrong, and its field."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part != "body" and not _is_branch(part)]
    name = ".".join(path) or None
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}", None
    if not path:
        return "the body is no JSON object; send one, with Content-Type: application/json", None
    if first["type"] == "extra_forbidden":
        return f"{name}: this server has no such field; leave it out", name
    value = first.get("input")
    shown = f" (got {str(value)[:60]!r})" if isinstance(value, str | int | float | bool) else ""
    message = first["msg"].removeprefix("Value error, ")
    return (f"{name}: {message}{shown}" if name else message), name


def _is_branch(part: object) -> bool:
    """Whether a part of a location is pydantic's name for one form of a union, and not the caller's field."""
    return isinstance(part, str) and ("[" in part or part in ("str", "int", "float", "bool"))
