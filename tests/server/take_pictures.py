"""Makes the pictures of the live page in docs/ again: `python -m tests.server.take_pictures`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.cli.command import REPOSITORY
from tests.report.browser import opened
from tests.server.running import server
from tests.server.test_live_page import requests, send
from wingspan.placement_file import StoredPlacement
from wingspan.specs.placement import EMPTY, Placement

_RANKS = 4
_SECONDS = 40
"""Until experts have moved and the curves have a shape."""

PICTURES = {"live-page.webp": (1200, "light"), "live-page-phone.webp": (390, "dark")}
"""Width and colours of each."""


def all_on_rank_0(folder: Path) -> Path:
    """A placement that live balancing has something to do about."""
    slots_LRS = np.full((7, _RANKS, 8), EMPTY)
    slots_LRS[:, 0] = np.arange(8)
    file = folder / "placement.json"
    file.write_text(json.dumps(StoredPlacement(Placement(slots_LRS, 8), tuple(range(3, 10)), 10).to_dict()))
    return file


def main(folder: Path) -> None:
    """Take them of a server at work."""
    with tempfile.TemporaryDirectory() as scratch:
        options = ("--placement", str(all_on_rank_0(Path(scratch))), "--rebalance", "every 8")
        with server(*options) as running, opened() as browser:
            browser.show(1200, "light")
            browser.open(f"{running.address}/")
            with requests(running):
                time.sleep(_SECONDS)
                send(browser, 60)
                time.sleep(5)
                for name, (width, scheme) in PICTURES.items():
                    browser.show(width, scheme)
                    time.sleep(2)
                    browser.picture(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "docs")
