"""Tools that a model must use: the schema its answer follows, and the calls that are read from it."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from wingspan.server.errors import CallError
from wingspan.server.fields import ChatCall, NamedTool
from wingspan.writing import json_text


@dataclass(frozen=True)
class Forced:
    """What the model must answer with.

    Args:
        schema: of the answer.
        name: of the only function; None: the answer names one.
    """

    schema: dict[str, Any]
    name: str | None

    def calls(self, text: str) -> list[dict[str, Any]]:
        """The calls in an answer; its text as the arguments where it broke off before its end."""
        name, arguments = self.name or "", text
        if self.name is None:
            try:
                said = json.loads(text)
                name, arguments = said["name"], json_text(said["arguments"])
            except (ValueError, KeyError, TypeError):
                pass
        function = {"name": name, "arguments": arguments}
        return [{"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}]


def forced(call: ChatCall) -> Forced | None:
    """What a call's `tool_choice` makes the model answer with; None where it is free.

    Raises:
        CallError: a choice without tools, or of one that is not among them.
    """
    choice, tools = call.tool_choice, {tool.function.name: tool.function for tool in call.tools or ()}
    if choice in (None, "none", "auto"):
        if choice == "auto" and not tools:
            raise CallError("tool_choice: there are no tools to choose from; give tools", "tool_choice")
        return None
    if not tools:
        raise CallError("tool_choice: there are no tools to choose from; give tools", "tool_choice")
    if isinstance(choice, NamedTool):
        name = choice.function.name
        if name not in tools:
            raise CallError(
                f"tool_choice: no tool is named {name!r}; use one of {', '.join(tools)}", "tool_choice"
            )
        return Forced(tools[name].parameters, name)
    return Forced({"anyOf": [_call_schema(name, tools[name].parameters) for name in tools]}, None)


def _call_schema(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
