"""The same JupyterLab behind a real nginx, with the files that are shipped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from support.nginx import program, running_nginx
from support.running_demo import RunningDemo, eventually
from support.scientist import run_a_cell, type_in_a_terminal, upload_and_download

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

_SAVE = """
async ([name, cells]) => {
  const token = document.cookie.match(/_xsrf=([^;]+)/)[1];
  const answer = await fetch(`/jupyter/1/api/contents/${name}`, {
    method: "PUT",
    headers: {"X-XSRFToken": token, "Content-Type": "application/json"},
    body: JSON.stringify({type: "notebook", format: "json", content: {
      nbformat: 4, nbformat_minor: 5, metadata: {},
      cells: [...Array(cells).keys()].map((n) => ({
        id: `cell-${n}`, cell_type: "markdown", metadata: {}, source: "0123456789".repeat(100_000)
      }))
    }}),
  });
  return answer.status;
}
"""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[RunningDemo]:
    """Run a demo for this test alone: JupyterLab opens with whatever was open at last."""
    with RunningDemo.start(tmp_path / "demo") as running:
        yield running
        assert 0 == running.stop()


def test_a_day_behind_nginx(page: Page, demo: RunningDemo, tmp_path: Path) -> None:
    """A cell, a terminal, an upload and a download; a notebook of 20 MB is saved and read again."""
    program()
    port = int(demo.proxy.rpartition(":")[2])
    with running_nginx(tmp_path / "nginx", port) as nginx:
        page.goto(demo.instances[1]["signIn"])  # whose cookie is for every port
        page.goto(f"{nginx.url}/jupyter/1/lab?reset")  # without what an earlier page had open
        expect(page.locator(".jp-Launcher")).to_be_visible()
        run_a_cell(page)
        upload_and_download(page, nginx.url, tmp_path)
        type_in_a_terminal(page)
        assert 201 == page.evaluate(_SAVE, ["large.ipynb", 20])
        saved = page.request.get(f"{nginx.url}/jupyter/1/api/contents/large.ipynb").json()
        assert 20_000_000 == sum(len(cell["source"]) for cell in saved["content"]["cells"])
        assert 20_000_000 < saved["size"]
        page.close()
        eventually("VISA has every notebook session, closed", lambda: _all_closed(demo))


def _all_closed(demo: RunningDemo) -> bool:
    rows = demo.recorded("sessions")
    return bool(rows) and all(row["closedAt"] for row in rows)
