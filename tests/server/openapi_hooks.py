"""What schemathesis is told beside the description of the server: how long answers may get. It imports this module."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: object, case: Any, kwargs: dict[str, Any]) -> None:
    """Let a call for long answers, or many, be one for few and short ones; what is wrong stays wrong."""
    body = case.body
    if not isinstance(body, dict):
        return
    for field, most in (("max_tokens", 4), ("max_completion_tokens", 4), ("n", 3)):
        if type(body.get(field)) is int and body[field] > most:
            body[field] = most
    if "messages" in body and body.get("max_completion_tokens") is None:
        body.setdefault("max_tokens", 4)
