"""The `wingspan` command: its commands, and how an error becomes one line and an exit code.

Only the file of the command that runs is imported, and at its top that imports only typer: a prediction takes less
time than loading what the other commands need.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from keyword import iskeyword
from typing import Any, NoReturn

import typer
import typer.core

from wingspan.cli.aliases import COMMANDS
from wingspan.cli.option_rules import CheckedCommand
from wingspan.errors import WingspanError
from wingspan.signals import Signalled, raised_signals
from wingspan.streams import drop_output, flush_streams, line_of, prepare_streams
from wingspan.version import __version__

_LONGEST_LINE = 1200
_WRONG_PATH = {
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
}
"""A path was given that leads nowhere: wrong input, where a full disk or a broken pipe is a failure."""

_NO_MEMORY = "no more memory: the machine, its control group or `ulimit -v` gives this process too little"

_PANELS = {
    "Plan and predict": [
        "plan",
        "simulate",
        "sweep",
        "simulate-serving",
        "claims",
        "diff",
        "validate",
        "atlas",
        "presets",
        "models",
    ],
    "Run": ["run", "serve", "bench", "compare", "inspect", "create", "doctor", "calibrate", "testbed"],
    "Routing and placement": ["record", "routing", "synthesize", "place", "export", "import"],
}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wingspan {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
    ),
) -> None: ...


class _Commands(typer.core.TyperGroup):
    """Takes a command's old name for today's, under which it then runs."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The name, the command, and the words behind it."""
        return super().resolve_command(ctx, [COMMANDS.get(args[0], args[0]), *args[1:]])


def application(first: str = "") -> typer.Typer:
    """The command line; where its `first` argument names a command, with that one alone.

    Typer reads the options of every command it holds before it runs one, and that takes longer than a prediction.
    """
    first = COMMANDS.get(first, first)
    app = typer.Typer(
        name="wingspan",
        cls=_Commands,
        help="Plan, predict, run and compare wide expert parallelism: one expert per GPU per layer.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    alone = any(first in names for names in _PANELS.values())
    for panel, names in _PANELS.items():
        for name in names:
            if alone and name != first:
                continue
            command = _command(name)
            if isinstance(command, typer.Typer):
                app.add_typer(command, name=name, rich_help_panel=panel)
            else:
                app.command(name, rich_help_panel=panel, cls=CheckedCommand)(command)
    return app


def _command(name: str) -> Callable[..., None] | typer.Typer:
    """What a command does, out of the file that has its name; a group of commands is the `app` of its file."""
    python_name = name.replace("-", "_") + "_" * iskeyword(name)
    file = vars(import_module(f"wingspan.cli.{python_name}"))
    command: Callable[..., None] | typer.Typer = file.get("app") or file[python_name]
    return command


def main() -> None:
    """Run the command line."""
    end_as_command(lambda: application(*sys.argv[1:2])(prog_name="wingspan", standalone_mode=False))


def end_as_command(work: Callable[[], object]) -> NoReturn:
    """Do the work and leave; every foreseen failure ends as one line on stderr and its exit code.

    Args:
        work: what a process is for; a number that it returns is the exit code.
    """
    prepare_streams()
    with raised_signals():
        code, line = _outcome(work)
    if line:
        line = _readable(line)
        with suppress(OSError):  # nobody is there to read it
            print(line, file=sys.stderr)
    drop_output()
    gc.freeze()  # else the interpreter's end searches all that was imported for cycles: a tenth of a prediction's time
    sys.exit(code)


def _outcome(work: Callable[[], object]) -> tuple[int, str]:
    """Do it: the exit code, and the line that says what went wrong."""
    try:
        code = work()
        flush_streams()
    except WingspanError as error:
        return error.exit_code, f"wingspan: {error}"
    except typer.TyperException as error:
        # Empty where the help was printed instead.
        return error.exit_code, _usage_line(error) if error.format_message() else ""
    except BrokenPipeError:  # the reader (`head`, a pager) has all that it wanted
        return 1, ""
    except OSError as error:
        return 2 if error.errno in _WRONG_PATH else 1, f"wingspan: {line_of(error)}"
    except (KeyboardInterrupt, typer.Abort):
        return 130, "wingspan: interrupted"
    except Signalled as end:
        return end.exit_code, f"wingspan: {end}"
    except Exception as error:
        if os.environ.get("WINGSPAN_DEBUG"):
            raise
        if isinstance(error, MemoryError) or "failed to map segment" in str(error):
            return 1, f"wingspan: {_NO_MEMORY}"
        text = f"{type(error).__name__}: {error}"
        return 1, f"wingspan: a mistake of its own: {text}; with WINGSPAN_DEBUG=1 it says where"
    return (code, "") if isinstance(code, int) else (0, "")


def _readable(line: str) -> str:
    """One line on any terminal: no control characters, and not pages of what somebody gave."""
    plain = "".join(c if c.isprintable() else "?" if "\ud800" <= c <= "\udfff" else " " for c in line)
    if len(plain) <= _LONGEST_LINE:
        return plain
    return f"{plain[: _LONGEST_LINE // 2]} ... {plain[-_LONGEST_LINE // 2 :]}"


def _usage_line(error: typer.TyperException) -> str:
    """What is wrong with an option or argument, the value given, and where to read on."""
    context, names = getattr(error, "ctx", None), getattr(getattr(error, "param", None), "opts", [])
    path = context.command_path if context else "wingspan"
    given = [after for name, after in pairwise(sys.argv) if name in names]
    value = f" (given: {given[0]})" if given else ""
    return f"{path}: {' '.join(error.format_message().split()).rstrip('.')}{value}; see {path} --help"


if __name__ == "__main__":
    main()
