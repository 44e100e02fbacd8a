"""The site of `docs/` in a real browser: it needs nothing from outside, and nothing in it is broken."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, override

import pytest
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

_ROOT = Path(__file__).parent.parent.parent


class _Quiet(SimpleHTTPRequestHandler):
    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Make it, and serve it; give its address and its pages."""
    mkdocs = str(Path(sys.executable).parent / "mkdocs")
    command = [mkdocs, "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=_ROOT, env=environment, check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield (
        f"http://127.0.0.1:{server.server_port}/",
        sorted(str(page.relative_to(tmp_path)) for page in tmp_path.rglob("*.html")),
    )
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_page(page: Page, site: tuple[str, list[str]]) -> None:
    """Nothing comes from another host, nothing is missing, no page is wider than a screen, a search finds."""
    root, pages = site
    assert len(pages) > 30
    elsewhere: list[str] = []
    wrong: list[tuple[str, str]] = []
    page.on("request", lambda one: None if one.url.startswith((root, "data:")) else elsewhere.append(one.url))
    page.on("console", lambda said: wrong.append((page.url, said.text)) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append((page.url, str(error))))
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        for place in pages:
            page.goto(root + place)
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                wrong.append((place, f"is wider than {width}"))
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{root}index.html")
    page.keyboard.press("s")
    page.keyboard.type("draining")
    expect(page.locator(".md-search-result__item").filter(has_text="Draining").first).to_be_visible()
    assert ([], []) == (elsewhere, wrong)
