"""Makes the pictures of predictions in docs/ again: `python -m tests.report.take_pictures`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cli.command import REPOSITORY
from tests.report.browser import opened

PICTURES = {
    "atlas.webp": ((), "section:nth-of-type(1)"),
    "ablations.webp": (
        ("sglang-h100-ep72-decode", "sglang-h100-ep32-prefill"),
        "section:nth-of-type(2), section:nth-of-type(3)",
    ),
}
"""Of each: what of the atlas, and which part of its page."""


def main(folder: Path) -> None:
    """Take them, in light colours."""
    with tempfile.TemporaryDirectory() as scratch, opened() as browser:
        for name, (deployments, part) in PICTURES.items():
            page = Path(scratch) / f"{name}.html"
            command = [sys.executable, "-m", "wingspan.cli.main", "atlas", *deployments, "--html", str(page)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            browser.open(page.as_uri())
            browser.show(1000, "light")
            browser.picture(folder / name, part)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "docs")
