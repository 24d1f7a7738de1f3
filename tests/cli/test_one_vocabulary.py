"""One name for one thing over the whole command tree: an option means the same and has one type in every command."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.cli.tree import COMMANDS
from wingspan.cli.aliases import ALIASES

_LISTS = {"sweep", "routing --ranks-per-node", "simulate-serving --rate", "compare --rate"}
"""Here an option takes several values of its type, as text: each is an axis, or a size to show."""

_NAMES_OR_FILES = {"--placement", "--cluster"}
"""A name or a file: a command that knows no names takes the file alone."""

_STILL_OPTIONS = {
    "--step-tokens": {
        "serve",
        "simulate-serving",
        "compare",
        "calibrate",
    },  # most tokens of a step: a limit, not the batch
    "--top-k": {"run"},  # of sampling
    "--rate": {"bench serve", "simulate-serving", "compare"},  # requests a second
    "--name": {"testbed up", "testbed run", "testbed down"},
    "--precision": {
        "calibrate",
        "place",
        "plan",
        "simulate",
        "simulate-serving",
        "sweep",
    },  # of all parts, not of rows alone
}
"""Old names of one thing that are today's of another, and where."""


def _options() -> list[tuple[str, str, Any]]:
    return [
        (command, param.opts[0], param)
        for command, found in COMMANDS.items()
        for param in found.params
        if param.param_type_name == "option" and param.name != "help"
    ]


def test_an_option_has_one_field_and_a_field_one_option() -> None:
    """What errors call a field, options show by one name; so a pair is the same in every command."""
    fields, options = defaultdict(set), defaultdict(set)
    for _, option, param in _options():
        fields[option].add(param.name)
        options[param.name].add(option)
    assert {name: found for name, found in {**fields, **options}.items() if len(found) > 1} == {}


def test_an_option_has_one_type() -> None:
    types = defaultdict(lambda: defaultdict(set))
    for command, option, param in _options():
        kind = param.type_descriptor.annotation
        if not {command, f"{command} {option}"} & _LISTS and option not in _NAMES_OR_FILES:
            types[option][kind].add(command)
    assert {option: dict(found) for option, found in types.items() if len(found) > 1} == {}


def test_an_option_has_one_spelling() -> None:
    """No second names beside the first but one letter; old ones are in the table of aliases."""
    for command, option, param in _options():
        more = [other for other in (*param.opts[1:], *param.secondary_opts) if len(other) > 2]
        assert [name for name in more if not name.startswith("--no-")] == [], (command, option)


def test_old_names_are_options_no_more() -> None:
    old = {alias.old for alias in ALIASES}
    found = defaultdict(set)
    for command, option, _ in _options():
        if option in old:
            found[option].add(command)
    assert dict(found) == _STILL_OPTIONS


def test_what_is_written_is_named_by_what_it_is() -> None:
    """A result goes to --out; further outputs say what they are."""
    written = {
        option for _, option, param in _options() if "write" in (param.help or "").lower().split()[:1]
        and param.type_descriptor.annotation in (Path, Path | None)
    }  # fmt: skip
    assert written <= {"--out", "--html", "--trace"}


def test_equal_help_is_an_equal_name() -> None:
    names = defaultdict(set)
    for _, option, param in _options():
        names[param.help].add(option)
    assert {text: found for text, found in names.items() if len(found) > 1} == {}
