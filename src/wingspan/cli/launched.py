"""What commands that run on ranks have in common where a launcher started them: waiting, and what all must be given."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from wingspan.errors import InputError

if TYPE_CHECKING:
    from wingspan.runtime.api import Prompt
    from wingspan.runtime.launch.group import Group
    from wingspan.runtime.launch.meeting.protocol import Patience


def patience(wait_seconds: float | None) -> Patience:
    """How long to wait for ranks; says on standard error for whom."""
    from wingspan.runtime.launch.meeting.protocol import Patience

    return Patience(tell=_say) if wait_seconds is None else Patience(wait_seconds, _say)


def check_wait_is_used(wait_seconds: float | None, group: Group) -> None:
    """Raise `InputError` where a time is given and nobody is waited for."""
    if wait_seconds is not None and group.launch is None:
        raise InputError(
            f"--wait-seconds {wait_seconds:g}: ranks that this command starts itself come at once; leave it out"
        )


def given(arguments: Any, leave_out: Collection[str]) -> dict[str, str]:
    """The options of a command line as text, for ranks to compare.

    Args:
        arguments: a dataclass with a field per option.
        leave_out: fields that may differ, or are compared by what they lead to.
    """
    names = [field.name for field in fields(arguments) if field.name not in leave_out]
    return {f"--{name.replace('_', '-')}": _text(getattr(arguments, name)) for name in names}


def prompt_text(prompt: Prompt) -> str:
    """A prompt for comparison: its text where it has one, and its tokens."""
    ids = ",".join(map(str, prompt.ids))
    return ids if prompt.text is None else f"{prompt.text!r} ({ids})"


def _text(value: Any) -> str:
    return "not given" if value is None else str(value)


def _say(line: str) -> None:
    print(f"wingspan: {line}", file=sys.stderr, flush=True)
