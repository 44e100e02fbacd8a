"""The board: one page that holds all it needs. It gets what it shows from `/api/v1`.

Its style and its script stand in the page, and their digests in its Content-Security-Policy: nothing else
runs or loads there, nobody may frame it, and what it shows of users and instances cannot be run.
"""

import base64
import hashlib
from importlib import resources

from aiohttp import web


def page() -> web.Response:
    """Make the response."""
    return web.Response(
        text=_PAGE,
        content_type="text/html",
        charset="utf-8",
        headers={"Content-Security-Policy": _POLICY, "X-Frame-Options": "DENY"},
    )


def _read(name: str) -> str:
    return (resources.files("visa_jupyter_proxy.control.admin") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE = _read("board.css")
_SCRIPT = "".join(_read(f"{name}.js") for name in ("words", "charts", "sessions", "board"))
_PAGE = _read("board.html").replace("/*STYLE*/", _STYLE).replace("/*SCRIPT*/", _SCRIPT)
_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_digest(_STYLE)}",
        f"script-src {_digest(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
