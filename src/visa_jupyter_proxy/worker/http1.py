"""HTTP/1.1 heads: bytes to messages and back (RFC 9112).

Two rules:

1. A head is parsed when it is complete, in one go: `parse_request` and `parse_response` are functions
   of bytes. `framing` finds where a head ends and reads the body behind it.
2. A field is sorted once, while it is parsed. What may be forwarded as it came goes to `lines`;
   hop-by-hop, framing, identity and forwarding fields go to `special`, from which nothing is
   forwarded by accident, whatever `Connection` names.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from visa_jupyter_proxy.errors import (
    BadRequest,
    ExpectationFailed,
    HeadTooLarge,
    InstanceInvalid,
    MethodNotAllowed,
    NotImplementedHere,
    ProxyError,
    TargetTooLong,
    VersionNotSupported,
)
from visa_jupyter_proxy.worker.lines import TOKEN, Lines, Named, Sorter, name_of


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

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110 7.6.1, and those of RFC 2616 13.5.1 that still occur."""

_FRAMING: Final = frozenset({b"content-length"})
_IDENTITY: Final = frozenset(
    {b"host", b"authorization", b"cookie", b"forwarded", b"x-real-ip", b"x-request-id", b"x-scheme"}
)
"""Tornado, and so Jupyter, believes X-Scheme before the X-Forwarded-Proto that we write (case 87)."""
REQUEST_SPECIAL: Final = HOP_BY_HOP | _FRAMING | _IDENTITY
"""Request fields that are never forwarded as they came (and all that begin with `x-forwarded-`)."""

_ABOUT_THE_CONNECTION: Final = frozenset({b"close", b"keep-alive", b"upgrade"})
"""Options of `Connection` that name no field, or one that is special anyway."""

_REQUEST_READ: Final = frozenset(
    {
        b"expect",
        b"origin",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"service-worker",
        b"user-agent",
    }
)
"""Request fields that are forwarded as they came, and also read here."""

_FOR_THE_SITE: Final = frozenset(
    {
        b"alt-svc",  # RFC 7838 2
        b"clear-site-data",  # signs the user out of VISA
        b"nel",
        b"report-to",  # with `nel`, has browsers report every request to the site
        b"secure-session-registration",  # has browsers hold back the site's requests (W3C, DBSC)
        b"service-worker-allowed",
        b"strict-transport-security",  # RFC 6797 5
    }
)
"""Response fields that speak for a whole site, which is VISA's and not the instance's."""

_FOR_THE_FRONT_PROXY: Final = frozenset({b"x-accel-redirect", b"x-lighttpd-send-file", b"x-sendfile"})
"""Response fields at which nginx, lighttpd and Apache serve files and `internal` locations of their own."""

_REWRITTEN: Final = frozenset({b"set-cookie", b"location", b"content-location", b"x-request-id"})

RESPONSE_SPECIAL: Final = HOP_BY_HOP | _FRAMING | _FOR_THE_SITE | _FOR_THE_FRONT_PROXY | _REWRITTEN
"""Response fields that are never forwarded as they came."""
_RESPONSE_READ: Final = frozenset({b"date", b"sec-websocket-accept"})

_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/1\.([01])\r\n")
_FOREIGN_VERSION: Final = re.compile(TOKEN + rb" [!-~]+ HTTP/[0-9]\.[0-9]\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n]*))?\r\n")
_ABSOLUTE_FORM: Final = re.compile(rb"(?i)https?://([^/?]+)(.*)", re.DOTALL)
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~%!$&'()*+;=-]+)(?::[0-9]*)?")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_KEEP_ALIVE: Final = re.compile(rb"(timeout|max)[ \t]*=[ \t]*([0-9]{1,9})")
_UNPRINTABLE: Final = re.compile(rb"[^\t -~\x80-\xff]")


class _Head:
    """What the two kinds of message share: sorted fields, and what `Connection` says."""

    __slots__ = ("chunked", "connection", "keep_alive", "length", "lines", "minor", "special")

    minor: int
    """0 for HTTP/1.0, 1 for HTTP/1.1."""
    lines: Lines
    """End-to-end fields in the order and spelling they came in."""
    special: Named
    """What is read, and what is never forwarded as it came."""
    length: int | None
    """Content-Length."""
    chunked: bool
    connection: frozenset[bytes]
    """The lower-case options of all `Connection` fields."""
    keep_alive: bool
    """Whether the sender allows another message on this connection (RFC 9112 9.3)."""

    def one(self, name: bytes) -> bytes | None:
        """Return the last value of a field that is read, or None."""
        values = self.special.get(name)
        return values[-1] if values else None


class Request(_Head):
    """A request as it came; it is never modified: the one that is sent is made from it."""

    __slots__ = ("has_body", "host", "method", "target", "websocket")

    method: bytes
    target: bytes
    """Origin form, byte for byte as it came."""
    host: bytes | None
    """None for HTTP/1.0 without one."""
    has_body: bool
    """Whether anything follows the head."""
    websocket: bool
    """Whether it asks for a WebSocket, in a valid way: `framing` sets what `websocket` finds."""

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends the body (RFC 9110 10.1.1)."""
        return b"expect" in self.special and self.minor == 1

    def __repr__(self) -> str:
        # The query may hold a secret (contract section 4).
        return f"Request({self.method!r}, {self.target.partition(b'?')[0]!r})"


class Response(_Head):
    """A response of an instance as it came."""

    __slots__ = ("reason", "status")

    status: int
    reason: bytes
    """Without anything that may not stand in a status line."""

    def __repr__(self) -> str:
        return f"Response({self.status})"


_request_lines: Final = Sorter(REQUEST_SPECIAL, _REQUEST_READ, BadRequest, aliases=False)
_response_lines: Final = Sorter(RESPONSE_SPECIAL, _RESPONSE_READ, InstanceInvalid, aliases=True)


def parse_request(head: bytes, limits: HeadLimits = DEFAULT_LIMITS) -> Request:
    """Parse a complete head, the empty line included.

    Raises `BadRequest` and its more exact siblings of `errors`; nothing else.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise _bad_request_line(head)
    request = Request()
    method, target, minor = line.groups()
    if line.end() > limits.line_bytes:
        raise TargetTooLong("request line too long")
    if len(method) > LONGEST_METHOD:
        raise NotImplementedHere("method too long")
    lines = _lines_behind(head, line.end())
    if len(lines) > limits.fields:
        raise HeadTooLarge("too many fields")
    request.method, request.minor = method, int(minor)
    _take(request, *_request_lines.sort(lines), BadRequest)
    request.has_body = request.chunked or bool(request.length)
    request.host = _host(request)
    request.target = _origin_form(target, request.host)
    _check_request(request)
    return request


def parse_response(head: bytes) -> Response:
    """Parse a complete head of a response, the empty line included. Raises `InstanceInvalid`."""
    line = _STATUS_LINE.match(head)
    if line is None:
        raise InstanceInvalid("bad status line")
    response = Response()
    minor, status, reason = line.groups()
    lines = _lines_behind(head, line.end())
    if len(lines) > DEFAULT_LIMITS.fields:
        raise InstanceInvalid("too many fields")
    response.minor, response.status = int(minor), int(status)
    response.reason = _UNPRINTABLE.sub(b" ", reason or b"")
    _take(response, *_response_lines.sort(lines), InstanceInvalid)
    return response


def _lines_behind(head: bytes, start_line_end: int) -> list[bytes]:
    """Return the field lines without their line ends; the first empty line is the end of `head`."""
    return head[start_line_end:-4].split(b"\r\n") if start_line_end < len(head) - 2 else []


def _take(head: _Head, lines: Lines, special: Named, invalid: type[ProxyError]) -> None:
    """Fill in what the fields say of the message and of its connection."""
    head.special = special
    head.connection = _connection_options(special.get(b"connection"))
    head.lines = _end_to_end(lines, head.connection)
    head.length = _content_length(special.get(b"content-length"), invalid)
    head.chunked = _is_chunked(head, invalid)
    if head.minor == 1:
        head.keep_alive = b"close" not in head.connection
    else:
        head.keep_alive = b"keep-alive" in head.connection and b"close" not in head.connection


def _connection_options(values: list[bytes] | None) -> frozenset[bytes]:
    if values is None:
        return frozenset()
    return _option_set(values[0]) if len(values) == 1 else frozenset(options(values))


@lru_cache(maxsize=64)
def _option_set(value: bytes) -> frozenset[bytes]:
    return frozenset(options([value]))


def _end_to_end(lines: Lines, connection: frozenset[bytes]) -> Lines:
    """Drop what `Connection` names (RFC 9110 7.6.1): framing and identity fields are out of its reach."""
    named = connection - _ABOUT_THE_CONNECTION
    return [line for line in lines if name_of(line) not in named] if named else lines


def _content_length(values: list[bytes] | None, invalid: type[ProxyError]) -> int | None:
    if values is None:
        return None
    # Equal repetitions might be collapsed (RFC 9112 6.3); refusing them is simpler to be sure of.
    if len(values) > 1 or not _LENGTH.fullmatch(values[0]):
        raise invalid("bad Content-Length")
    return int(values[0])


def _is_chunked(head: _Head, invalid: type[ProxyError]) -> bool:
    values = head.special.get(b"transfer-encoding")
    if values is None:
        return False
    if head.minor == 0 or head.length is not None:
        raise invalid("Transfer-Encoding where none may be")
    if len(values) > 1 or values[0].lower() != b"chunked":
        codings = [coding.strip(b" \t").lower() for value in values for coding in value.split(b",")]
        # Without `chunked` at its end, and only there, nobody knows where the body ends (RFC 9112 6.3, 4).
        if invalid is BadRequest and b"chunked" not in codings[:-1] and codings[-1] == b"chunked":
            raise NotImplementedHere("unknown Transfer-Encoding")
        raise invalid("bad Transfer-Encoding")
    return True


def _bad_request_line(head: bytes) -> ProxyError:
    if _FOREIGN_VERSION.match(head) and b" HTTP/1." not in head[: head.index(b"\r\n")]:
        return VersionNotSupported("not HTTP/1")
    return BadRequest("bad request line")


def _host(request: Request) -> bytes | None:
    values = request.special.get(b"host")
    if values is None and request.minor == 0:
        return None
    if values is None or len(values) > 1 or not _HOST.fullmatch(values[0]):
        raise BadRequest("bad Host")
    return values[0]


def _origin_form(target: bytes, host: bytes | None) -> bytes:
    """Return the target in origin form (RFC 9112 3.2)."""
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE_FORM.fullmatch(target)
        # The target wins over Host (3.2.2); two names in one request are an attempt at something.
        if absolute is None or host is None or absolute[1].lower() != host.lower():
            raise BadRequest("bad target")
        target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    if b"#" in target:
        raise BadRequest("fragment in target")
    return target


def _check_request(request: Request) -> None:
    if request.method in (b"CONNECT", b"TRACE"):
        raise MethodNotAllowed("CONNECT or TRACE")
    if len(request.special.get(b"authorization", ())) > 1:
        raise BadRequest("several Authorization fields")
    expect = request.special.get(b"expect")
    if expect is not None and (len(expect) > 1 or expect[0].lower() != b"100-continue"):
        raise ExpectationFailed("unknown expectation")


def keep_alive_limits(response: Response) -> dict[bytes, int]:
    """Return what `Keep-Alive` says (RFC 2068 19.7.1.1): `timeout` in seconds, `max` further requests."""
    found = map(_KEEP_ALIVE.fullmatch, options(response.special.get(b"keep-alive")))
    return {limit[1]: int(limit[2]) for limit in found if limit}


def options(values: Iterable[bytes] | None) -> list[bytes]:
    """Split comma-separated lists (RFC 9110 5.6.1) into lower-case elements."""
    if values is None:
        return []
    found = (item.strip(b" \t").lower() for value in values for item in value.split(b","))
    return [item for item in found if item]


def request_head(method: bytes, target: bytes, lines: Lines) -> bytes:
    """Compose the head of a request to an instance."""
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, b"".join(lines))


def response_head(status: int, reason: bytes, lines: Lines) -> bytes:
    """Compose the head of a response; we speak HTTP/1.1 whatever the client does (RFC 9110 2.5)."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, b"".join(lines))
