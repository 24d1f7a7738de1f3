"""What tells two checkpoints apart at no cost: small files whole, of weights each file's header and a sample."""

from __future__ import annotations

from pathlib import Path

from wingspan.runtime.digest import digest_text

_WHOLE_BYTES = 1 << 20
"""Files up to this size are read whole."""

_SAMPLE_BYTES = 4096
_SAMPLES = 64
"""Samples of all weight files together; each gets at least `_LEAST_SAMPLES`."""
_LEAST_SAMPLES = 3
_HEADER_BYTES = 16 << 20

_WEIGHTS = ".safetensors"
_SMALL = {".json", ".model", ".txt", ".jinja"}


def fingerprint(folder: Path) -> dict[str, str]:
    """A line per file of a checkpoint that decides what it computes: its size and a digest.

    Args:
        folder: in the Hugging Face format; other files than configuration, tokenizer and weights do not count.
    """
    files = sorted(f for f in folder.iterdir() if f.suffix in {*_SMALL, _WEIGHTS} and f.is_file())
    weights = sum(file.suffix == _WEIGHTS for file in files)
    samples = max(_LEAST_SAMPLES, _SAMPLES // max(1, weights))
    return {f"{file.name} of the checkpoint": _line(file, samples) for file in files}


def _line(file: Path, samples: int) -> str:
    size = file.stat().st_size
    with file.open("rb", buffering=0) as opened:
        if size <= _WHOLE_BYTES:
            read = opened.read()
        else:
            places = (
                _places(opened.read(8), size, samples) if file.suffix == _WEIGHTS else [(0, _WHOLE_BYTES)]
            )
            read = b""
            for start, length in places:
                opened.seek(start)
                read += opened.read(length)
    return f"{size:,} bytes, digest {digest_text(read)}"


def _places(head: bytes, size: int, samples: int) -> list[tuple[int, int]]:
    """Where to read in a safetensors file: its header, whose length its first 8 bytes say, and parts of the rest."""
    header = min(int.from_bytes(head, "little"), _HEADER_BYTES, size)
    step = max(1, (size - 8 - header) // samples)
    starts = range(8 + header, size, step)
    return [
        (0, 8 + header),
        *((start, _SAMPLE_BYTES) for start in starts),
        (max(0, size - _SAMPLE_BYTES), _SAMPLE_BYTES),
    ]
