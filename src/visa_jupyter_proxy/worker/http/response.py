"""The head of a response: bytes to a `Response` and back (RFC 9112 4).

A head is parsed when it is complete, in one go, as that of a `request` is.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from visa_jupyter_proxy.errors import InstanceInvalid
from visa_jupyter_proxy.worker.http.lines import Lines
from visa_jupyter_proxy.worker.http.message import Message
from visa_jupyter_proxy.worker.http.sections import (
    LONGEST_KEPT,
    MOST_KEPT,
    ResponseSection,
    has_more_fields,
    options,
    taken_out,
)

_MOST_FIELDS: Final = 100
"""As many as of a request, where nothing else is set."""

_ACCEPT: Final = b"sec-websocket-accept"

_NEVER_KEPT: Final = frozenset({b"set-cookie", _ACCEPT})
"""Fields that are for one client, or never the same; a response with one of them is forgotten at once."""

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
_KEEP_ALIVE: Final = re.compile(rb"(timeout|max)[ \t]*=[ \t]*([0-9]{1,9})")
_UNPRINTABLE: Final = re.compile(rb"[^\t -~\x80-\xff]")


class StatusLine(NamedTuple):
    """How a response begins."""

    minor: int
    status: int
    reason: bytes


class Response(Message):
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
    if section.count + (date is not None) + (accept is not None) > _MOST_FIELDS:
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
    block = head[line.end() :]
    if has_more_fields(block, _MOST_FIELDS):
        raise InstanceInvalid("too many fields")
    section = ResponseSection(block)
    if minor == b"0" and section.chunked:
        raise InstanceInvalid("Transfer-Encoding where none may be")
    # Without what may not stand in a reason phrase (case 182).
    read = StatusLine(int(minor), int(status), _UNPRINTABLE.sub(b" ", reason or b"")), section
    if len(head) <= LONGEST_KEPT and _NEVER_KEPT.isdisjoint(section.special):
        if len(_kept) >= MOST_KEPT:
            _kept.clear()
        _kept[head] = read
    return read


def keep_alive_limits(response: Response) -> dict[bytes, int]:
    """Return what `Keep-Alive` says (RFC 2068 19.7.1.1): `timeout` in seconds, `max` further requests."""
    found = map(_KEEP_ALIVE.fullmatch, options(response.special.get(b"keep-alive")))
    return {limit[1]: int(limit[2]) for limit in found if limit}


def response_head(status: int, reason: bytes, lines: Lines) -> bytes:
    """Compose the head of a response; we speak HTTP/1.1 whatever the client does (RFC 9110 2.5)."""
    return b"".join((_start(status, reason), *lines, b"\r\n"))


@lru_cache(maxsize=32)  # bounded: a reason is whatever an instance says
def _start(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)
