"""What a scientist does in JupyterLab, in a real browser."""

import os
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from support.running_demo import eventually


def run_a_cell(page: Page) -> None:
    """Open a notebook and run a cell of it: its kernel answers."""
    page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click()
    # JupyterLab loses a cell that is run while it still chooses the kernel, without any proxy too.
    expect(page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible()
    page.locator(".jp-Notebook .cm-content").first.click()
    page.keyboard.type("print(6*7)")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-Notebook .jp-OutputArea-output")).to_have_text(re.compile(r"^42\s*$"))


def type_in_a_terminal(page: Page) -> None:
    """Open a terminal: a shell answers."""
    with page.expect_websocket(lambda socket: "/terminals/websocket/" in socket.url) as opening:
        page.keyboard.press("Control+Shift+L")
        page.locator('.jp-LauncherCard[title="Start a new terminal session"]:visible').click()
    page.locator(".jp-Terminal:visible .xterm-helper-textarea").wait_for(state="attached")
    page.locator(".jp-Terminal:visible").click()
    # What is typed comes back as an echo too; its result, only from a shell.
    with opening.value.expect_event("framereceived", lambda frame: "<42>" in frame):
        page.keyboard.type('echo "<$((6*7))>"\n')


def upload_and_download(page: Page, site: str, folder: Path) -> None:
    """Upload a file to instance 1 of `site`, and download it again."""
    sent, received = folder / "measurement.bin", folder / "received.bin"
    sent.write_bytes(os.urandom(3_000_000))  # JupyterLab sends it in three chunks
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Upload Files").click()
    choosing.value.set_files(sent)
    about = f"{site}/jupyter/1/api/contents/{sent.name}?content=0"

    def has_arrived() -> bool:
        answer = page.request.get(about)
        return answer.ok and answer.json()["size"] == sent.stat().st_size

    eventually("all of the file is there", has_arrived)
    page.locator(".jp-DirListing-item", has_text=sent.name).click(button="right")
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Download", exact=True).click()
    download.value.save_as(received)
    assert sent.read_bytes() == received.read_bytes()
