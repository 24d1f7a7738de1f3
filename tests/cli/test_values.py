"""Several values in one option."""

from __future__ import annotations

import pytest

from wingspan.cli.values import integers, numbers, words
from wingspan.errors import InputError


def test_lists_and_doubling_ranges() -> None:
    assert integers("64", "--ranks") == [64]
    assert integers("16..256", "--ranks") == [16, 32, 64, 128, 256]
    assert integers("1, 3..13,100", "--ranks") == [1, 3, 6, 12, 100]
    assert numbers("0,0.5,1e1", "--bandwidth") == [0.0, 0.5, 10.0]
    assert words("a, b", "--cluster") == ["a", "b"]


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "4..2", "1..", "..4", "1,,2", "2.5", "8,4..16"])
def test_bad_integers_name_the_option(text: str) -> None:
    with pytest.raises(InputError, match="--ranks"):
        integers(text, "--ranks")


@pytest.mark.parametrize("text", ["", "a", "1,", "nan", "inf", "-1", "1,1.0"])
def test_bad_numbers_name_the_option(text: str) -> None:
    with pytest.raises(InputError, match="--bandwidth"):
        numbers(text, "--bandwidth")


@pytest.mark.parametrize("text", ["", "a,", "a,a"])
def test_bad_words_name_the_option(text: str) -> None:
    with pytest.raises(InputError, match="--cluster"):
        words(text, "--cluster")
