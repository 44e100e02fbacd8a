"""Record what Chromium asks for when it opens JupyterLab: `python -m benchmarks.record` writes `page.json`.

The demo is started, a fresh browser opens its first instance, and each response's target and size are
kept, in the order of the requests. Only what is read and answered with 200 can be replayed: the
WebSockets and the few requests that change something are left out.
"""

import json
import os
import signal
import subprocess
import sys
from typing import Final
from urllib.parse import urlsplit

from playwright.sync_api import Request, expect, sync_playwright

from benchmarks.world import PAGE

_CHROMIUM: Final = "/usr/bin/chromium"
_PATIENCE_MS: Final = 120_000


def recorded(link: str) -> list[dict[str, object]]:
    """Open the link, wait until JupyterLab is there, and return what was asked for."""
    asked: list[Request] = []
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root.
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        page = browser.new_page()
        page.on("request", lambda request: _note(asked, request))
        page.goto(link)
        expect(page.locator(".jp-Launcher")).to_be_visible(timeout=_PATIENCE_MS)
        page.wait_for_load_state("networkidle", timeout=_PATIENCE_MS)
        found = [one for one in map(_entry, asked) if one is not None]
        browser.close()
    return found


def _note(asked: list[Request], request: Request) -> None:
    asked.append(request)


def _entry(request: Request) -> dict[str, object] | None:
    url = urlsplit(request.url)
    response = request.response()
    if request.method != "GET" or response is None or response.status != 200:
        return None
    if not url.path.startswith("/jupyter/1/"):
        return None
    target = "/jupyter/2/" + url.path.removeprefix("/jupyter/1/")
    return {"target": f"{target}?{url.query}" if url.query else target, "bytes": len(response.body())}


def main() -> None:
    """Record, and write."""
    command = [sys.executable, "-m", "visa_jupyter_proxy", "demo", "--json", "--port", "0", "--api-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as demo:
        try:
            line = demo.stdout.readline() if demo.stdout is not None else b""
            if not line:
                raise SystemExit("the demo does not start")
            requests = recorded(json.loads(line)["instances"][0]["signIn"])
        finally:
            demo.send_signal(signal.SIGTERM)
    lines = ",\n ".join(json.dumps(one) for one in requests)
    PAGE.write_text(f"[{lines}]\n")
    sys.stdout.write(f"{len(requests)} requests, {sum(int(str(one['bytes'])) for one in requests):,} bytes\n")


if __name__ == "__main__":
    main()
