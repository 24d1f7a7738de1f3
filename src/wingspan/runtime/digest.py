"""A few letters that stand for many bytes."""

from __future__ import annotations

import hashlib

_DIGEST_BYTES = 8


def digest_text(data: bytes) -> str:
    """A few letters that tell contents apart."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
