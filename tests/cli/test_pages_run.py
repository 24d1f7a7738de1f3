"""Pasted block by block, README.md and docs/*.md do what they say, and show what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.pages import LANGUAGES, PAGES, blocks, not_printed
from tests.cli.reader import NOT_HERE, someone, starts_ranks


def _pages_to_run() -> list[object]:
    """All with lines to type; those that start ranks, which takes long, apart from the README, by `make docs`."""
    runs = [
        page for page in PAGES if {"sh", "console", "python"} & {block.language for block in blocks(page)}
    ]
    slow = [page for page in runs if page.name != "README.md" and _starts_ranks(page)]
    marks = {page: [pytest.mark.ranks_of_pages] for page in slow}
    return [pytest.param(page, id=page.stem, marks=marks.get(page, [])) for page in runs]


def _starts_ranks(page: Path) -> bool:
    typed = [command for block in blocks(page) if block.language == "sh" for command in block.commands]
    return any(starts_ranks(command) for command in typed)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", _pages_to_run())
def test_a_page_runs_as_it_is_typed(page: Path, tmp_path: Path) -> None:
    with someone(tmp_path) as reader:
        for screen in reader.reads(page):
            other = not_printed(screen.shown.text, screen.printed, measured=screen.measured)
            assert other is None, (
                f"{page.name}:{screen.shown.line}: {screen.command}\nshown:\n{other}\nprinted:\n{screen.printed}\n"
                f"(`python -m tests.cli.update_pages {page.stem}` writes predictions anew)"
            )


def test_every_block_says_what_it_is() -> None:
    wrong = [
        f"{page.name}:{block.line} {block.language}"
        for page in PAGES
        for block in blocks(page)
        if block.language not in LANGUAGES
    ]
    assert wrong == []


def test_every_exception_is_met() -> None:
    commands = [command for page in PAGES for block in blocks(page) for command in block.commands]
    begins = [begin for some in NOT_HERE.values() for begin in some]
    assert [begin for begin in begins if not any(line.startswith(begin) for line in commands)] == []


def test_what_is_not_printed_is_found() -> None:
    printed = "head \n a  1.5 ms\n b  2 MB\ntail\n"

    def exactly(shown: str) -> str | None:
        return not_printed(shown, printed, measured=False)

    assert exactly("head\n a  1.5 ms\n b  2 MB\ntail\n") is None
    assert exactly("head\n...\ntail\n") is None
    assert exactly("...\n b  2 MB\n...\n") is None
    assert exactly("head\n a  7 ms\n...\n") == "head\n a  7 ms"
    assert exactly("...\n b  3 MB\n...\n") == " b  3 MB"
    assert exactly(" b  2 MB\n...\n") == " b  2 MB"
    assert exactly("head\n") == "head"
    assert exactly("head\n...\nhead\n...\n") == "head"
    assert not_printed("head\n a 17 ms\n...\n", printed, measured=True) is None
    assert not_printed("head\n...\n c  1 MB\n...\n", printed, measured=True) == "c #"
