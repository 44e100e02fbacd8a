"""Real JupyterLab in a real browser: what becomes of its sockets when tokens rotate, and when access ends."""

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from support.client import RawClient, upgrade
from support.running_demo import RunningDemo, eventually
from support.scientist import run_a_cell
from support.sessions import rows

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

PERIOD_S: Final = 2.0
"""As `conftest` sets it."""

ROTATION_S: Final = float(os.environ.get("ROTATION_S", "20"))
"""How long tokens rotate; a longer time is for measuring."""

WATCH: Final = """
window.ended = [];
const Plain = WebSocket;
window.WebSocket = class extends Plain {
  constructor(...given) {
    super(...given);
    this.addEventListener("close", (event) => window.ended.push([this.url, event.code, event.reason]));
  }
};
"""
"""Has a page keep how its WebSockets have ended."""


def work(page: Page, demo: RunningDemo) -> str:
    """Sign in, run a cell; return the id of its kernel."""
    kernels: list[str] = []

    def opened(socket: Any) -> None:
        found = re.search(r"/jupyter/1/api/kernels/([^/]+)/channels", socket.url)
        if found:
            kernels.append(found[1])

    page.on("websocket", opened)
    page.add_init_script(WATCH)
    # Without what an earlier page had open.
    page.goto(f"{demo.visa}/sign-in?user=ada&next=/jupyter/1/lab%3Freset")
    page.wait_for_url(demo.instances[1]["url"] + "**")
    expect(page.locator(".jp-Launcher")).to_be_visible()
    run_a_cell(page)
    return kernels[-1]


def ended(page: Page) -> list[tuple[str, int, str]]:
    """Give address, code and reason of the WebSockets that have ended."""
    return [tuple(one) for one in page.evaluate("window.ended")]


def journal(demo: RunningDemo) -> Path:
    """Find the journal of the demo's proxy."""
    return Path(f"/proc/{demo.proxy_pid}/cwd").resolve() / "data" / "journal.sqlite3"


def questions(demo: RunningDemo) -> list[int]:
    """Give what VISA has answered to questions about access to instance 1."""
    return [call["status"] for call in demo.recorded("calls") if call["path"] == "/api/account/instances/1"]


def test_tokens_rotate(page: Page, demo: RunningDemo) -> None:
    """A token lives six seconds, and is replaced every five: no socket drops, and cells run."""
    work(page, demo)
    before = len(ended(page))  # of a kernel that JupyterLab has started and given up again
    until = time.monotonic() + ROTATION_S
    rotations = 0
    while time.monotonic() < until:
        token = demo.token("ada", lifetime_s=6)
        page.context.add_cookies([{"name": "access_token", "value": token, "url": demo.proxy}])
        rotations += 1
        page.wait_for_timeout(5000)
    assert rotations >= ROTATION_S / 10
    page.locator(".jp-Notebook .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".jp-Notebook .jp-InputPrompt").first).to_have_text("[2]:")
    assert [] == ended(page)[before:]
    assert 401 in questions(demo)  # it was asked with tokens that had ended, too


def test_the_ownership_is_taken_away(page: Page, demo: RunningDemo) -> None:
    """The kernel's socket closes with 1008, HTTP answers 404, and the journal says why the session ended."""
    kernel = work(page, demo)
    ada = demo.token("ada")
    demo.give(1, "emmy")
    try:
        eventually(
            "the kernel's socket has ended with 1008",
            lambda: [one for one in ended(page) if f"/{kernel}/channels" in one[0] and one[1] == 1008],
        )
        (reason,) = {one[2] for one in ended(page) if f"/{kernel}/channels" in one[0] and one[1] == 1008}
        assert "access revoked" == reason
        assert 404 == demo.ask("/jupyter/1/api/status", cookie=ada).status
        query = f"SELECT reason FROM sessions WHERE kernel_id = '{kernel}' AND closed_at IS NOT NULL"
        eventually("the session is closed in the journal", lambda: rows(journal(demo), query))
        assert {("access revoked",)} == {*rows(journal(demo), query)}
    finally:
        page.close()
        demo.give(1, "ada")


def test_an_idle_tab_keeps_nothing_alive(page: Page, demo: RunningDemo) -> None:
    """Ten periods with an open kernel channel alone: `lastSeenAt` stands still; with a click it moves."""
    kernel = work(page, demo)
    page.close()
    token = demo.token("ada")
    with RawClient(urlsplit(demo.proxy).port or 80) as client:
        channel = f"/jupyter/1/api/kernels/{kernel}/channels?session_id=idle"
        assert client.ask(upgrade(channel, token=token, host=urlsplit(demo.proxy).netloc)).status == 101
        seen, asked = demo.last_seen_at(1), len(questions(demo))
        # One of these questions is this test's own, to learn when the instance was seen.
        eventually("ten periods are over", lambda: len(questions(demo)) >= asked + 11)
        assert seen == demo.last_seen_at(1)
        assert 200 == demo.ask("/jupyter/1/api/status", cookie=demo.token("ada")).status
        assert seen != demo.last_seen_at(1)
        client.sock.setblocking(False)
        with suppress(BlockingIOError):  # it is open, and says nothing more
            assert b"" != client.sock.recv(1)
