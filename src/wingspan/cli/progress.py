"""How far a long piece of work is: one line on standard error while it lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from rich.progress import BarColumn, Progress, TextColumn

from wingspan.cli.console import Console

_SECONDS_BETWEEN = 0.1
"""Between two lines of progress."""


class Advance(Protocol):
    """What tells a line of progress that there is more done."""

    def __call__(self, amount: float = 1, doing: str = "") -> None:
        """So much more is done, or begun; `doing` names it."""


@contextmanager
def progress(what: str, total: float, *, quiet: bool = False) -> Iterator[Advance]:
    """Show on standard error how far something is; a log (mpirun, CI, a file) gets nothing of it.

    The line is there while the work lasts and gone afterwards. It is written only as `Advance` is called: no thread
    writes beside work that is timed, or beside processes that are forked.

    Args:
        what: is done.
        total: of what `Advance` counts.
        quiet: show nothing on a terminal either.
    """
    shown = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
    )
    silent = quiet or not shown.is_terminal or shown.is_dumb_terminal
    with Progress(*columns, console=shown, transient=True, disable=silent, auto_refresh=False) as bar:
        task, written = bar.add_task(what, total=total), -_SECONDS_BETWEEN

        def advance(amount: float = 1, doing: str = "") -> None:
            nonlocal written
            bar.update(task, advance=amount, description=f"{what}: {doing}" if doing else what)
            if (now := monotonic()) - written >= _SECONDS_BETWEEN:
                written = now
                bar.refresh()

        yield advance
