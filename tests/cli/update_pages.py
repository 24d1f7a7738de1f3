"""`python -m tests.cli.update_pages planning`: a page's screens of predictions, as its commands print them now.

A screen that leaves out its end keeps as many paragraphs; where it leaves out something else, and where it was
measured, it is only named.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.cli.pages import PAGES, lines, not_printed
from tests.cli.reader import Screen, someone


def _anew(screen: Screen) -> str | None:
    """The block's text as it is printed now; None where a person must choose what is left out."""
    head, left_out, end = screen.shown.text.partition("...\n")
    if screen.measured or end:
        return None
    printed = lines(screen.printed)
    if left_out:
        printed = "\n\n".join(printed.split("\n\n")[: len(lines(head).split("\n\n"))])
    return f"{printed}\n{left_out}"


def _update(page: Path) -> None:
    text = page.read_text()
    with tempfile.TemporaryDirectory() as folder, someone(Path(folder)) as reader:
        for screen in reader.reads(page):
            if not_printed(screen.shown.text, screen.printed, measured=screen.measured) is None:
                continue
            anew = _anew(screen)
            print(
                f"{page.name}:{screen.shown.line} {screen.command}: {'written anew' if anew else 'not as shown'}"
            )
            if anew:
                text = text.replace(f"```text\n{screen.shown.text}```", f"```text\n{anew}```")
            else:
                print(screen.printed)
    page.write_text(text)


for name in sys.argv[1:]:
    _update(next(page for page in PAGES if page.stem == name))
