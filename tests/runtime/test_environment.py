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
@pytest.mark.parametrize(
    ("given", "looks"), [({}, 10_000), ({"GOMP_SPINCOUNT": "77"}, 77), ({"OMP_WAIT_POLICY": "PASSIVE"}, 0)]
)
def test_threads_that_wait_sleep_soon_unless_somebody_said_otherwise(
    way: tuple[str, ...], given: dict[str, str], looks: int
) -> None:
    """The library of threads itself says what it read."""
    said = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in said}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE"} | given
    done = subprocess.run(
        [sys.executable, *way], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert f"GOMP_SPINCOUNT = '{looks}'" in done.stderr
