"""HTTP/1.1 heads: bytes to messages and back (RFC 9112).

A head is parsed when it is complete, in one go: `parse_request` and `parse_response` are functions of
bytes. `framing` finds where a head ends and reads the body behind it; `sections` reads its fields.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from visa_jupyter_proxy.errors import (
    BadRequest,
    HeadTooLarge,
    InstanceInvalid,
    MethodNotAllowed,
    NotImplementedHere,
    ProxyError,
    TargetTooLong,
    VersionNotSupported,
)
from visa_jupyter_proxy.worker.http.lines import TOKEN, Lines
from visa_jupyter_proxy.worker.http.sections import (
    LONGEST_KEPT,
    MOST_KEPT,
    RequestSection,
    ResponseSection,
    Section,
    options,
    request_section,
    taken_out,
)


class HeadLimits(NamedTuple):
    """How large a head may be."""

    line_bytes: int = 8 * 1024
    """Request line: nginx's large_client_header_buffers."""
    head_bytes: int = 32 * 1024
    """All of it: nginx reads four such buffers."""
    fields: int = 100
    """Apache's LimitRequestFields; HAProxy allows 101."""


DEFAULT_LIMITS: Final = HeadLimits()

LONGEST_METHOD: Final = 32
"""The longest registered method (UPDATEREDIRECTREF) has 17 letters."""

_KEY: Final = b"sec-websocket-key"
_ACCEPT: Final = b"sec-websocket-accept"

_NEVER_KEPT: Final = frozenset({b"set-cookie", _ACCEPT})
"""Fields that are for one client, or never the same; a response with one of them is forgotten at once."""

_REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})
"""We are no tunnel to anywhere, and tell nobody what fields came (RFC 9110 9.3.6, 9.3.8)."""

_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb") ([!\"$-~]+) HTTP/1\.([01])\r\n")
"""Without `#`: a target has no fragment (RFC 9112 3.2)."""
_FOREIGN_VERSION: Final = re.compile(TOKEN + rb" [!-~]+ HTTP/[0-9]\.[0-9]\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\r\n]*))?\r\n")
"""A status is 100 to 599 (RFC 9110 15): clients make what they like of others."""
_DATE_LINE_BEGINS: Final = b"\r\nDate: "
_DATE_LINE: Final = re.compile(
    _DATE_LINE_BEGINS + rb"([A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT)(?=\r\n)"
)
"""In the form that every server writes (RFC 9110 5.6.7); another one stays among the fields."""
_ACCEPT_LINE_BEGINS: Final = b"\r\nSec-WebSocket-Accept: "
_ACCEPT_LINE: Final = re.compile(_ACCEPT_LINE_BEGINS + rb"([0-9A-Za-z+/]{27}=)(?=\r\n)")
"""As Jupyter and most servers spell it; another one stays among the fields."""
_SWITCHES: Final = b"HTTP/1.1 101 "
_ABSOLUTE_FORM: Final = re.compile(rb"(?i)https?://([^/?]+)(.*)", re.DOTALL)
_KEEP_ALIVE: Final = re.compile(rb"(timeout|max)[ \t]*=[ \t]*([0-9]{1,9})")
_UNPRINTABLE: Final = re.compile(rb"[^\t -~\x80-\xff]")


class _Head:
    """What the two kinds of message share."""

    __slots__ = ("chunked", "connection", "keep_alive", "length", "minor", "special")

    minor: int
    """0 for HTTP/1.0, 1 for HTTP/1.1."""
    keep_alive: bool
    """Whether the sender allows another message on this connection (RFC 9112 9.3)."""

    def __init__(self, minor: int, section: Section) -> None:
        self.minor = minor
        self.special = section.special
        self.length = section.length
        self.chunked = section.chunked
        connection = self.connection = section.connection
        self.keep_alive = b"close" not in connection and (minor == 1 or b"keep-alive" in connection)

    def one(self, name: bytes) -> bytes | None:
        """Return the last value of a field that is read, or None."""
        values = self.special.get(name)
        return values[-1] if values else None


class Request(_Head):
    """A request as it came; it is never modified: the one that is sent is made from it."""

    __slots__ = (
        "credentials",
        "has_body",
        "host",
        "key_line",
        "lines",
        "method",
        "section",
        "target",
        "websocket",
    )

    section: RequestSection
    """Its fields, shared with all requests that have the same."""
    key_line: bytes
    """The line of `Sec-WebSocket-Key`, which belongs to `lines` and is not in `section`; mostly empty."""

    target: bytes
    """Origin form, byte for byte as it came."""
    host: bytes | None
    """None for HTTP/1.0 without one."""
    has_body: bool
    """Whether anything follows the head."""
    websocket: bool
    """Whether it asks for a WebSocket, in a valid way: `request_reader` sets what `websocket` finds."""

    def __init__(
        self, method: bytes, target: bytes, minor: int, section: RequestSection, key: bytes | None = None
    ) -> None:
        """Raise `BadRequest` for what the version or the target does not allow."""
        super().__init__(minor, section)
        self.key_line = b""
        if key is not None:
            self.special = section.special | {_KEY: [*section.special.get(_KEY, ()), key]}
            if _KEY not in section.connection:
                self.key_line = b"Sec-WebSocket-Key: %b\r\n" % key
        if section.chunked if minor == 0 else section.host is None:
            raise BadRequest("Transfer-Encoding where none may be" if minor == 0 else "bad Host")
        self.section = section
        self.lines = section.lines
        self.method = method
        self.host = section.host
        self.credentials = section.credentials
        self.target = target if target.startswith(b"/") else _origin_form(target, section.host)
        self.has_body = section.chunked or bool(section.length)
        self.websocket = False

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends the body (RFC 9110 10.1.1)."""
        return b"expect" in self.special and self.minor == 1

    def __repr__(self) -> str:
        # The query may hold a secret (contract section 4).
        return f"Request({self.method!r}, {self.target.partition(b'?')[0]!r})"


class StatusLine(NamedTuple):
    """How a response begins."""

    minor: int
    status: int
    reason: bytes


class Response(_Head):
    """A response of an instance as it came."""

    __slots__ = ("is_dated", "own_lines", "reason", "section", "status")

    section: ResponseSection
    """Its fields, shared with all responses that have the same."""
    own_lines: bytes
    """End-to-end lines that are not in `section`, for they are different each time; mostly the date's."""
    is_dated: bool
    """Whether the date is among what goes on."""

    def __init__(self, start: StatusLine, section: ResponseSection, date: bytes | None = None) -> None:
        """`date` is that of a `Date` which is not in `section`."""
        super().__init__(start.minor, section)
        self.status = start.status
        self.reason = start.reason
        self.section = section
        if date is None or b"date" in section.connection:
            self.own_lines = b""
            self.is_dated = section.is_dated
        else:
            self.own_lines = b"Date: " + date + b"\r\n"
            self.is_dated = True

    def accept(self, value: bytes) -> None:
        """Take a `Sec-WebSocket-Accept` which is not in `section`."""
        self.special = self.special | {_ACCEPT: [*self.special.get(_ACCEPT, ()), value]}
        if _ACCEPT not in self.connection:
            self.own_lines += b"Sec-WebSocket-Accept: " + value + b"\r\n"

    def __repr__(self) -> str:
        return f"Response({self.status})"


def parse_request(head: bytes, limits: HeadLimits = DEFAULT_LIMITS) -> Request:
    """Parse a complete head, the empty line included.

    Raises `BadRequest` and its more exact siblings of `errors`; nothing else.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise _bad_request_line(head)
    return _request(line, limits, *request_section(head[line.end() :]))


def parse_again(data: bytes, section: RequestSection, limits: HeadLimits = DEFAULT_LIMITS) -> Request | None:
    """Parse a complete head that has the very fields of `section`; None when `data` is anything else.

    To compare takes 8 000 instructions less than to look for the end of a browser's head, and for its fields
    among those that are known. Raises as `parse_request`.
    """
    if not data.endswith(section.block):
        return None
    line = _REQUEST_LINE.fullmatch(data, 0, len(data) - len(section.block))
    return None if line is None else _request(line, limits, section, None)


def _request(
    line: re.Match[bytes], limits: HeadLimits, section: RequestSection, key: bytes | None
) -> Request:
    method, target, minor = line.groups()
    if line.end() > limits.line_bytes:
        raise TargetTooLong("request line too long")
    if len(method) > LONGEST_METHOD:
        raise NotImplementedHere("method too long")
    if section.count + (key is not None) > limits.fields:
        raise HeadTooLarge("too many fields")
    request = Request(method, target, 1 if minor == b"1" else 0, section, key)
    if method in _REFUSED_METHODS:
        raise MethodNotAllowed("CONNECT or TRACE")
    return request


_kept: Final[dict[bytes, tuple[StatusLine, ResponseSection]]] = {}
"""Heads without what is different each time."""


def parse_response(head: bytes) -> Response:
    """Parse a complete head of a response, the empty line included. Raises `InstanceInvalid`.

    Files, and answers to those who ask again and again, are the same but for their date, and so are the 101
    of one service but for the answer to the key: to read one anew takes 20 000 instructions.
    """
    rest, date = taken_out(head, _DATE_LINE_BEGINS, _DATE_LINE)
    accept = None
    if rest.startswith(_SWITCHES):
        rest, accept = taken_out(rest, _ACCEPT_LINE_BEGINS, _ACCEPT_LINE)
    start, section = _kept.get(rest) or _response_head(rest)
    if section.count + (date is not None) + (accept is not None) > DEFAULT_LIMITS.fields:
        raise InstanceInvalid("too many fields")
    response = Response(start, section, date)
    if accept is not None:
        response.accept(accept)
    return response


def _response_head(head: bytes) -> tuple[StatusLine, ResponseSection]:
    line = _STATUS_LINE.match(head)
    if line is None:
        raise InstanceInvalid("bad status line")
    minor, status, reason = line.groups()
    section = ResponseSection(head[line.end() :])
    if minor == b"0" and section.chunked:
        raise InstanceInvalid("Transfer-Encoding where none may be")
    # Without what may not stand in a reason phrase (case 182).
    read = StatusLine(int(minor), int(status), _UNPRINTABLE.sub(b" ", reason or b"")), section
    if len(head) <= LONGEST_KEPT and _NEVER_KEPT.isdisjoint(section.special):
        if len(_kept) >= MOST_KEPT:
            _kept.clear()
        _kept[head] = read
    return read


def _bad_request_line(head: bytes) -> ProxyError:
    if _FOREIGN_VERSION.match(head) and b" HTTP/1." not in head[: head.index(b"\r\n")]:
        return VersionNotSupported("not HTTP/1")
    return BadRequest("bad request line")


def _origin_form(target: bytes, host: bytes | None) -> bytes:
    """Return the target of another form in origin form (RFC 9112 3.2)."""
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    # The target wins over Host (3.2.2); two names in one request are an attempt at something.
    if absolute is None or host is None or absolute[1].lower() != host.lower():
        raise BadRequest("bad target")
    return absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]


def keep_alive_limits(response: Response) -> dict[bytes, int]:
    """Return what `Keep-Alive` says (RFC 2068 19.7.1.1): `timeout` in seconds, `max` further requests."""
    found = map(_KEEP_ALIVE.fullmatch, options(response.special.get(b"keep-alive")))
    return {limit[1]: int(limit[2]) for limit in found if limit}


def request_head(method: bytes, target: bytes, lines: Lines) -> bytes:
    """Compose the head of a request to an instance."""
    return b"".join((method, b" ", target, b" HTTP/1.1\r\n", *lines, b"\r\n"))


def response_head(status: int, reason: bytes, lines: Lines) -> bytes:
    """Compose the head of a response; we speak HTTP/1.1 whatever the client does (RFC 9110 2.5)."""
    return b"".join((_start(status, reason), *lines, b"\r\n"))


@lru_cache(maxsize=32)  # as `_status_line`
def _start(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)
