"""Reading measurement tables: columns, the split, and what is wrong with a file."""

from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from wingspan.errors import InputError
from wingspan.interop.silicon.tables import read_table


def write(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text)
    return path


def test_columns_and_rows(tmp_path: Path):
    table = read_table(write(tmp_path, 'a,b\n1,x\n2,"y,z"\n'))
    assert table.number("a").tolist() == [1, 2]
    assert table.text("b") == ["x", "y,z"]
    assert table.rows(np.array([False, True])).text("b") == ["y,z"]


def test_the_split_follows_the_content_not_the_order(tmp_path: Path):
    lines = [f"{n},{n * n}" for n in range(40)]
    there = read_table(write(tmp_path, "\n".join(["a,b", *lines])))
    back = read_table(write(tmp_path, "\n".join(["a,b", *reversed(lines)])))
    assert there.for_fitting.tolist() == back.for_fitting[::-1].tolist()
    assert there.for_fitting.tolist() == [crc32(line.encode()) % 2 == 0 for line in lines]
    assert 0 < there.for_fitting.sum() < 40


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "empty"), ("a,b\n1\n", "line 2 has 1 cells, the header 2")],
)
def test_a_broken_file(tmp_path: Path, text: str, complaint: str):
    with pytest.raises(InputError, match=complaint):
        read_table(write(tmp_path, text))


def test_a_broken_cell_or_column_is_named(tmp_path: Path):
    table = read_table(write(tmp_path, "a,b\n1,2\n3,four\n"))
    with pytest.raises(InputError, match=r"t\.csv: line 3, b = 'four' is not a number"):
        table.number("b")
    with pytest.raises(InputError, match="no column c; it has a, b"):
        table.number("c")


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
