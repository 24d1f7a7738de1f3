"""README.md and docs/*.md as their readers have them: blocks of a shell's lines, what these print, Python.

The language behind a block's fence says what it is:

- `sh`: lines to type, in the order of the page;
- `console`: a session, lines behind `$ ` and what each prints, an exit code asked for as any shell is asked;
- `python`: a program, whole;
- `text` (the first after an `sh`): what that block's last line prints; a line `...` stands for lines left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LANGUAGES = {"sh", "console", "python", "text", "yaml"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the line of the page that it begins on, its text."""

    language: str
    line: int
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of a shell, without their prompt; those that go over several are joined."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        if self.language == "console":
            return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line] if self.language == "sh" else []


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = page.read_text()
    for match in FENCED.finditer(text):
        yield Block(match[1], text.count("\n", 0, match.start()) + 1, match[2])


_NUMBER = re.compile(r"[-+]?\d[\d,.]*(?:e[-+]\d+)?(?: ?(?:[kMG]?B|ns|us|µs|ms|s)\b)?")


def words(text: str) -> str:
    """A text that was measured as its words: any figure alike, wherever columns are and lines end."""
    return " ".join(re.sub(r"([─━])+", r"\1", _NUMBER.sub("#", text)).split())


def lines(text: str) -> str:
    """A text as its lines, without spaces at their ends and empty ones around them."""
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def not_printed(shown: str, printed: str, *, measured: bool) -> str | None:
    """What of the shown text was not printed in its place; None where all was.

    Both begin and end alike, except where a line `...` stands for what is left out.
    """
    plain = words if measured else lines
    first, *others = [plain(piece) for piece in re.split(r"^\.\.\.$", shown, flags=re.MULTILINE)]
    rest = plain(printed)
    if not others:
        return None if rest == first else first
    *between, last = others
    for piece, there in ((first, rest.startswith(first)), (last, rest.removeprefix(first).endswith(last))):
        if not there:
            return piece
    rest = rest.removeprefix(first).removesuffix(last)
    for piece in between:
        _, found, rest = rest.partition(piece)
        if not found:
            return piece
    return None
