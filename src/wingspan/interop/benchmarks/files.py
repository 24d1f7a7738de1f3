"""A benchmark's file of any format that is known: JSON, or a JSON object per line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wingspan.errors import InputError
from wingspan.interop.benchmarks.chrome_trace import TracedStep, is_trace, read_trace
from wingspan.interop.benchmarks.load import BenchmarkLoad
from wingspan.interop.benchmarks.openai_clients import is_sglang, is_vllm, read_sglang, read_vllm
from wingspan.interop.benchmarks.perf import is_perf, read_perf
from wingspan.reading import check_kind, is_lfs_pointer, json_value, lfs_pointer_error

_FORMATS: tuple[
    tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any], str], BenchmarkLoad]], ...
] = ((is_vllm, read_vllm), (is_sglang, read_sglang), (is_perf, read_perf))
_WANTED = (
    "what vllm bench serve, sglang.bench_serving, genai-perf or aiperf writes, or a trace of torch.profiler"
)


def read_benchmarks(path: Path, layers: int) -> list[BenchmarkLoad] | list[TracedStep]:
    """The loads of a file, one or one of each line, or the steps of a trace.

    Args:
        path: the file.
        layers: of the model that was measured, by which a trace's layers are known.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    values = _values(path)
    if len(values) == 1 and is_trace(values[0]):
        return read_trace(values[0], str(path), layers)
    return [
        _load(value, str(path) if len(values) == 1 else f"{path}, run {number}")
        for number, value in enumerate(values, 1)
    ]


def _load(value: Any, source: str) -> BenchmarkLoad:
    if isinstance(value, dict):
        check_kind(value, source, "a benchmark's result")
        for is_format, read in _FORMATS:
            if is_format(value):
                return read(value, source)
    raise InputError(f"{source}: not a benchmark's result that is known; give {_WANTED}")


def _values(path: Path) -> list[Any]:
    """The values of a JSON file, or of one per line."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); name an existing file"
        ) from None
    except (UnicodeDecodeError, EOFError, zlib.error):
        raise InputError(f"{path}: not a text; give {_WANTED}") from None
    if is_lfs_pointer(path):
        raise lfs_pointer_error(path)
    try:
        return [json_value(text)]
    except json.JSONDecodeError as whole:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise InputError(f"{path}: not JSON in line {whole.lineno} ({whole.msg})") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json_value(line))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: not JSON in line {number} ({error.msg})") from None
    return found
