"""Import the runtime, seconds of torch and transformers, or say what to install."""

from __future__ import annotations

from typing import Any

from wingspan.errors import InputError


def import_runtime() -> Any:
    """`wingspan.runtime.api`; raises `InputError` where the `runtime` extra is not installed."""
    try:
        import psutil  # noqa: F401
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise InputError(f"this needs {error.name}; pip install 'wingspan[runtime]'") from None
    from wingspan.runtime import api

    # What is wrong is said by our own errors; eight ranks' loading bars on one terminal tell nobody anything.
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return api
