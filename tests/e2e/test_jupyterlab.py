"""A scientist works in JupyterLab, in a real browser, through the proxy; VISA has recorded it."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, WebSocket, expect, sync_playwright

from support.running_demo import RunningDemo, eventually

CHROMIUM = "/usr/bin/chromium"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture
def page() -> Iterator[Page]:
    """Open a tab in a fresh profile. Playwright ends with it: its loop would be in the way of other tests."""
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield page
        browser.close()


def _sign_in(page: Page, demo: RunningDemo) -> None:
    page.goto(demo.instances[1]["signIn"])
    page.wait_for_url(demo.instances[1]["url"] + "**")
    expect(page.locator(".jp-Launcher")).to_be_visible()


def _run_a_cell(page: Page) -> None:
    page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click()
    # JupyterLab loses a cell that is run while it still chooses the kernel, without any proxy too.
    expect(page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible()
    page.locator(".jp-Notebook .cm-content").first.click()
    page.keyboard.type("print(6*7)")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-Notebook .jp-OutputArea-output")).to_have_text(re.compile(r"^42\s*$"))


def _type_in_a_terminal(page: Page) -> None:
    with page.expect_websocket(lambda socket: "/terminals/websocket/" in socket.url) as opening:
        page.keyboard.press("Control+Shift+L")
        page.locator('.jp-LauncherCard[title="Start a new terminal session"]:visible').click()
    page.locator(".jp-Terminal:visible .xterm-helper-textarea").wait_for(state="attached")
    page.locator(".jp-Terminal:visible").click()
    # What is typed comes back as an echo too; its result, only from a shell.
    with opening.value.expect_event("framereceived", lambda frame: "<42>" in frame):
        page.keyboard.type('echo "<$((6*7))>"\n')


def _upload_and_download(page: Page, demo: RunningDemo, folder: Path) -> None:
    sent, received = folder / "measurement.bin", folder / "received.bin"
    sent.write_bytes(os.urandom(3_000_000))  # JupyterLab sends it in three chunks
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Upload Files").click()
    choosing.value.set_files(sent)
    about = f"{demo.proxy}/jupyter/1/api/contents/{sent.name}?content=0"

    def has_arrived() -> bool:
        answer = page.request.get(about)
        return answer.ok and answer.json()["size"] == sent.stat().st_size

    eventually("all of the file is there", has_arrived)
    page.locator(".jp-DirListing-item", has_text=sent.name).click(button="right")
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Download", exact=True).click()
    download.value.save_as(received)
    assert sent.read_bytes() == received.read_bytes()


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
    _run_a_cell(page)
    if picture := os.environ.get("PICTURE"):
        page.screenshot(path=picture)
    _upload_and_download(page, demo, tmp_path)
    _type_in_a_terminal(page)
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
