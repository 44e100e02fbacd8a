"""What is told to whom, when a request cannot be served: a page to people, JSON to programs.

Fixed texts: nothing of the request, the instance or an exception is in them. A page needs nothing but
itself, for whatever else it could load might be what cannot be served. Control has made them all
(`error_pages`); here one is chosen, and filled in: status, id, and what the operator calls the service.
"""

import html
import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol

from visa_jupyter_proxy.errors import HeadTooLarge, ProxyError
from visa_jupyter_proxy.mailbox import REQUEST_ID_HERE, SERVICE_HERE, STATUS_HERE, Page
from visa_jupyter_proxy.routes import Match
from visa_jupyter_proxy.worker.http.lines import Lines, name_of

type Answer = tuple[bytes, Lines, bytes]
"""Reason phrase, field lines and body."""

_STATES: Final = {
    "BUILDING": "building",
    "STARTING": "starting",
    "REBOOTING": "rebooting",
    "MIGRATING": "migrating",
    "STOPPING": "stopping",
    "ACTIVE": "unanswered",
    "PARTIALLY_ACTIVE": "unanswered",
    "ACTIVE_MIGRATING": "unanswered",
}
"""The page that explains why an instance in this state cannot be reached, where its error does not."""

POLL: Final = b"x-visa-poll"
"""The field with which a page of ours that waits asks, by GET, how it stands."""

_MOST_LINES: Final = 100
"""Of a head that could not be read: browsers send about 20."""

_QUALITY: Final = re.compile(rb"(?i)[ \t]*q=([01](?:\.[0-9]{0,3})?)[ \t]*")
_MOST_RANGES: Final = 32
"""Of an `Accept` or `Accept-Language` that are read; a browser sends eight."""


class Asking(Protocol):
    """What is looked at of a request."""

    @property
    def method(self) -> bytes:
        """Its method."""

    @property
    def lines(self) -> Lines:
        """Its end-to-end fields."""

    @property
    def websocket(self) -> bool:
        """Whether it asks for a WebSocket."""


class _Unread(NamedTuple):
    method: bytes
    lines: Lines
    websocket: bool = False


def unread(error: ProxyError, head: bytes) -> Asking:
    """Return what can be said of a head that could not be read.

    A head that is too large is a person's, more often than not, with too many cookies. Whatever else is no
    request is a program's, and nothing of it is looked at.
    """
    if not isinstance(error, HeadTooLarge):
        return _Unread(b"", [])
    line, *lines = head.split(b"\r\n", _MOST_LINES)[:_MOST_LINES]
    return _Unread(line.partition(b" ")[0], [one + b"\r\n" for one in lines if b":" in one])


class Pages:
    """The pages of a worker."""

    def __init__(self, pages: Mapping[str, Mapping[str, Page]]) -> None:
        """`pages`: language -> name -> page, the default language first."""
        self._pages = {language.encode("ascii"): named for language, named in pages.items()}
        self._default = next(iter(self._pages))

    def refusal(
        self, error: ProxyError, request: Asking, match: Match | None, request_id: bytes, date: bytes
    ) -> Answer:
        """Compose the answer to a request that failed with `error`; no `match`, no service was found."""
        if not _wants_page(request):
            return error_object(error, request_id, date)
        lines, body = self._page(error, request, match, request_id, date)
        return _phrase(error), lines + _demanded(error), body

    def still_waiting(
        self, error: ProxyError, request: Asking, match: Match, request_id: bytes, date: bytes
    ) -> Answer:
        """Compose what a page that waits shows from now on. It is the answer to a question: status 200."""
        return b"OK", *self._page(error, request, match, request_id, date)

    def _page(
        self, error: ProxyError, request: Asking, match: Match | None, request_id: bytes, date: bytes
    ) -> tuple[Lines, bytes]:
        """Compose the page that says what has happened, in the language that is wanted most."""
        language = self._language(request)
        page = self._pages[language][_page_name(error)]
        body = page.body.replace(STATUS_HERE.encode(), b"%d" % error.status)
        body = body.replace(REQUEST_ID_HERE.encode(), request_id)
        body = body.replace(SERVICE_HERE.encode(), _service(match))
        lines = _lines(request_id, date, b"text/html; charset=utf-8", body)
        lines.append(b"Content-Language: %b\r\n" % language)
        lines.append(f"Content-Security-Policy: {page.policy}\r\n".encode())
        return lines, body

    def _language(self, request: Asking) -> bytes:
        """Choose by `Accept-Language` (RFC 9110 12.5.4); of a tag only its language counts."""
        wanted = _wanted(b",".join(_values(request, b"accept-language")))
        chosen, best = self._default, 0.0
        for tag, quality in wanted.items():
            language = tag.partition(b"-")[0]
            if quality > best and (language in self._pages or tag == b"*"):
                chosen, best = language if language in self._pages else self._default, quality
        return chosen


def error_object(error: ProxyError, request_id: bytes, date: bytes) -> Answer:
    """Compose the answer to a program's request that failed with `error`."""
    content = {"error": error.error, "message": error.message, "requestId": request_id.decode("ascii")}
    body = json.dumps(content).encode() + b"\n"
    lines = _lines(request_id, date, b"application/json", body)
    return _phrase(error), lines + _demanded(error), body


def go_on(request_id: bytes, date: bytes) -> Answer:
    """Compose the answer to a page that need not wait any longer: status 204."""
    return b"No Content", [*_every_answer(request_id, date)], b""


def _service(match: Match | None) -> bytes:
    """Name what a person wants: an operator's word for it, but JupyterLab under its own name."""
    if match is None or match.route.type == "jupyter":
        return b"JupyterLab"
    return html.escape(match.route.name).encode()


def _page_name(error: ProxyError) -> str:
    """Choose by the state of the instance where that explains the error."""
    name = error.error if error.state is None else _STATES.get(error.state, error.error)
    return "silent" if name == "unanswered" and error.jupyter_answers else name


def _phrase(error: ProxyError) -> bytes:
    return HTTPStatus(error.status).phrase.encode()


def _demanded(error: ProxyError) -> Lines:
    """Return what the status demands (RFC 9110 15)."""
    return [f"{name}: {value}\r\n".encode() for name, value in error.fields]


def _lines(request_id: bytes, date: bytes, kind: bytes, body: bytes) -> Lines:
    return [
        b"Content-Type: %b\r\n" % kind,
        b"Content-Length: %d\r\n" % len(body),
        b"X-Content-Type-Options: nosniff\r\n",
        *_every_answer(request_id, date),
    ]


def _every_answer(request_id: bytes, date: bytes) -> Lines:
    return [
        b"Date: %b\r\n" % date,
        b"Cache-Control: no-store\r\n",
        b"X-Request-Id: %b\r\n" % request_id,
    ]


def _wants_page(request: Asking) -> bool:
    """Whether a person will see the answer: a browser navigates.

    Current browsers say so (W3C, Fetch Metadata), though only to sites with https; else `Accept` tells.
    """
    if request.websocket:
        return False
    if modes := _values(request, b"sec-fetch-mode"):
        return modes == [b"navigate"]
    return request.method in (b"GET", b"HEAD") and _prefers_html(b",".join(_values(request, b"accept")))


def _prefers_html(accept: bytes) -> bool:
    """Whether `text/html` is named, and nothing that would do for JSON is wanted more (RFC 9110 12.5.1)."""
    wanted = _wanted(accept)
    html = wanted.get(b"text/html", 0.0)
    json_itself = wanted.get(b"application/json", 0.0)
    return html > json_itself and html >= max(wanted.get(b"application/*", 0.0), wanted.get(b"*/*", 0.0))


def _wanted(ranges: bytes) -> dict[bytes, float]:
    """Read what is wanted, in lower case, and how much."""
    parts = [item.partition(b";") for item in ranges.split(b",", _MOST_RANGES)[:_MOST_RANGES]]
    return {kind.strip(b" \t").lower(): _quality(rest) for kind, _, rest in parts}


def _quality(parameters: bytes) -> float:
    found = _QUALITY.fullmatch(parameters.rpartition(b";")[2])
    return float(found[1]) if found is not None else 1.0


def _values(request: Asking, name: bytes) -> list[bytes]:
    return [line.partition(b":")[2].strip(b" \t\r\n") for line in request.lines if name_of(line) == name]
