"""Load what the runtime needs, seconds of torch and transformers, or say what to install.

A command calls `need_runtime()` once what can be refused without torch has been, and then imports
`wingspan.runtime.api` inside its function: so types stay whole, and `--help` stays fast.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

from wingspan.errors import InputError


def need_runtime() -> None:
    """Make sure that `wingspan.runtime.api` can be imported, that its notes are seen, and transformers keeps to itself.

    Raises:
        InputError: the `runtime` extra is not installed.
    """
    import wingspan.runtime  # noqa: F401  # before torch: what it reads from the environment

    try:
        import psutil  # noqa: F401
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise InputError(f"this needs {error.name}; pip install 'wingspan[runtime]'") from None

    # What is wrong is said by our own errors; eight ranks' loading bars on one terminal tell nobody anything.
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    _show_notes()


class _Notes(logging.Handler):
    """What the runtime logs (that it goes another way than usual, and why) is a line on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            print(f"wingspan: {record.getMessage()}", file=sys.stderr, flush=True)


def _show_notes() -> None:
    logger = logging.getLogger("wingspan")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Notes) for handler in logger.handlers):
        logger.addHandler(_Notes())
