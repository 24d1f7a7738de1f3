"""Where tables and texts are printed: rich's console, which takes a name from a file as it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, NoReturn, Protocol

from rich import console
from rich.errors import MarkupError
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

_SECONDS_BETWEEN = 0.1
"""Between two lines of progress."""


class Console(console.Console):
    """A name with brackets that make no sense as markup, such as `model[/a]`, is printed with them, not refused."""

    def render_str(self, text: str, **options: Any) -> Text:
        """The text with its markup; where that is broken, the text alone."""
        try:
            return super().render_str(text, **options)
        except MarkupError:
            return super().render_str(escape(text), **options)

    def on_broken_pipe(self) -> NoReturn:
        """Leave to the command, or to the launcher of a rank, what a reader that left means; rich would end here."""
        error = sys.exception()
        raise error if isinstance(error, BrokenPipeError) else BrokenPipeError


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
