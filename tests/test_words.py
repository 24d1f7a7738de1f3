"""`docs/words.md` names the letters of shapes, and every module means them so."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
WORDS = (REPOSITORY / "docs" / "words.md").read_text()
FIXED = {
    "T": "token",
    "K": "experts per token",
    "E": "expert",
    "L": "layer",
    "R": "rank",
    "S": "slot|experts of a rank",
    "G": "node|domain",
    "D": "hidden|values",
    "I": "intermediate|inner",
    "V": "vocabulary",
}
LEGEND = re.compile(r"^Shapes: (.*?\.)(?=\n|\s|$)", re.MULTILINE | re.DOTALL)
AXIS = re.compile(r"(?:^|,\s|\s)(?P<letters>[A-Z](?: and [A-Z])?)\s(?P<meaning>[^.]*?)(?=,\s+[A-Z]\b|\.|$)")


def _legends() -> list[tuple[str, str]]:
    files = [*(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "benchmarks").glob("*.py")]
    found = [(path, LEGEND.search(path.read_text())) for path in files]
    return [(path.stem, " ".join(match[1].split())) for path, match in found if match]


def _axes(legend: str) -> dict[str, str]:
    return {
        letter: match["meaning"]
        for match in AXIS.finditer(legend)
        for letter in match["letters"].split(" and ")
    }


def test_the_letters_are_read():
    assert _axes(
        "R ranks, K experts per token (top-k), P physical and E logical experts, X = R x S slots, Q rows."
    ) == {
        "R": "ranks",
        "K": "experts per token (top-k)",
        "P": "physical and E logical experts",
        "X": "= R x S slots",
        "Q": "rows",
    }
    assert len(_legends()) > 60


@pytest.mark.parametrize(("module", "legend"), _legends())
def test_a_letter_means_the_same_everywhere(module: str, legend: str) -> None:
    wrong = {
        letter: meaning
        for letter, meaning in _axes(legend).items()
        if letter in FIXED and not re.search(FIXED[letter], meaning)
    }
    assert wrong == {}, f"{module}: docs/words.md has these letters for something else"


def test_the_page_has_every_fixed_letter():
    rows = dict(re.findall(r"^\| ([A-Z]) \| (.*) \|$", WORDS, re.MULTILINE))
    assert [letter for letter, meaning in FIXED.items() if not re.search(meaning, rows.get(letter, ""))] == []


def test_docstrings_name_what_they_are_about():
    """\"Of a layer.\" leaves the noun to the line above."""
    fragments = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for path in (REPOSITORY / "src").rglob("*.py")
        for line in path.read_text().splitlines()
        if re.match(r'\s*"""Of\b', line)
    ]
    assert fragments == []
