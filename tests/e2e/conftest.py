"""One demo for all end-to-end tests, after which its proxy is as it was before them; and a browser."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from support.running_demo import RunningDemo
from support.usage import Start, states

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """VISA, two JupyterLabs and the proxy, as `visa-jupyter-proxy demo` starts them."""
    # Short periods, for `test_live_access`; JupyterLab asks for something every 10 s.
    logs = tmp_path_factory.mktemp("demo")
    with RunningDemo.start(logs, RECHECK_S="2", ACCESS_GRACE_S="30") as running:
        start = Start(lambda: states(running.proxy_pid, running.logs / "proxy.log"))
        yield running
        start.wait_until_back()
        assert 0 == running.stop()


@pytest.fixture
def page() -> Iterator[Page]:
    """Open a tab in a fresh profile. Playwright ends with it: its loop would be in the way of other tests."""
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        page = browser.new_page(viewport={"width": 1280, "height": 720}, ignore_https_errors=True)
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield page
        browser.close()
