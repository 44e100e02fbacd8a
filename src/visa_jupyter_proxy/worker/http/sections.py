"""Field sections (RFC 9110 5): what the fields of a head say together.

A field is sorted once. What may be forwarded as it came goes to `lines`; hop-by-hop, framing, identity
and forwarding fields go to `special`, from which nothing is forwarded by accident, whatever
`Connection` names.

The section of a request is kept for the next one that has the very same (all that a page asks for
again and again, on any of a browser's connections): that costs a twentieth of reading it. A WebSocket's
has a key of its own each time, and is otherwise the same: it is kept without the key.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from visa_jupyter_proxy.errors import (
    BadRequest,
    ExpectationFailed,
    HeadTooLarge,
    InstanceInvalid,
    NotImplementedHere,
    ProxyError,
)
from visa_jupyter_proxy.worker.http.credentials import Credentials
from visa_jupyter_proxy.worker.http.lines import Lines, Named, Sorter, name_of

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
"""Request fields that are never forwarded as they came (and all of `FORWARDED`)."""
FORWARDED: Final = b"x-forwarded-"

_ABOUT_THE_CONNECTION: Final = frozenset({b"close", b"keep-alive", b"upgrade"})
"""Options of `Connection` that name no field, or one that is special anyway."""
_NO_OPTIONS: Final[tuple[frozenset[bytes], frozenset[bytes]]] = (frozenset(), frozenset())

_REQUEST_READ: Final = frozenset(
    {
        b"expect",
        b"origin",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"service-worker",
        b"user-agent",
        b"x-visa-poll",
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

_FOR_THE_FRONT_PROXY: Final = frozenset(
    {
        b"x-lighttpd-send-file",
        b"x-lighttpd-send-tempfile",  # and deletes it
        b"x-reproxy-url",  # Perlbal, and modules for Apache
        b"x-sendfile",
        b"x-sendfile2",
    }
)
"""Response fields at which lighttpd, Apache and others serve files of their own, or fetch from anywhere."""
NGINX_COMMANDS: Final = b"x-accel-"
"""nginx serves `internal` locations of its own, caches and slows down as such fields say."""

_REWRITTEN: Final = frozenset({b"set-cookie", b"location", b"content-location", b"x-request-id"})

RESPONSE_SPECIAL: Final = HOP_BY_HOP | _FRAMING | _FOR_THE_SITE | _FOR_THE_FRONT_PROXY | _REWRITTEN
"""Response fields that are never forwarded as they came (and all of `FORWARDED` and `NGINX_COMMANDS`)."""
_RESPONSE_READ: Final = frozenset(
    {
        b"date",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"x-accel-buffering",  # about this one response, and event streams need it
    }
)

_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~%!$&'()*+;=-]+)(?::[0-9]*)?")
_MOST_DIGITS: Final = 18
"""Of a Content-Length: an exabyte less one."""

_KEY_LINE_BEGINS: Final = b"\r\nSec-WebSocket-Key: "
_KEY_LINE: Final = re.compile(_KEY_LINE_BEGINS + rb"([0-9A-Za-z+/]{22}==)(?=\r\n)")
"""As every browser spells it; a key that is spelled otherwise stays among the fields."""

LONGEST_KEPT: Final = 4096
"""Bytes of a section; a browser's with a token has 2 KiB."""
MOST_KEPT: Final = 256
"""Sections of requests, and heads of responses: at most about 2 MiB each. Beyond that, all are forgotten."""


class Section:
    """The fields of one head, or of many that have the same; it is never modified."""

    __slots__ = ("chunked", "connection", "count", "length", "lines", "special")

    count: int
    """Of field lines."""
    lines: Lines
    """End-to-end fields in the order and spelling they came in."""
    special: Named
    """What is read, and what is never forwarded as it came."""
    connection: frozenset[bytes]
    """The lower-case options of all `Connection` fields."""
    length: int | None
    """Content-Length."""
    chunked: bool

    def __init__(self, block: bytes, sorter: Sorter, invalid: type[ProxyError]) -> None:
        """Read `block`: field lines, each with its CRLF, and the empty line behind them."""
        lines = block[:-4].split(b"\r\n") if len(block) > 2 else []
        self.count = len(lines)
        sent, special = sorter.sort(lines)
        self.special = special
        self.connection, named = _connection(special.get(b"connection"))
        # RFC 9110 7.6.1; framing and identity fields are out of its reach.
        self.lines = [line for line in sent if name_of(line) not in named] if named else sent
        length = special.get(b"content-length")
        self.length = None if length is None else _content_length(length, invalid)
        self.chunked = b"transfer-encoding" in special and _is_chunked(self, invalid)


class RequestSection(Section):
    """The fields of requests."""

    __slots__ = ("block", "client", "credentials", "host", "passing")

    block: bytes
    """What it was made of; empty for one that is too long to be kept."""
    host: bytes | None
    """None without one."""
    client: object
    """What `forwarded` has made of it last, kept with it for the next request; None for nothing yet."""
    passing: object
    """What `fields` has made of it last, likewise."""

    def __init__(self, block: bytes) -> None:
        """Read `block`. Raises `BadRequest` and its siblings."""
        super().__init__(block, _request_lines, BadRequest)
        self.block = block if len(block) <= LONGEST_KEPT else b""
        self.client = self.passing = None
        special = self.special
        self.host = _host(special.get(b"host"))
        self.credentials = Credentials(special.get(b"authorization", ()), special.get(b"cookie", ()))
        if len(special.get(b"authorization", ())) > 1:
            raise BadRequest("several Authorization fields")
        expect = special.get(b"expect")
        if expect is not None and (len(expect) > 1 or expect[0].lower() != b"100-continue"):
            raise ExpectationFailed("unknown expectation")


class ResponseSection(Section):
    """The fields of responses."""

    __slots__ = ("is_dated", "length_line", "passing")

    passing: bytes
    """All of `lines`."""
    length_line: bytes
    """`Content-Length` in our own words; empty without one."""
    is_dated: bool
    """Whether the date is among `lines`."""

    def __init__(self, block: bytes) -> None:
        """Read `block`. Raises `InstanceInvalid`."""
        super().__init__(block, _response_lines, InstanceInvalid)
        self.passing = b"".join(self.lines)
        self.length_line = b"" if self.length is None else b"Content-Length: %d\r\n" % self.length
        self.is_dated = b"date" in self.special and b"date" not in self.connection


_request_lines: Final = Sorter(
    REQUEST_SPECIAL, _REQUEST_READ, BadRequest, families=(FORWARDED,), aliases=False
)
_response_lines: Final = Sorter(
    RESPONSE_SPECIAL, _RESPONSE_READ, InstanceInvalid, families=(FORWARDED, NGINX_COMMANDS), aliases=True
)
_kept: Final[dict[bytes, RequestSection]] = {}


def request_section(block: bytes, most: int) -> tuple[RequestSection, bytes | None]:
    """Read the fields of a request, and `Sec-WebSocket-Key` apart from them, where it can be taken out.

    Raises `BadRequest` and its siblings; `HeadTooLarge` when there are more than `most` to be read anew.
    """
    rest, key = taken_out(block, _KEY_LINE_BEGINS, _KEY_LINE)
    return _kept_section(rest, most), key


def has_more_fields(block: bytes, most: int) -> bool:
    """Whether it has more lines than that, without reading them: 32 KiB may have 8 000, which takes 7 ms."""
    return block.count(b"\r\n") - 1 > most


def taken_out(block: bytes, begins: bytes, line: re.Pattern[bytes]) -> tuple[bytes, bytes | None]:
    """Return a block without a line, which must not be its first, and the value of that line.

    `line` matches it from the CRLF before it, `begins` is how it begins, and is found faster.
    """
    at = block.find(begins)
    found = line.match(block, at) if at >= 0 else None
    return (block, None) if found is None else (block[:at] + block[found.end() :], found[1])


def _kept_section(block: bytes, most: int) -> RequestSection:
    section = _kept.get(block)
    if section is None:
        if has_more_fields(block, most):
            raise HeadTooLarge("too many fields")
        section = RequestSection(block)
        if section.block:
            if len(_kept) >= MOST_KEPT:
                _kept.clear()
            _kept[block] = section
    return section


def _connection(values: list[bytes] | None) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """Return the options of `Connection`, and which of them name fields that go no further."""
    if values is None:
        return _NO_OPTIONS
    return _options_of(values[0]) if len(values) == 1 else _sorted_out(frozenset(options(values)))


@lru_cache(maxsize=64)
def _options_of(value: bytes) -> tuple[frozenset[bytes], frozenset[bytes]]:
    return _sorted_out(frozenset(options([value])))


def _sorted_out(found: frozenset[bytes]) -> tuple[frozenset[bytes], frozenset[bytes]]:
    return found, found - _ABOUT_THE_CONNECTION


def _content_length(values: list[bytes], invalid: type[ProxyError]) -> int:
    # Equal repetitions might be collapsed (RFC 9112 6.3); refusing them is simpler to be sure of.
    value = values[0]
    if len(values) > 1 or not value.isdigit() or len(value) > _MOST_DIGITS:
        raise invalid("bad Content-Length")
    return int(value)


def _is_chunked(section: Section, invalid: type[ProxyError]) -> bool:
    values = section.special[b"transfer-encoding"]
    if section.length is not None:
        raise invalid("Transfer-Encoding where none may be")
    if len(values) > 1 or values[0].lower() != b"chunked":
        codings = [coding.strip(b" \t").lower() for value in values for coding in value.split(b",")]
        # Without `chunked` at its end, and only there, nobody knows where the body ends (RFC 9112 6.3, 4).
        if invalid is BadRequest and b"chunked" not in codings[:-1] and codings[-1] == b"chunked":
            raise NotImplementedHere("unknown Transfer-Encoding")
        raise invalid("bad Transfer-Encoding")
    return True


def _host(values: list[bytes] | None) -> bytes | None:
    if values is None:
        return None
    if len(values) > 1 or not _HOST.fullmatch(values[0]):
        raise BadRequest("bad Host")
    return values[0]


def options(values: Iterable[bytes] | None) -> list[bytes]:
    """Split comma-separated lists (RFC 9110 5.6.1) into lower-case elements."""
    if values is None:
        return []
    return [item for value in values for part in value.lower().split(b",") if (item := part.strip(b" \t"))]
