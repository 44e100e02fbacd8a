"""What is told to whom, when a request cannot be served: a page to people, JSON to programs.

Fixed texts: nothing of the request, the instance or an exception is in them. A page needs nothing but
itself, for whatever else it could load might be what cannot be served.
"""

import json
import re
from http import HTTPStatus
from typing import Final

from visa_jupyter_proxy.errors import ProxyError
from visa_jupyter_proxy.worker.http1 import Request
from visa_jupyter_proxy.worker.lines import Lines, name_of

ADVICE: Final = {
    "bad_request": "If you typed the address, check it. If a link brought you here, tell whoever made it.",
    "no_token": "Open VISA, sign in, and start from there. If you are signed in, reload this page.",
    "token_rejected": "Open VISA, sign in again, and start from there.",
    "origin_not_allowed": "Open your instance from VISA itself.",
    "no_route": "Check the address, or open your instance from VISA.",
    "instance_not_found": "Open VISA and look whether it is among your instances.",
    "method_not_allowed": "Go back and try another way.",
    "request_timeout": "Check your connection, then try again.",
    "content_too_large": "Send less at a time, or ask your facility how to transfer large files.",
    "target_too_long": "Shorten the address, or open your instance from VISA.",
    "expectation_failed": "Go back and try again.",
    "misdirected": "Open VISA by the address that your facility gives for it.",
    "websocket_version": "Use a current version of your browser.",
    "head_too_large": "Delete your browser's cookies of this site, sign in to VISA, and try again.",
    "not_implemented": "Use a current version of your browser.",
    "version_not_supported": "Use a current version of your browser.",
    "visa_unreachable": "Reload this page in a moment. If it stays so, tell the support of your facility.",
    "visa_busy": "Reload this page in a moment.",
    "visa_invalid": "Reload this page in a moment. If it stays so, tell the support of your facility.",
    "visa_timeout": "Reload this page in a moment. If it stays so, tell the support of your facility.",
    "instance_not_ready": "Reload this page in a moment. If it stays so, look at it in VISA.",
    "instance_address": "Tell the support of your facility.",
    "instance_unreachable": "Reload this page in a moment. If it stays so, restart the instance in VISA.",
    "instance_invalid": "Reload this page. If it stays so, restart the instance in VISA.",
    "instance_timeout": "The instance may be busy: reload this page in a moment, or look at it in VISA.",
    "internal": "Try again. If it stays so, tell the support of your facility.",
}
"""What a person can do, for the `error` of everything that can be told."""

_POLICY: Final = b"Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
"""Whatever might one day find its way into a page does nothing there."""

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(status)d %(phrase)s</title>
<style>
:root { color-scheme: light dark; --ink: #1b2530; --faint: #55616d; --ground: #f4f6f8; --sheet: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf0; --faint: #9aa7b4; --ground: #12181e; --sheet: #1c242c }
}
body { margin: 0; padding: 1rem; background: var(--ground); color: var(--ink) }
body { font: 1rem/1.5 system-ui, sans-serif }
main { max-width: 34rem; margin: 10vh auto 0; padding: 1.5rem; border-radius: .5rem }
main { background: var(--sheet) }
h1 { margin: 0 0 .75rem; font-size: 1.35rem; line-height: 1.3 }
p { margin: .75rem 0 }
small { color: var(--faint); overflow-wrap: anywhere }
</style>
</head>
<body>
<main>
<h1>%(message)s</h1>
<p>%(advice)s</p>
<small>%(status)d %(phrase)s. Request %(request_id)s</small>
</main>
</body>
</html>
"""

_QUALITY: Final = re.compile(rb"(?i)[ \t]*q=([01](?:\.[0-9]{0,3})?)[ \t]*")
_MOST_RANGES: Final = 32
"""Of an `Accept` that are read; a browser sends eight."""


def wants_page(request: Request) -> bool:
    """Whether a person will see the answer: a browser navigates.

    Current browsers say so (W3C, Fetch Metadata), though only to sites with https; else `Accept` tells.
    """
    if request.websocket:
        return False
    said = [line for line in request.lines if name_of(line) in (b"sec-fetch-mode", b"accept")]
    modes = [_value(line) for line in said if name_of(line) == b"sec-fetch-mode"]
    if modes:
        return modes == [b"navigate"]
    accept = b",".join(_value(line) for line in said if name_of(line) == b"accept")
    return request.method in (b"GET", b"HEAD") and _prefers_html(accept)


def error_page(
    error: ProxyError, request_id: bytes, date: bytes, *, for_people: bool = False
) -> tuple[bytes, Lines, bytes]:
    """Return reason phrase, field lines and body of the answer to a request that failed with `error`."""
    identity = request_id.decode("ascii")
    phrase = HTTPStatus(error.status).phrase
    body = _page(error, phrase, identity) if for_people else _object(error, identity)
    lines = [
        b"Content-Type: text/html; charset=utf-8\r\n"
        if for_people
        else b"Content-Type: application/json\r\n",
        b"Content-Length: %d\r\n" % len(body),
        b"Date: %b\r\n" % date,
        b"Cache-Control: no-store\r\n",
        b"X-Content-Type-Options: nosniff\r\n",
        b"X-Request-Id: %b\r\n" % request_id,
        *(f"{name}: {value}\r\n".encode() for name, value in error.fields),
    ]
    if for_people:
        lines.append(_POLICY)
    return phrase.encode(), lines, body


def _object(error: ProxyError, request_id: str) -> bytes:
    content = {"error": error.error, "message": error.message, "requestId": request_id}
    return json.dumps(content).encode() + b"\n"


def _page(error: ProxyError, phrase: str, request_id: str) -> bytes:
    # None of these can hold markup: texts of ours, and an id of letters, digits, dots and dashes.
    values = {
        "status": error.status,
        "phrase": phrase,
        "message": error.message,
        "advice": ADVICE[error.error],
        "request_id": request_id,
    }
    return (_PAGE % values).encode()


def _prefers_html(accept: bytes) -> bool:
    """Whether `text/html` is named, and nothing that would do for JSON is wanted more (RFC 9110 12.5.1)."""
    ranges = [item.partition(b";") for item in accept.split(b",", _MOST_RANGES)[:_MOST_RANGES]]
    wanted = {kind.strip(b" \t").lower(): _quality(rest) for kind, _, rest in ranges}
    html = wanted.get(b"text/html", 0.0)
    json_itself = wanted.get(b"application/json", 0.0)
    return html > json_itself and html >= max(wanted.get(b"application/*", 0.0), wanted.get(b"*/*", 0.0))


def _quality(parameters: bytes) -> float:
    found = _QUALITY.fullmatch(parameters.rpartition(b";")[2])
    return float(found[1]) if found is not None else 1.0


def _value(line: bytes) -> bytes:
    return line.partition(b":")[2].strip(b" \t\r\n")
