"""HTTP/1.1 heads: bytes to messages and back (RFC 9112). The only module that imports httptools.

Two rules:

1. A head is parsed when it is complete, in one go: `parse_request` and `parse_response` are functions
   of bytes. `framing` finds where a head ends and reads the body behind it.
2. A field is sorted once, while it is parsed. What may be forwarded as it came goes to `fields`;
   hop-by-hop, framing, identity and forwarding fields go to `special`, from which nothing is
   forwarded by accident, whatever `Connection` names.

The start line is matched here, byte by byte: llhttp accepts two spaces, RTSP/1.0 and HTTP/0.9, and
refuses methods that it does not know. llhttp parses the fields.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import httptools

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

type Fields = list[tuple[bytes, bytes]]


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
_FORWARDED: Final = b"x-forwarded-"

REQUEST_SPECIAL: Final = HOP_BY_HOP | _FRAMING | _IDENTITY
"""Request fields that are never forwarded as they came (and all that begin with `x-forwarded-`)."""

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
        b"service-worker-allowed",
        b"strict-transport-security",  # RFC 6797 5
    }
)
"""Response fields that speak for a whole site, which is VISA's and not the instance's."""

RESPONSE_SPECIAL: Final = (
    HOP_BY_HOP | _FRAMING | _FOR_THE_SITE | {b"set-cookie", b"location", b"content-location", b"x-request-id"}
)
"""Response fields that are never forwarded as they came."""
_RESPONSE_READ: Final = frozenset({b"date", b"sec-websocket-accept"})

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/1\.([01])\r\n")
_FOREIGN_VERSION: Final = re.compile(_TOKEN + rb" [!-~]+ HTTP/[0-9]\.[0-9]\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([^\r\n]*))?\r\n")
_ABSOLUTE_FORM: Final = re.compile(rb"(?i)https?://([^/?]+)(.*)", re.DOTALL)
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~%!$&'()*+;=-]+)(?::[0-9]*)?")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_KEEP_ALIVE: Final = re.compile(rb"(timeout|max)[ \t]*=[ \t]*([0-9]{1,9})")
_UNPRINTABLE: Final = re.compile(rb"[^\t -~\x80-\xff]")


class _Head:
    """What the two kinds of message share: sorted fields, and what `Connection` says."""

    __slots__ = ("chunked", "connection", "fields", "keep_alive", "length", "minor", "special")

    minor: int
    """0 for HTTP/1.0, 1 for HTTP/1.1."""
    fields: Fields
    """End-to-end fields in the order and spelling they came in."""
    special: dict[bytes, list[bytes]]
    """Lower-case name -> values in order: what is read, and what is never forwarded as it came."""
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

    __slots__ = ("host", "method", "target", "websocket")

    method: bytes
    target: bytes
    """Origin form, byte for byte as it came."""
    host: bytes | None
    """None for HTTP/1.0 without one."""
    websocket: bool
    """Whether it asks for a WebSocket, in a valid way: `framing` sets what `websocket` finds."""

    @property
    def has_body(self) -> bool:
        """Whether anything follows the head."""
        return self.chunked or bool(self.length)

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


class _Fields:
    """llhttp's callbacks: sorts each field once."""

    __slots__ = ("fields", "forwarded", "named", "read", "special")

    def __init__(self, special: frozenset[bytes], read: frozenset[bytes]) -> None:
        self.special = special
        self.read = read
        self.fields: Fields = []
        self.named: dict[bytes, list[bytes]] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if value[-1:] in b" \t":  # llhttp leaves what follows the value (RFC 9110 5.5); also true of b""
            value = value.rstrip(b" \t")
        key = name.lower()
        if key in self.special or key.startswith(_FORWARDED):
            self.named.setdefault(key, []).append(value)
            return
        if key in self.read:
            self.named.setdefault(key, []).append(value)
        self.fields.append((name, value))


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
    fields = _Fields(REQUEST_SPECIAL, _REQUEST_READ)
    # The method is matched above; llhttp would refuse those it does not know (case 239).
    parser = httptools.HttpRequestParser(fields)
    _parse_fields(parser, b"GET / HTTP/1.1\r\n", head[line.end() :], BadRequest)
    request.method, request.minor = method, int(minor)
    _take(request, fields, BadRequest, limits.fields)
    _refuse_aliases(fields.fields)
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
    fields = _Fields(RESPONSE_SPECIAL, _RESPONSE_READ)
    # A status with a meaning of its own (101, 204) would end llhttp's reading: the fields are the same.
    parser = httptools.HttpResponseParser(fields)
    _parse_fields(parser, b"HTTP/1.1 200 OK\r\n", head[line.end() :], InstanceInvalid)
    response.minor, response.status = int(minor), int(status)
    response.reason = _UNPRINTABLE.sub(b" ", reason or b"")
    _take(response, fields, InstanceInvalid, DEFAULT_LIMITS.fields)
    return response


def _parse_fields(
    parser: "httptools.HttpRequestParser | httptools.HttpResponseParser",
    start_line: bytes,
    fields: bytes,
    invalid: type[ProxyError],
) -> None:
    try:
        parser.feed_data(start_line + fields)
    except httptools.HttpParserUpgrade:
        pass  # Stops behind the head, where we stop anyway.
    except httptools.HttpParserError as error:
        # llhttp's own fixed words: nothing of the message is in them.
        raise invalid(str(error)) from None


def _take(head: _Head, fields: _Fields, invalid: type[ProxyError], most_fields: int) -> None:
    """Fill in what the fields say of the message and of its connection."""
    special = head.special = fields.named
    if len(fields.fields) + sum(map(len, special.values())) > most_fields:
        raise HeadTooLarge("too many fields") if invalid is BadRequest else invalid("too many fields")
    head.connection = frozenset(options(special.get(b"connection")))
    head.fields = _end_to_end(fields.fields, head.connection)
    head.length = _content_length(special.get(b"content-length"), invalid)
    head.chunked = _is_chunked(head, invalid)
    if head.minor == 1:
        head.keep_alive = b"close" not in head.connection
    else:
        head.keep_alive = b"keep-alive" in head.connection and b"close" not in head.connection


def _end_to_end(fields: Fields, connection: frozenset[bytes]) -> Fields:
    """Drop what `Connection` names (RFC 9110 7.6.1): framing and identity fields are out of its reach."""
    named = connection - {b"close", b"keep-alive", b"upgrade"}
    return [field for field in fields if field[0].lower() not in named] if named else fields


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
        raise NotImplementedHere("unknown Transfer-Encoding") if invalid is BadRequest else invalid("coding")
    return True


def _bad_request_line(head: bytes) -> ProxyError:
    if _FOREIGN_VERSION.match(head) and b" HTTP/1." not in head[: head.index(b"\r\n")]:
        return VersionNotSupported("not HTTP/1")
    return BadRequest("bad request line")


def _refuse_aliases(fields: Fields) -> None:
    """Refuse names that an application behind us may take for a field that we vouch for (case 30)."""
    for name, _ in fields:
        if b"_" in name or b"." in name:
            alias = name.lower().replace(b"_", b"-").replace(b".", b"-")
            if alias in REQUEST_SPECIAL or alias.startswith(_FORWARDED):
                raise BadRequest("a field name that imitates another")


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


def request_head(method: bytes, target: bytes, fields: Fields) -> bytes:
    """Compose the head of a request to an instance."""
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, _lines(fields))


def response_head(status: int, reason: bytes, fields: Fields) -> bytes:
    """Compose the head of a response; we speak HTTP/1.1 whatever the client does (RFC 9110 2.5)."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, _lines(fields))


def _lines(fields: Fields) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])
