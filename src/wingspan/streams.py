"""The standard streams as a shell may leave them: closed, full, or with a reader that went away."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc from Python 3.12 on


class _Output(io.FileIO):
    """Writes to another stream's descriptor; errors name the stream, as those of `open` name the file."""

    def __init__(self, stream: TextIO, said: str) -> None:
        super().__init__(stream.fileno(), "w", closefd=False)
        self._stream = stream  # which would close the descriptor if it were forgotten
        self._said = said

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._said) from None


def prepare_streams() -> None:
    """Put something in the place of closed standard streams, and let errors of the others name them.

    Before the next file that is opened takes the number of a closed one. To read from standard input is then to find
    nothing; to print fails when it is flushed, as anywhere else; what goes to standard error is gone, as was asked.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stdout = _naming(sys.stdout, "standard output")
    sys.stderr = _naming(sys.stderr, "standard error")


def flush_streams() -> None:
    """Write out what this process printed; raises `OSError` where that cannot be."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def drop_output() -> None:
    """Let what was printed and cannot leave go nowhere: the interpreter flushes once more at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def line_of(error: OSError) -> str:
    """What is wrong, behind the name of the file or stream where the error has one."""
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}"


def _naming(stream: TextIO, said: str) -> TextIO:
    """The stream over an `_Output`; itself where it is not Python's own, or is one already."""
    if type(stream) is not io.TextIOWrapper or isinstance(
        getattr(stream.buffer, "raw", stream.buffer), _Output
    ):
        return stream
    stream.flush()
    output = _Output(stream, said)
    return io.TextIOWrapper(
        output
        if isinstance(stream.buffer, io.FileIO)
        else io.BufferedWriter(output),  # as PYTHONUNBUFFERED asks
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
