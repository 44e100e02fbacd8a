"""Requests out of what a client sends, one after the other (RFC 9112 9.3).

What came behind the end of a request waits until `proceed`, so that pipelined requests are never parsed
before their turn, and the bytes behind an upgrade are just there.
"""

import re
from typing import Final, Protocol, override

from visa_jupyter_proxy.errors import BadRequest
from visa_jupyter_proxy.worker.http.bodies import Body, ChunkedBody, LengthBody, Piece
from visa_jupyter_proxy.worker.http.framing import BARE_LINE_END, MessageReader
from visa_jupyter_proxy.worker.http.lines import Fields
from visa_jupyter_proxy.worker.http.request import (
    DEFAULT_LIMITS,
    HeadLimits,
    Request,
    parse_again,
    parse_request,
)
from visa_jupyter_proxy.worker.http.sections import RequestSection
from visa_jupyter_proxy.worker.http.websocket import asks_for_websocket

_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_NEVER_IN_A_HEAD: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|" + BARE_LINE_END, re.DOTALL)


class RequestSink(Protocol):
    """Whom a `RequestReader` tells. None of these may feed the reader."""

    def request_received(self, request: Request) -> None:
        """Take a head."""

    def body_received(self, payload: Piece) -> None:
        """Take a piece of the body; never empty."""

    def request_ended(self, trailers: Fields) -> None:
        """Know that a message with a body is complete; any other is with its head."""


class RequestReader(MessageReader):
    """Reads requests from what a client sends."""

    __slots__ = ("_limits", "_section", "_sink")

    def __init__(self, sink: RequestSink, limits: HeadLimits = DEFAULT_LIMITS) -> None:
        self._sink = sink
        self._limits = limits
        self._collected = b""
        self._body = None
        self._section: RequestSection | None = None
        """The fields of the last request: the next one has the same, mostly."""
        self._pieces = 0
        self.ended = False
        """Whether `proceed` is due."""
        self.leftover = b""

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

    def feed(self, data: bytes) -> None:
        """Take what arrived, or nothing while it `is_behind`.

        Raises `ProxyError` for what is no request: nothing can be read after that.
        """
        self._pieces = 0
        if self.ended:
            self.leftover += data
        elif self._body is not None:
            self._read_body(self._body, data)
        else:
            self._read_head(data)

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
            taken = self._take(data, self._limits.head_bytes, _NEVER_IN_A_HEAD) if data else None
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
            self.leftover = rest
            self._end(body.trailers)

    @override
    def _end(self, trailers: Fields) -> None:
        self._body, self.ended = None, True
        self._sink.request_ended(trailers)
