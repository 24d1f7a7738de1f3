from pathlib import Path

import pytest

from tests.simulate.published.table import row, write
from wingspan.errors import InputError
from wingspan.interop.published.rows import read_published


def test_a_folder_is_read_by_its_tables_alone(tmp_path: Path) -> None:
    write(tmp_path / "one.csv", row("A"))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (found,) = read_published(tmp_path)
    assert (found.id, found.ep, found.batch, found.value) == ("A", 72, 64, 11000)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_published(tmp_path / "none.csv")
    with pytest.raises(InputError, match="holds no CSV table"):
        read_published(tmp_path)
    (tmp_path / "x.csv").write_text("id,value\nA,1\n")
    with pytest.raises(InputError, match="no column system"):
        read_published(tmp_path / "x.csv")


def test_cells_that_are_no_number_are_none(tmp_path: Path) -> None:
    changed = row("A", ep="8->64", batch_per_gpu="inf rate", value="1 / 2")
    (found,) = read_published(write(tmp_path / "p.csv", changed))
    assert (found.ep, found.batch, found.value) == (None, None, None)
