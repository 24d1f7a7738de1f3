"""Read a spec from YAML or a mapping; whatever is wrong ends as one line that names file, key, value and mend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from wingspan.errors import InputError
from wingspan.reading import yaml_value

_LONGEST_VALUE = 60


class Spec(BaseModel):
    """What is given: frozen once read, and it refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


S = TypeVar("S", bound=Spec)
E = TypeVar("E", bound=StrEnum)


def parse(kind: type[S], data: Mapping[str, Any], source: str) -> S:
    """`data` as a `kind`.

    Args:
        kind: the spec's class.
        data: keys and values, as a YAML or JSON file gives them.
        source: where they came from; errors start with it.

    Raises:
        InputError: a key is unknown or missing, or a value does not fit; the line names the first such key.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{source}: {_first_line(kind, error)}") from None


def choice(text: str, name: str, kind: type[E]) -> E:
    """The one of `kind` that has this name.

    Raises:
        InputError: there is none; names it and all that there are.
    """
    try:
        return kind(text)
    except ValueError:
        known = list(kind)
        names = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"
        raise InputError(f"{name} {text}: use {names}") from None


def near_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is probably a slip of; None where it is too far from all of them.

    Two letters in eight may be wrong: `colour` is no slip of `cluster`, which difflib alone takes it for.
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.75)
    return close[0] if close else None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        InputError: there is no such file, it is not YAML, or its top is not a mapping.
    """
    try:
        data = yaml_value(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name an existing file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}: not YAML{where} ({first})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected keys and values at the top, found {type(data).__name__}")
    return data


def _first_line(kind: type[BaseModel], error: ValidationError) -> str:
    """The first complaint as `key: what is wrong (value); mend`, with the number of further ones."""
    errors = error.errors(include_url=False)
    # An unknown key is mostly a typing error, and then the cause of a missing one: name it first.
    first = min(errors, key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        text = f"unknown key {key}{_suggestion(kind, first['loc'])}"
    elif first["type"] == "missing":
        text = f"key {key} is missing; add it"
    else:
        text = first["msg"].removeprefix("Value error, ")
        if key and not isinstance(first["input"], Mapping):
            text = f"{key} = {shown(first['input'])}: {text[:1].lower()}{text[1:]}"
        elif key:
            text = f"{key}: {text[:1].lower()}{text[1:]}"
    more = len(errors) - 1
    return text + (f" (and {more} more)" if more else "")


def _suggestion(kind: type[BaseModel], location: tuple[int | str, ...]) -> str:
    known = _known_keys(kind, location[:-1])
    if not known:
        return "; remove it"
    meant = near_name(str(location[-1]), known)
    return f"; did you mean {meant}?" if meant else f"; known: {', '.join(known)}"


def _known_keys(kind: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Keys of the spec at `path` below `kind`; none where the way leads through something else."""
    current: Any = kind
    for part in path:
        field = current.model_fields.get(part)
        if field is None:
            return []
        candidates = (field.annotation, *getattr(field.annotation, "__args__", ()))
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if current is None:
            return []
    return list(current.model_fields)


def shown(value: object) -> str:
    """A value as an error shows it, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."
