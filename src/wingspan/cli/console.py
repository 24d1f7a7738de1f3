"""Where tables and texts are printed: rich's console, which takes a name from a file as it is."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from rich import console
from rich.errors import MarkupError
from rich.markup import escape
from rich.text import Text


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
