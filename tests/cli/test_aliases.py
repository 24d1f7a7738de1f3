"""Every old name and value parses as today's, in every command that had it, and no help shows it."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from tests.cli.command import Command
from tests.cli.tree import COMMANDS
from wingspan.cli.aliases import ALIASES, Alias
from wingspan.cli.aliases import COMMANDS as OLD_COMMANDS
from wingspan.errors import InputError

_GIVEN = {"--skew": "0.6", "--sigma": "0.6", "--exponent": "1.2", "--overlap": "chunks=4", "--out": "d.json"}
_TODAY = {
    "--skew": "log-normal:0.6",
    "--sigma": "log-normal:0.6",
    "--overlap": "chunks:4",
    "--chunks": "chunks:4",
    "--weights": "weights=4",
    "--activations": "activations=4",
    "--kv": "kv=4",
}


def _parsed(command: str, *arguments: str) -> dict[str, Any]:
    """The parameters of a call, as the command gets them; what it needs is filled in."""
    found = COMMANDS[command]
    first = arguments[0].partition("=")[0]
    options = {alias.new for alias in ALIASES if first == alias.old and alias.new.startswith("-")}
    given = options | set(arguments)
    needed = [
        word
        for param in found.params
        if param.required and not (set(param.opts) & given)
        for word in ([param.opts[0]] if param.param_type_name == "option" else []) + ["2"]
    ]
    context = found.make_context(command, [*needed, *arguments])
    return dict(context.params)


def _acts(alias: Alias, command: str) -> bool:
    named = {option for param in COMMANDS[command].params for option in param.opts}
    return alias.new in named and alias.old not in named


CASES = [(alias, command) for alias in ALIASES for command in COMMANDS if _acts(alias, command)]


@pytest.mark.parametrize(("alias", "command"), CASES, ids=lambda value: getattr(value, "old", value))
def test_an_old_name_is_todays(alias: Alias, command: str) -> None:
    if not alias.new.startswith("-"):
        assert _parsed(command, alias.old, "1.2")[alias.new] == "2:1.2"
        return
    given = () if alias.flag else (_GIVEN.get(alias.old, "4"),)
    today = alias.flag or _TODAY.get(alias.old, "4")
    assert _parsed(command, alias.old, *given) == _parsed(command, alias.new, today)
    if given:
        assert _parsed(command, f"{alias.old}={given[0]}") == _parsed(command, alias.new, today)


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("simulate", "--schedule chunks", "--schedule chunks:2"),
        ("simulate", "--schedule chunks=4", "--schedule chunks:4"),
        ("simulate", "--schedule chunks(4)", "--schedule chunks:4"),
        ("simulate", "--schedule chunks --chunks 3", "--schedule chunks:3"),
        ("simulate", "--chunks 3 --schedule chunks", "--schedule chunks:3"),
        ("sweep", "--schedule sequential,chunks=4,chunks", "--schedule sequential,chunks:4,chunks:2"),
        ("sweep", "--skew 0,0.6", "--routing uniform,log-normal:0.6"),
        ("sweep", "--ep 16..64 --batch 1,8", "--ranks 16..64 -b 1,8"),
        ("simulate", "--kv fp8 --weights fp4 --precision bf16", "--precision bf16,kv=fp8,weights=fp4"),
        ("place", "--step-tokens 256 --flat --ep 8", "-b 256 --dispatcher flat --ranks 8"),
    ],
)
def test_old_values_too(command: str, old: str, new: str) -> None:
    assert _parsed(command, *old.split()) == _parsed(command, *new.split())


def test_an_old_name_that_is_another_option_today_is_that() -> None:
    assert _parsed("simulate-serving", "--step-tokens", "64")["step_tokens"] == 64
    assert _parsed("import", "--from", "vllm", "--out", "x")["from_"] == "vllm"


def test_old_and_new_together_are_refused() -> None:
    for words in ("--chunks 3 --schedule two-batch", "--ep 8 --ranks 4"):
        with pytest.raises(InputError, match="give it once"):
            _parsed("simulate", *words.split())


def test_a_name_that_never_was_is_unknown() -> None:
    with pytest.raises(typer.TyperException, match="No such option"):
        _parsed("diff", "--ep", "8")


def test_no_help_shows_an_old_name(wingspan: Command) -> None:
    for command in COMMANDS:
        shown = wingspan(*command.split(), "--help").out.split()
        old = {alias.old for alias in ALIASES if _acts(alias, command)}
        assert not old & set(shown), command


@pytest.mark.parametrize(("old", "new"), OLD_COMMANDS.items())
def test_a_commands_old_name_runs_todays_and_is_shown_nowhere(wingspan: Command, old: str, new: str) -> None:
    assert old not in COMMANDS
    assert wingspan(old, "--help").out == wingspan(new, "--help").out
    refused = wingspan(old, "seed", "--find-limit", "--rate", "3,4")
    assert refused == wingspan(new, "seed", "--find-limit", "--rate", "3,4")
    assert refused.code == 2
    assert f"│ {old} " not in wingspan("--help").out
