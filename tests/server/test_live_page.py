"""The live page of a server as a browser shows it: while requests run and experts move, at any width, with a key."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import pytest

from tests.report.browser import Browser, opened
from tests.report.test_in_a_browser import CUT, EMPTY, GROUND, SIDEWAYS
from tests.server.running import Server, server
from tests.server.test_rebalance import on_rank_0
from wingspan.report.live_page import FILES, live_page, page_file

KEY = "sesame"
BEARER = {"Authorization": f"Bearer {KEY}"}
MOST_SECONDS = 60

__all__ = ["on_rank_0"]

TILE = """
const tiles = [...document.querySelectorAll(".tile")];
const tile = tiles.find((each) => each.querySelector("span").textContent === arguments[0]);
return tile.querySelector("strong").textContent;
"""
STATE = "return document.getElementById('state').textContent"
EVENTS = "return document.getElementById('events').innerText"
MARKS = "return document.querySelectorAll('#figure-0 .scatterlayer .point').length"


@pytest.fixture
def browser() -> Iterator[Browser]:
    with opened() as browser:
        yield browser


def until(what: Callable[[], Any], least_seconds: float = 0.0) -> Any:
    """The first value that is true."""
    time.sleep(least_seconds)
    deadline = time.monotonic() + MOST_SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline, "this never came about"
        time.sleep(0.1)
    return found


@pytest.mark.timeout(400)
def test_a_watcher_sees_figures_move_experts_move_and_an_answer_stream(
    browser: Browser, on_rank_0: str
) -> None:
    options = ("--placement", on_rank_0, "--rebalance", "every 8")
    with server(*options, environment={"WINGSPAN_API_KEY": KEY}) as running:
        assert httpx.get(f"{running.address}/live").status_code == 401
        asked = browser.open(f"{running.address}/")
        assert {url.removeprefix(running.address).split("?")[0] for url in asked} == {
            "/live", *(f"/page/{name}" for name in FILES),
        }  # fmt: skip
        give_key(browser, "wrong")
        until(lambda: "not the server's" in browser.ask("return document.getElementById('key').innerText"))
        give_key(browser, KEY)
        until(lambda: browser.ask(STATE) == "live, idle")
        with requests(running):
            until(lambda: browser.ask(TILE, "New tokens") not in ("-", "0.00 /s"))
            until(lambda: browser.ask(TILE, "Running") == "2")
            until(lambda: browser.ask(TILE, "Time per output token").endswith("s"))
            assert browser.ask(STATE) == "live"
            said = until(lambda: re.search(r"steps \d+-\d+: moved \d+ experts", browser.ask(EVENTS)))
            assert said[0] in "".join(running.said)
            until(lambda: browser.ask(MARKS) > 0)
            until(lambda: float(browser.ask(TILE, "Imbalance").replace("-", "9")) < 2)
            check_shown(browser)
            streams(browser)
        assert without_refusals(browser.complaints()) == []
        # Who watches does not keep the server from ending.
        assert running.end() == 0
        until(lambda: browser.ask(STATE).startswith("no server"))
        assert "no new calls are taken" in browser.ask(EVENTS)


def give_key(browser: Browser, text: str) -> None:
    until(lambda: not browser.ask("return document.getElementById('key').hidden"))
    browser.ask(
        "document.getElementById('key-text').value = arguments[0];"
        "document.getElementById('key').requestSubmit()",
        text,
    )


class requests:  # noqa: N801 - used as a statement
    """Two callers who ask one thing after another."""

    def __init__(self, running: Server) -> None:
        self._address = running.address
        self._over = threading.Event()
        self._callers = [threading.Thread(target=self._call) for _ in range(2)]

    def __enter__(self) -> None:
        for caller in self._callers:
            caller.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for caller in self._callers:
            caller.join(MOST_SECONDS)

    def _call(self) -> None:
        body = {"prompt": "def main():", "max_tokens": 40, "ignore_eos": True, "temperature": 0.5}
        while not self._over.is_set():
            httpx.post(f"{self._address}/v1/completions", json=body, headers=BEARER, timeout=MOST_SECONDS)


def check_shown(browser: Browser) -> None:
    """Nothing sticks out or is missing, wide and narrow, by day and by night."""
    grounds = set()
    for width in (1400, 600, 390):
        for scheme in ("light", "dark"):
            where = (width, scheme)
            browser.show(width, scheme)
            assert browser.ask(SIDEWAYS) == 0, where
            assert browser.ask(EMPTY) == [], where
            assert browser.ask(CUT) == [], where
            grounds.add((scheme, browser.ask(GROUND)))
    assert len(grounds) == len(dict(grounds)) == 2


ANSWER = "return document.getElementById('try-answer').textContent"
REMARK = "return document.getElementById('try-remark').textContent"


def streams(browser: Browser) -> None:
    """The box shows an answer while it grows, and stops it."""
    for kind, shown in (("completions", "def main():"), ("chat/completions", "")):
        browser.ask("document.getElementById('try-kind').value = arguments[0]", kind)
        send(browser, 2000)
        grows_beyond(browser, grows_beyond(browser, len(shown)))
        assert browser.ask(ANSWER).startswith(shown)
        send(browser, 2000)
        until(lambda: "stopped after" in browser.ask(REMARK))
    send(browser, 9)
    until(lambda: re.match(r"9 tokens in .*; the first after .*; length", browser.ask(REMARK)))
    send(browser, 999_999)
    until(lambda: "exceed the model's context" in browser.ask(REMARK))


def send(browser: Browser, tokens: int) -> None:
    """Press the button: it sends, or stops what was sent."""
    browser.ask("document.getElementById('try-tokens').value = arguments[0]", tokens)
    browser.ask("document.getElementById('try-go').click()")


def grows_beyond(browser: Browser, length: int) -> int:
    return until(lambda: (now := len(browser.ask(ANSWER))) > length and now)


def without_refusals(complaints: list[str]) -> list[str]:
    """A browser tells of every status 4xx; these are what the test is about."""
    return [line for line in complaints if not re.search(r"status of 40[01]", line)]


def test_without_a_browser_the_page_asks_for_no_other_host() -> None:
    page = live_page("/page")
    assert set(re.findall(r"(?:src|href)='/page/([\w.]+)\?", page)) == set(FILES)
    own = [page_file(name)[1] for name in FILES if name != "plotly.min.js"]
    assert [text for text in (page, *own) if re.search(r"https?://|<script>", text)] == []
