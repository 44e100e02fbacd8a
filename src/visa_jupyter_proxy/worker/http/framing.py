"""Where one message ends and the next begins (RFC 9112 6 and 7).

A reader is fed what arrived, in any pieces, and calls its sink in order: a head, the body in pieces,
the end. It stops at the end of a message: what came behind it waits in the reader until `proceed`,
so that pipelined requests are never parsed before their turn, and the bytes behind an upgrade are
just there.
"""

import re
from typing import Final, Protocol

from visa_jupyter_proxy.errors import BadRequest, HeadTooLarge, InstanceInvalid, TargetTooLong
from visa_jupyter_proxy.worker.http.bodies import Body, ChunkedBody, LengthBody, Piece, UntilClose
from visa_jupyter_proxy.worker.http.http1 import (
    DEFAULT_LIMITS,
    HeadLimits,
    Request,
    Response,
    parse_again,
    parse_request,
    parse_response,
)
from visa_jupyter_proxy.worker.http.lines import Fields
from visa_jupyter_proxy.worker.http.sections import RequestSection
from visa_jupyter_proxy.worker.http.websocket import asks_for_websocket

LARGEST_RESPONSE_HEAD: Final = 64 * 1024
"""HAProxy reads 16 KiB, nginx 4 or 8 KiB, Node's client 16 KiB; policies in JupyterLab fields are long."""

_MOST_INFORMATIONAL: Final = 16
"""1xx responses before a final one; HAProxy and Go stop at a handful."""

_LONG: Final = 16 * 1024
"""Bytes behind a head that are rather looked at than copied: of a 64 KiB answer that saves 5 us."""

_MANY_PIECES: Final = 1000
"""Chunks in one read, which may have a hundred thousand: a millisecond's work."""

_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_BARE_LINE_END: Final = rb"(?<!\r)\n|\r(?!\n)(?=.)"
_NEVER_IN_A_REQUEST: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|" + _BARE_LINE_END, re.DOTALL)
_NEVER_IN_A_RESPONSE: Final = re.compile(_BARE_LINE_END, re.DOTALL)
"""A reason phrase may hold anything else: it is cleaned when it is read (case 182)."""


class _HeadReader:
    """Collects a head until its empty line."""

    __slots__ = ("_collected",)

    _collected: bytes
    """What has come of a head that is not complete."""

    def _take(self, data: bytes, limit: int, never: re.Pattern[bytes]) -> tuple[bytes, Piece] | None:
        """Return head and rest when the head is complete. Raises `HeadTooLarge` past the limit.

        `never` finds what shows that no head will come of it.
        """
        collected = self._collected
        if not collected and 0 <= (end := data.find(b"\r\n\r\n")) <= limit:
            end += 4  # all of it in one read, as nearly always
            return data[:end], data[end:] if len(data) - end < _LONG else memoryview(data)[end:]
        scanned = max(0, len(collected) - 3)
        data = self._collected = collected + data if collected else data
        end = data.find(b"\r\n\r\n", scanned)
        # Without an end, the last three bytes may be the beginning of one.
        if (end if end >= 0 else len(data) - 3) > limit:
            raise HeadTooLarge("head too large") if b"\r\n" in data[:limit] else TargetTooLong("no end")
        if end < 0:
            # What can never become a head is refused now, not at the deadline.
            if never.search(data, scanned):
                raise BadRequest("no HTTP")
            return None
        self._collected = b""
        return data[: end + 4], data[end + 4 :]


class RequestSink(Protocol):
    """Whom a `RequestReader` tells. None of these may feed the reader."""

    def request_received(self, request: Request) -> None:
        """Take a head."""

    def body_received(self, payload: Piece) -> None:
        """Take a piece of the body; never empty."""

    def request_ended(self, trailers: Fields) -> None:
        """Know that a message with a body is complete; any other is with its head."""


class RequestReader(_HeadReader):
    """Reads requests from what a client sends."""

    __slots__ = ("_body", "_limits", "_pieces", "_section", "_sink", "ended", "leftover")

    def __init__(self, sink: RequestSink, limits: HeadLimits = DEFAULT_LIMITS) -> None:
        self._sink = sink
        self._limits = limits
        self._collected = b""
        self._body: Body | None = None
        self._section: RequestSection | None = None
        """The fields of the last request: the next one has the same, mostly."""
        self._pieces = 0
        self.ended = False
        """Whether a message has been read to its end, and `proceed` is due."""
        self.leftover = b""
        """What came behind the message that has ended."""

    @property
    def is_between_messages(self) -> bool:
        """Whether nothing of the next head has arrived."""
        return not self._collected and self._body is None and not self.ended

    @property
    def has_been_read(self) -> bool:
        """Whether the last read was one whole message without a body, and nothing else."""
        return self.ended and not (self.leftover or self._pieces)

    @property
    def is_in_head(self) -> bool:
        """Whether a head has begun to arrive, and is not complete."""
        return bool(self._collected)

    @property
    def head_so_far(self) -> bytes:
        """What has come of a head that is not complete, or too large."""
        return self._collected

    @property
    def is_laborious(self) -> bool:
        """Whether taking the last read apart took so long that others should have their turn now."""
        return self._pieces > _MANY_PIECES

    def feed(self, data: bytes) -> None:
        """Take what arrived. Raises `ProxyError` for what is no request: nothing can be read after that."""
        self._pieces = 0
        if self.ended:
            self.leftover += data
        elif self._body is not None:
            self._read_body(self._body, data)
        else:
            self._read_head(data)

    @property
    def remaining(self) -> int:
        """Bytes to come that are the body's whatever they are; 0 in a head, and between chunks."""
        return self._body.remaining if self._body is not None else 0

    def skip(self, count: int) -> None:
        """Know that so many bytes of the body, at most `remaining`, have gone by without being fed."""
        if self._body is not None:
            self._body.remaining -= count
            if not self._body.remaining:
                self._end(b"", ())

    def proceed(self) -> None:
        """Go on behind the message that has ended."""
        data, self.leftover, self.ended = self.leftover, b"", False
        if data:
            self.feed(data)

    def _read_head(self, data: bytes) -> None:
        section = self._section
        rest: Piece = b""
        request = parse_again(data, section, self._limits) if section and not self._collected else None
        if request is None:
            data = self._without_empty_lines(data)
            taken = self._take(data, self._limits.head_bytes, _NEVER_IN_A_REQUEST) if data else None
            if taken is None:
                return
            request, rest = parse_request(taken[0], self._limits), taken[1]
            self._section = request.section if request.section.block else None
        if b"upgrade" in request.connection:
            request.websocket = asks_for_websocket(request)
        if request.chunked:
            self._body = ChunkedBody(BadRequest)
        elif request.length:
            self._body = LengthBody(request.length)
        self._sink.request_received(request)
        if self._body is None:
            self.ended, self.leftover = True, bytes(rest)
        elif rest:
            self._read_body(self._body, rest)

    def _without_empty_lines(self, data: bytes) -> bytes:
        """Skip those that may stand before a request (RFC 9112 2.2)."""
        if self._collected == b"\r":
            self._collected, data = b"", b"\r" + data
        if self._collected or data[:1] != b"\r":
            return data
        lines = _EMPTY_LINES.match(data)
        return data[lines.end() :] if lines is not None else data

    def _read_body(self, body: Body, data: Piece) -> None:
        payload, rest = body.decode(data)
        self._pieces = body.pieces
        if payload:
            self._sink.body_received(payload)
        if rest is not None:
            self._end(rest, body.trailers)

    def _end(self, rest: bytes, trailers: Fields) -> None:
        self._body, self.ended, self.leftover = None, True, rest
        self._sink.request_ended(trailers)


class ResponseSink(Protocol):
    """Whom a `ResponseReader` tells."""

    def response_received(self, response: Response) -> None:
        """Take a head: any number of 1xx, then one other."""

    def response_body_received(self, payload: Piece) -> None:
        """Take a piece of the body; never empty."""

    def response_ended(self, trailers: Fields) -> None:
        """Know that the message is complete."""


class ResponseReader(_HeadReader):
    """Reads the response to one request from what an instance sends; make a new one for the next."""

    __slots__ = (
        "_body",
        "_informational",
        "_method",
        "_pieces",
        "_sink",
        "ended",
        "leftover",
        "started",
    )

    def __init__(self, sink: ResponseSink, method: bytes) -> None:
        self._sink = sink
        self._method = method
        self._collected = b""
        self._body: Body | None = None
        self._informational = 0
        self._pieces = 0
        self.started = False
        """Whether anything has arrived."""
        self.ended = False
        self.leftover = b""
        """What came behind the response: the first bytes of a tunnel, or what nobody asked for."""

    @property
    def head_so_far(self) -> bytes:
        """What has come of a head that is not complete, or too large."""
        return self._collected

    @property
    def is_laborious(self) -> bool:
        """Whether taking the last read apart took so long that others should have their turn now."""
        return self._pieces > _MANY_PIECES

    def feed(self, data: bytes) -> None:
        """Take what arrived. Raises `InstanceInvalid`: nothing can be read after that."""
        self.started = True
        self._pieces = 0
        rest: Piece = data
        while rest and not self.ended:
            rest = self._read_head(bytes(rest)) if self._body is None else self._read_body(self._body, rest)
        if rest:
            self.leftover += rest

    @property
    def remaining(self) -> int:
        """Bytes to come that are the body's whatever they are; 0 in a head, and between chunks."""
        return self._body.remaining if self._body is not None else 0

    def skip(self, count: int) -> None:
        """Know that so many bytes of the body, at most `remaining`, have gone by without being fed."""
        if self._body is not None:
            self._body.remaining -= count
            if not self._body.remaining:
                self._end(())

    def end(self) -> bool:
        """Take the end of the connection: True when the response is complete with it."""
        if self.ended:
            return True
        if self._body is None or not self._body.end():
            return False
        self._end(())
        return True

    def _read_head(self, data: bytes) -> Piece:
        try:
            taken = self._take(data, LARGEST_RESPONSE_HEAD, _NEVER_IN_A_RESPONSE)
        except (HeadTooLarge, TargetTooLong, BadRequest) as error:
            raise InstanceInvalid(str(error)) from None
        if taken is None:
            return b""
        head, rest = taken
        response = parse_response(head)
        informational = 100 <= response.status < 200 and response.status != 101
        if informational:
            self._informational += 1
            if self._informational > _MOST_INFORMATIONAL:
                raise InstanceInvalid("too many 1xx responses")
        else:
            self._body = self._framing(response)
        self._sink.response_received(response)
        if not informational and self._body is None:
            self._end(())
        return rest

    def _framing(self, response: Response) -> Body | None:
        """RFC 9112 6.3."""
        if self._method == b"HEAD" or response.status in (101, 204, 304):
            return None
        if response.chunked:
            return ChunkedBody(InstanceInvalid)
        if response.length is None:
            return UntilClose()
        return LengthBody(response.length) if response.length else None

    def _read_body(self, body: Body, data: Piece) -> bytes:
        payload, rest = body.decode(data)
        self._pieces = body.pieces
        if payload:
            self._sink.response_body_received(payload)
        if rest is None:
            return b""
        self._end(body.trailers)
        return rest

    def _end(self, trailers: Fields) -> None:
        self.ended = True
        self._sink.response_ended(trailers)
