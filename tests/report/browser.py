"""A headless Chromium, driven by its own protocol: widths and colour schemes change while a page is open."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def opened() -> Iterator[Browser]:
    """A browser that is closed at the end; skips the test where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    # Root has no sandbox, and a container's shared memory may be small.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield Browser(browser)
    finally:
        browser.quit()


class Browser:
    """One tab."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def open(self, address: str) -> list[str]:
        """Load a page; what else than itself it asked for."""
        self._driver.get_log("performance")
        self._driver.get(address)
        events = [json.loads(line["message"])["message"] for line in self._driver.get_log("performance")]
        asked = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if url != address and not url.startswith("data:")]

    def show(self, width: int, scheme: str) -> None:
        """Make the window so wide, and prefer light or dark."""
        self._command(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        self._command(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        # Two frames: one in which the page hears of it, one in which it has drawn.
        self._driver.execute_async_script(
            "const done = arguments[0]; dispatchEvent(new Event('resize'));"
            "setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 250);"
        )

    def picture(self, path: Path, part: str = "html") -> None:
        """Save all that a selector finds, or else the whole page, as it is shown: as PNG or WebP."""
        boxes = self.ask(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect())"
            ".map(b => [b.left + scrollX, b.top + scrollY, b.right + scrollX, b.bottom + scrollY])",
            part,
        )
        left, top, right, bottom = (
            pick(ends) for pick, ends in zip((min, min, max, max), zip(*boxes, strict=True), strict=True)
        )
        clip = {"x": left, "y": top, "width": right - left, "height": bottom - top, "scale": 1}
        kind = {"format": path.suffix.removeprefix(".")} | ({"quality": 80} if path.suffix == ".webp" else {})
        options = kind | {"captureBeyondViewport": True, "clip": clip}
        path.write_bytes(b64decode(self._command("Page.captureScreenshot", options)["data"]))

    def ask(self, script: str, *arguments: Any) -> Any:
        """What a script of the page returns."""
        return self._driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """Messages on the console since the last call."""
        return [line["message"] for line in self._driver.get_log("browser")]

    def _command(self, name: str, arguments: dict[str, Any]) -> Any:
        return self._driver.execute_cdp_cmd(name, arguments)
