"""Names that commands and options had in the version before, and values: read as today's, and shown nowhere.

An old name counts in every command that has the new option and none of the old name. With the next version this
file goes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wingspan.errors import InputError


def _schedules(text: str) -> str:
    """`chunks`, `chunks=4` and `chunks(4)` are today `chunks:2` and `chunks:4`; several stand with commas."""
    return re.sub(
        r"\bchunks(?:=(\d+)|\((\d+)\)|(?=,|$))",
        lambda found: f"chunks:{found[1] or found[2] or 2}",
        text,
    )


def _routings(sigmas: str) -> str:
    """The spread of experts' loads is that of a log-normal; 0 is uniform."""
    return ",".join("uniform" if _is_zero(sigma) else f"log-normal:{sigma}" for sigma in sigmas.split(","))


def _is_zero(text: str) -> bool:
    try:
        return float(text) == 0
    except ValueError:
        return False


@dataclass(frozen=True)
class Alias:
    """What an old name stands for.

    Args:
        old: the option's name.
        new: today's option, or the argument behind whose value it stands today, as in `log-normal:0.6`.
        value: today's value for an old one.
        flag: today's value, where the old option took none.
        completes: a value of today's option beside which the old one may stand: together they say one thing.
        joined: today's option takes what it and old ones say, with commas between.
    """

    old: str
    new: str
    value: Callable[[str], str] = str
    flag: str | None = None
    completes: str | None = None
    joined: bool = False


ALIASES = (
    Alias("--ep", "--ranks"),
    Alias("--slots-per-rank", "--experts-per-rank"),
    Alias("--experts-per-gpu", "--experts-per-rank"),
    Alias("--batch", "--tokens-per-gpu"),
    Alias("--step-tokens", "--tokens-per-gpu"),
    Alias("--dispatch", "--dispatcher"),
    Alias("--flat", "--dispatcher", flag="flat"),
    Alias("--overlap", "--schedule", _schedules),
    Alias("--chunks", "--schedule", "chunks:{}".format, completes="chunks"),
    Alias("--skew", "--routing", _routings),
    Alias("--sigma", "--routing", _routings),
    Alias("--sigma", "kind"),
    Alias("--exponent", "kind"),
    Alias("--save", "--out"),
    Alias("--precision", "--row-precision"),
    Alias("--weights", "--precision", "weights={}".format, joined=True),
    Alias("--activations", "--precision", "activations={}".format, joined=True),
    Alias("--kv", "--precision", "kv={}".format, joined=True),
    Alias("--network", "--cluster"),
    Alias("--links", "--cluster"),
    Alias("--strategy", "--placement"),
    Alias("--report", "--out"),
    Alias("--window", "--request-tokens"),
    Alias("--windows-per-step", "--requests-per-step"),
    Alias("--name", "--cluster-name"),
    Alias("--rate", "--link-rate"),
    Alias("--top-k", "--experts-per-token"),
    Alias("--input", "--prompt-tokens"),
    Alias("--output", "--output-tokens"),
)

COMMANDS: Mapping[str, str] = {"serving": "simulate-serving"}
"""What commands were called, and are today."""

VALUES: Mapping[str, Callable[[str], str]] = {"--schedule": _schedules}
"""Options whose values were once written otherwise."""


def read_old_names(parser: Any, params: Sequence[Any]) -> None:
    """Let a command's parser take old names and values too.

    Args:
        parser: click's, as the command makes it.
        params: the command's parameters.
    """
    named = {option: param for param in params for option in (*param.opts, *param.secondary_opts)}
    known = {alias.old: alias for alias in ALIASES if alias.new in named and alias.old not in named}
    for old, alias in known.items():
        action = "store" if alias.flag is None else "store_const"
        parser.add_option(named[alias.new], [old], dest=old, action=action, const=alias.flag)
    parse = parser.parse_args

    def parse_args(args: list[str]) -> tuple[dict[str, Any], list[str], list[Any]]:
        values, others, order = parse(args)
        for old in [name for name in values if name in known]:
            alias, value = known[old], values.pop(old)
            dest = named[alias.new].name
            if not alias.new.startswith("-"):
                if values[dest] is not None:
                    values[dest] = f"{values[dest]}:{value}"
                continue
            if alias.joined:
                before = values.get(dest)
                values[dest] = alias.value(value) if before is None else f"{before},{alias.value(value)}"
                continue
            if values.get(dest, alias.completes) != alias.completes:
                raise InputError(f"{old} is {alias.new} today: give it once, as {alias.new} VALUE")
            values[dest] = alias.flag or alias.value(value)
        for option, today in VALUES.items():
            if option in named and isinstance(value := values.get(named[option].name), str):
                values[named[option].name] = today(value)
        return values, others, order

    parser.parse_args = parse_args
