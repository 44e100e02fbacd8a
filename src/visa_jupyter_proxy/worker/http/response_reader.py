"""The response to one request, out of what an instance sends."""

import re
from typing import Final, Protocol, override

from visa_jupyter_proxy.errors import BadRequest, HeadTooLarge, InstanceInvalid, TargetTooLong
from visa_jupyter_proxy.worker.http.bodies import Body, ChunkedBody, LengthBody, Piece, UntilClose
from visa_jupyter_proxy.worker.http.framing import BARE_LINE_END, MessageReader
from visa_jupyter_proxy.worker.http.lines import Fields
from visa_jupyter_proxy.worker.http.response import Response, parse_response

LARGEST_RESPONSE_HEAD: Final = 64 * 1024
"""HAProxy reads 16 KiB, nginx 4 or 8 KiB, Node's client 16 KiB; policies in JupyterLab fields are long."""

_MOST_INFORMATIONAL: Final = 16
"""1xx responses before a final one; HAProxy and Go stop at a handful."""

_NEVER_IN_A_HEAD: Final = re.compile(BARE_LINE_END, re.DOTALL)
"""A reason phrase may hold anything else: it is cleaned when it is read (case 182)."""


class ResponseSink(Protocol):
    """Whom a `ResponseReader` tells."""

    def response_received(self, response: Response) -> None:
        """Take a head: any number of 1xx, then one other."""

    def response_body_received(self, payload: Piece) -> None:
        """Take a piece of the body; never empty."""

    def response_ended(self, trailers: Fields) -> None:
        """Know that the message is complete."""


class ResponseReader(MessageReader):
    """Reads the response to one request from what an instance sends; make a new one for the next."""

    __slots__ = ("_informational", "_method", "_sink", "started")

    def __init__(self, sink: ResponseSink, method: bytes) -> None:
        self._sink = sink
        self._method = method
        self._collected = b""
        self._body = None
        self._informational = 0
        self._pieces = 0
        self.started = False
        """Whether anything has arrived."""
        self.ended = False
        self.leftover = b""
        """The first bytes of a tunnel, or what nobody asked for."""

    def feed(self, data: bytes) -> None:
        """Take what arrived, or nothing while it `is_behind`.

        Raises `InstanceInvalid`: nothing can be read after that.
        """
        self.started = True
        self._pieces = 0
        rest: Piece = data
        if self._body is not None and self._body.is_behind:
            rest = self._read_body(self._body, rest)
        while rest and not self.ended:
            rest = self._read_head(bytes(rest)) if self._body is None else self._read_body(self._body, rest)
        if rest:
            self.leftover += rest

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
            taken = self._take(data, LARGEST_RESPONSE_HEAD, _NEVER_IN_A_HEAD)
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

    @override
    def _end(self, trailers: Fields) -> None:
        self.ended = True
        self._sink.response_ended(trailers)
