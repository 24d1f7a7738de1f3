"""Outputs appear whole or not at all, what is no regular file is never replaced, and JSON is valid."""

from __future__ import annotations

import ast
import json
import math
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wingspan
from wingspan.errors import InputError
from wingspan.writing import OutputFile, json_text, output_folder, write_json, write_text

PACKAGE = Path(wingspan.__file__).parent


def test_a_file_is_written_with_the_umask_and_an_old_ones_mode_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    before = os.umask(0o027)
    try:
        write_json(path, [1])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    write_text(path, "x")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("x", 0o604)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, dangling = tmp_path / "link", tmp_path / "dangling"
    (tmp_path / "there" / "a").write_text("old")
    link.symlink_to("there/a")
    dangling.symlink_to("there/b")
    write_text(link, "new")
    write_text(dangling, "made")
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert {f.name: f.read_text() for f in (tmp_path / "there").iterdir()} == {"a": "new", "b": "made"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_output_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def interrupted() -> None:
        with OutputFile(path) as file:
            file.write(b"half")
            assert path.read_text() == "old"
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"a: cannot be written \(File too large\)"):
            write_text(path, "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match=r"/dev/full: cannot be written \(No space left on device\)"):
        write_text(Path("/dev/full"), "x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_devices_and_pipes_are_written_to_and_stay(tmp_path: Path) -> None:
    link, pipe = tmp_path / "null", tmp_path / "pipe"
    link.symlink_to("/dev/null")
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through the pipe")
    write_text(link, "gone")
    write_text(Path("/dev/null"), "gone")
    reader.join(10)
    assert got == ["through the pipe"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/1"])
def test_standard_output_goes_on_where_it_stands_and_keeps_its_file(tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    program = f"""
import sys
from pathlib import Path
from wingspan.writing import write_text
print("before", flush=True)
write_text(Path({name!r}), "output\\n")
print("after")
"""
    with target.open("w") as out:
        inode = target.stat().st_ino
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True, timeout=60)
    assert target.read_text() == "before\noutput\nafter\n"
    assert (target.stat().st_ino, list(tmp_path.iterdir())) == (inode, [target])
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    assert piped.stdout == b"before\noutput\nafter\n"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "no" / "x", "no does not exist; create it"),
        (lambda p: p, "Is a directory"),
        (lambda p: p / ("x" * 300), "File name too long"),
        (lambda p: p / "file" / "x", "Not a directory"),
        (lambda p: p / "loop", "Too many levels"),
    ],
    ids=["folder missing", "folder", "long name", "below a file", "loop"],
)
def test_a_place_that_takes_no_file_is_named(tmp_path: Path, make: object, words: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=words):
        write_text(make(tmp_path), "x")
    assert sorted(tmp_path.iterdir()) == before


def test_a_name_as_long_as_any_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("é" * 127), "x")
    assert [f.read_text() for f in tmp_path.iterdir()] == ["x"]


def test_a_folder_appears_whole_with_those_above_it(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    with output_folder(place) as folder:
        (folder / "x").write_text("1")
        assert not place.exists()
    assert (place / "x").read_text() == "1"
    assert [f.name for f in tmp_path.iterdir()] == ["a"]

    def broken(where: Path) -> None:
        with output_folder(where) as folder:
            (folder / "x").write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"c/d: cannot be written \(No space left on device\)"):
        broken(tmp_path / "c" / "d")
    with pytest.raises(InputError, match="b: is not empty"):
        broken(place)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: cannot be written"):
        broken(tmp_path / "empty")
    assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*")) == ["a", "a/b", "a/b/x", "empty"]
    with output_folder(tmp_path / "empty") as folder:
        (folder / "x").write_text("1")
    assert [f.name for f in (tmp_path / "empty").iterdir()] == ["x"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(JSON)
def test_json_is_valid_and_what_is_finite_returns(value: object) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    def same(one: object, two: object) -> bool:
        if isinstance(one, float) and not math.isfinite(one):
            return two is None
        if isinstance(one, list | tuple):
            return isinstance(two, list) and len(one) == len(two) and all(map(same, one, two))
        if isinstance(one, dict):
            return (
                isinstance(two, dict) and one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
            )
        return type(one) is type(two) and one == two

    assert same(value, json.loads(json_text(value), parse_constant=refuse))


def _calls(path: Path) -> list[str]:
    return [
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]


def test_nothing_in_the_house_writes_files_or_json_another_way() -> None:
    """One room writes: no other opens a file for writing, or turns values into JSON text."""
    forbidden = ("json.dump", "json.dumps", ".write_text", ".write_bytes", "shutil.copy")
    found = {
        f"{path.relative_to(PACKAGE)}: {call}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "writing.py"
        for call in _calls(path)
        if call.endswith(forbidden)
    }
    assert found == set()
