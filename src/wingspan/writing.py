"""How every output is written: a file or folder appears under its name when it is whole, or not at all; JSON is valid.

What is no regular file (a device, a pipe, `/dev/stdout`) is written to as it is and never replaced.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from wingspan.errors import InputError

_TOKEN = secrets.token_hex(4)
"""Tells this command's unfinished outputs from another's; forked ranks share it, so the launcher can clear up."""

_LONGEST_KEPT_NAME_BYTES = 200


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file.

    Raises:
        InputError: it cannot be written; the line names it. What stood there before still stands there.
    """
    with OutputFile(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write `json_text` and a line's end to a file; raises as `write_text` does."""
    write_text(path, json_text(value, indent) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON that every reader takes: numbers that are not finite become null."""
    try:
        return json.dumps(value, allow_nan=False, indent=indent)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, indent=indent)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


class OutputFile:
    """A file being written, beside its place; as a context manager it gives the open file and puts it there.

    An existing file's mode and owner are kept, and a link to it stays a link.
    """

    def __init__(self, path: Path) -> None:
        """Open it for writing.

        Raises:
            InputError: that cannot be; the line names it.
        """
        self.path = path
        self._beside: Path | None = None
        try:
            self.file = self._open()
        except OSError as error:
            self.discard()
            raise _refusal(path, error) from None

    def _open(self) -> BinaryIO:
        if is_stream(self.path):
            return _open_stream(self.path)
        self._place = Path(os.path.realpath(self.path))
        before = _status(self._place)
        if before is not None and not os.access(self._place, os.W_OK):
            raise PermissionError(None, "Permission denied")
        beside = unfinished(self.path)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._beside = beside
        if before is not None:
            with suppress(OSError):
                os.fchown(handle, before.st_uid, before.st_gid)
            os.fchmod(handle, stat.S_IMODE(before.st_mode))
        return os.fdopen(handle, "wb")

    def finish(self) -> None:
        """Put the file in its place; raises `InputError` where that fails, with nothing left behind."""
        try:
            self.file.close()
            if self._beside is not None:
                os.replace(self._beside, self._place)
                self._beside = None
        except OSError as error:
            self.discard()
            raise _refusal(self.path, error) from None

    def discard(self) -> None:
        """Leave everything as it was before."""
        with suppress(AttributeError, OSError):
            self.file.close()
        if self._beside is not None:
            self._beside.unlink(missing_ok=True)
            self._beside = None

    def __enter__(self) -> BinaryIO:
        return self.file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        self.discard()
        if isinstance(error, OSError):
            raise _refusal(self.path, error) from None


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, beside its place: `path`, which must be missing or empty, holds it all at the end or nothing.

    Folders above it that are missing are made too.

    Raises:
        InputError: it is not empty, or cannot be written; the line names it.
    """
    place = Path(os.path.realpath(path))
    try:
        if place.is_dir() and any(place.iterdir()):
            raise InputError(f"{path}: is not empty; give another folder")
        first = next((p for p in [*reversed(place.parents), place] if not p.exists()), None)
        beside = unfinished(first or place / place.name)
        inner = beside if first is None else beside / place.relative_to(first)
        try:
            inner.mkdir(parents=True)
            yield inner
            if first is not None:
                os.rename(beside, first)
            else:
                # Into the folder that is there: it may be the root of a file system of its own.
                for file in inner.iterdir():
                    os.rename(file, place / file.name)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise _refusal(path, error) from None


def unfinished(path: Path) -> Path:
    """Where this command's output lies while it is being written: in the folder of `path`, links followed."""
    place = Path(os.path.realpath(path))
    kept = os.fsencode(place.name)[:_LONGEST_KEPT_NAME_BYTES]
    return place.with_name(f".{kept.decode(errors='ignore')}.{_TOKEN}.partial")


def _status(place: Path) -> os.stat_result | None:
    try:
        return place.stat()
    except FileNotFoundError:
        return None


def is_stream(path: Path) -> bool:
    """What is there takes bytes as they come, like a device, a pipe or an open descriptor: it is never replaced."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _open_stream(path: Path) -> BinaryIO:
    descriptor = _descriptor(path)
    if descriptor is not None and descriptor.parent in _own_descriptors():
        # A copy goes on where the descriptor stands; opened by name it would start over, and truncate.
        return os.fdopen(os.dup(int(descriptor.name)), "wb")
    return path.open("wb")


def _descriptor(path: Path) -> Path | None:
    """The open descriptor of a process that `path` means, as /dev/stdout, /dev/fd/3 and /proc/self/fd/1 do."""
    for _ in range(40):  # as many links as Linux follows
        folder = Path(os.path.realpath(path.parent))
        of_a_process = folder.parts[1:2] == ("proc",) and folder.name == "fd"
        if path.name.isdecimal() and (of_a_process or folder in _own_descriptors()):
            return folder / path.name
        try:
            path = path.parent / os.readlink(path)
        except OSError:
            return None
    return None


def _own_descriptors() -> tuple[Path, ...]:
    pid = os.getpid()
    return Path(f"/proc/{pid}/fd"), Path(f"/proc/{pid}/task/{pid}/fd"), Path("/dev/fd")


def _refusal(path: Path, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(
            f"{path}: cannot be written: the folder {path.parent} does not exist; create it first"
        )
    return InputError(f"{path}: cannot be written ({error.strerror or error}); choose another place")
