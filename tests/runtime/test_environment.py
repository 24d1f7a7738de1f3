"""What torch and its libraries read at their import is set before it, by whichever way the runtime is reached."""

import os
import subprocess
import sys

import pytest

WAYS = {
    "the library": ("-c", "import wingspan.runtime.api"),
    "a command": ("-c", "from wingspan.cli.runtime_import import need_runtime; need_runtime()"),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_threads_that_wait_sleep_unless_somebody_said_otherwise(
    way: tuple[str, ...], given: str | None
) -> None:
    """The library of threads itself says what it read."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({"OMP_WAIT_POLICY": given} if given else {})
    done = subprocess.run(
        [sys.executable, *way], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert f"OMP_WAIT_POLICY = '{given or 'PASSIVE'}'" in done.stderr
