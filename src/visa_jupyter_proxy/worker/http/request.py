"""The head of a request: bytes to a `Request` and back (RFC 9112 3).

A head is parsed when it is complete, in one go: `parse_request` is a function of bytes. `framing` finds
where a head ends and reads the body behind it; `sections` reads its fields.
"""

import re
from typing import Final, NamedTuple

from visa_jupyter_proxy.errors import (
    BadRequest,
    HeadTooLarge,
    MethodNotAllowed,
    NotImplementedHere,
    ProxyError,
    TargetTooLong,
    VersionNotSupported,
)
from visa_jupyter_proxy.worker.http.lines import TOKEN, Lines
from visa_jupyter_proxy.worker.http.message import Message
from visa_jupyter_proxy.worker.http.sections import RequestSection, request_section


class HeadLimits(NamedTuple):
    """How large a head may be."""

    line_bytes: int = 8 * 1024
    """Request line: nginx's large_client_header_buffers."""
    head_bytes: int = 32 * 1024
    """All of it: nginx reads four such buffers."""
    fields: int = 100
    """Apache's LimitRequestFields; HAProxy allows 101."""


DEFAULT_LIMITS: Final = HeadLimits()

_LONGEST_METHOD: Final = 32
"""The longest registered method (UPDATEREDIRECTREF) has 17 letters."""

_KEY: Final = b"sec-websocket-key"

_REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})
"""We are no tunnel to anywhere, and tell nobody what fields came (RFC 9110 9.3.6, 9.3.8)."""

_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb") ([!\"$-~]+) HTTP/1\.([01])\r\n")
"""Without `#`: a target has no fragment (RFC 9112 3.2)."""
_FOREIGN_VERSION: Final = re.compile(TOKEN + rb" [!-~]+ HTTP/[0-9]\.[0-9]\r\n")
_ABSOLUTE_FORM: Final = re.compile(rb"(?i)https?://([^/?]+)(.*)", re.DOTALL)


class Request(Message):
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


def parse_request(head: bytes, limits: HeadLimits = DEFAULT_LIMITS) -> Request:
    """Parse a complete head, the empty line included.

    Raises `BadRequest` and its more exact siblings of `errors`; nothing else.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise _bad_request_line(head)
    return _request(line, limits, *request_section(head[line.end() :], limits.fields))


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
    if len(method) > _LONGEST_METHOD:
        raise NotImplementedHere("method too long")
    if section.count + (key is not None) > limits.fields:
        raise HeadTooLarge("too many fields")
    request = Request(method, target, 1 if minor == b"1" else 0, section, key)
    if method in _REFUSED_METHODS:
        raise MethodNotAllowed("CONNECT or TRACE")
    return request


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


def request_head(method: bytes, target: bytes, lines: Lines) -> bytes:
    """Compose the head of a request to an instance."""
    return b"".join((method, b" ", target, b" HTTP/1.1\r\n", *lines, b"\r\n"))
