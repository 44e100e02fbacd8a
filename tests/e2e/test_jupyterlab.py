"""A scientist works in JupyterLab, in a real browser, through the proxy; VISA has recorded it."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, WebSocket, expect

from support.running_demo import RunningDemo, eventually
from support.scientist import run_a_cell, type_in_a_terminal, upload_and_download

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def _sign_in(page: Page, demo: RunningDemo) -> None:
    page.goto(demo.instances[1]["signIn"])
    page.wait_for_url(demo.instances[1]["url"] + "**")
    expect(page.locator(".jp-Launcher")).to_be_visible()


def _kernel_key(socket: WebSocket) -> tuple[str, str] | None:
    found = re.search(r"/jupyter/1/api/kernels/([^/]+)/channels\?session_id=([^&]+)", socket.url)
    return (found[1], found[2]) if found else None


def test_a_day_in_jupyterlab(page: Page, demo: RunningDemo, tmp_path: Path) -> None:
    """Sign in, run a cell, use a terminal, upload and download a file, close the tab.

    VISA then has one open and one close of the notebook session that the browser had, by its owner.
    """
    opened: list[WebSocket] = []
    used: set[tuple[str, str]] = set()

    def watch(socket: WebSocket) -> None:
        if key := _kernel_key(socket):
            opened.append(socket)
            socket.on("framereceived", lambda _frame: used.add(key))

    page.on("websocket", watch)
    _sign_in(page, demo)
    run_a_cell(page)
    if picture := os.environ.get("PICTURE"):
        page.screenshot(path=picture)
    upload_and_download(page, demo.proxy, tmp_path)
    type_in_a_terminal(page)
    # JupyterLab may start a second kernel and give it up again: what counts is what got an answer.
    assert used
    page.close()

    def all_closed() -> list[dict[str, Any]] | None:
        rows = demo.recorded("sessions")
        return rows if len(rows) >= len(used) and all(row["closedAt"] for row in rows) else None

    rows = eventually("VISA has every notebook session, closed", all_closed)
    keys = [(row["kernelId"], row["sessionId"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert used <= set(keys) <= {_kernel_key(socket) for socket in opened}
    assert {("ada", 1, "close")} == {(row["user"], row["instanceId"], row["closedBy"]) for row in rows}
    reports = [call["path"] for call in demo.recorded("calls") if call["method"] == "POST"]
    assert [len(keys)] * 2 == [
        reports.count(f"/api/jupyter/instances/1/notebook/{what}") for what in ("open", "close")
    ]
