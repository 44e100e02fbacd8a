"""Where one message ends and the next begins (RFC 9112 6 and 7).

A reader is fed what arrived, in any pieces, and calls its sink in order: a head, the body in pieces,
the end. It stops at the end of a message: what came behind it waits in the reader until `proceed`,
so that pipelined requests are never parsed before their turn, and the bytes behind an upgrade are
just there.
"""

import re
from typing import Final, Protocol, override

from visa_jupyter_proxy.errors import BadRequest, HeadTooLarge, InstanceInvalid, ProxyError, TargetTooLong
from visa_jupyter_proxy.worker.http1 import Fields, Request, Response, parse_request, parse_response

LARGEST_REQUEST_HEAD: Final = 32 * 1024
"""nginx reads 4 buffers of 8 KiB."""

LARGEST_RESPONSE_HEAD: Final = 64 * 1024
"""HAProxy reads 16 KiB, nginx 4 or 8 KiB, Node's client 16 KiB; policies in JupyterLab fields are long."""

_LARGEST_CHUNK_OVERHEAD: Final = 16 * 1024
"""Go's net/http allows so many bytes of chunk extensions in a body (CVE-2023-39326)."""

_LONGEST_CHUNK_LINE: Final = 4096
"""Go's limit for one line."""

_MOST_INFORMATIONAL: Final = 16
"""1xx responses before a final one; HAProxy and Go stop at a handful."""

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_TRAILER: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_BARE_LINE_END: Final = rb"(?<!\r)\n|\r(?!\n)(?=.)"
_NEVER_IN_A_REQUEST: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|" + _BARE_LINE_END, re.DOTALL)
_NEVER_IN_A_RESPONSE: Final = re.compile(_BARE_LINE_END, re.DOTALL)
"""A reason phrase may hold anything else: it is cleaned when it is read (case 182)."""
_LARGEST_CHUNK: Final = 2**62


class Body(Protocol):
    """The rest of a message."""

    def decode(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return the payload in `data`, and what lies behind the end; None while the end is to come."""

    def end(self) -> bool:
        """Say whether the body is complete when the connection ends here."""


class LengthBody(Body):
    """So many bytes (RFC 9112 6.2)."""

    __slots__ = ("remaining",)

    def __init__(self, length: int) -> None:
        self.remaining = length

    @override
    def decode(self, data: bytes) -> tuple[bytes, bytes | None]:
        if len(data) < self.remaining:
            self.remaining -= len(data)
            return data, None
        cut, self.remaining = self.remaining, 0
        return (data, b"") if cut == len(data) else (data[:cut], data[cut:])

    @override
    def end(self) -> bool:
        return False


class UntilClose(Body):
    """All until the connection ends (RFC 9112 6.3, 8)."""

    __slots__ = ()

    @override
    def decode(self, data: bytes) -> tuple[bytes, bytes | None]:
        return data, None

    @override
    def end(self) -> bool:
        return True


class ChunkedBody(Body):
    """Chunks (RFC 9112 7.1). The payload of all chunks of one read comes out in one piece.

    `trailers` is filled at the end.
    """

    __slots__ = (
        "_buffer",
        "_ended",
        "_invalid",
        "_overhead",
        "_remaining",
        "_state",
        "_trailer_bytes",
        "trailers",
    )

    def __init__(self, invalid: type[ProxyError]) -> None:
        self._invalid = invalid
        self._buffer = b""
        self._state = self._size
        self._ended = False
        self._remaining = 0
        self._overhead = 0
        self._trailer_bytes = 0
        self.trailers: Fields = []

    @override
    def decode(self, data: bytes) -> tuple[bytes, bytes | None]:
        payload: list[bytes] = []
        self._buffer = self._buffer + data if self._buffer else data
        position = 0
        while (following := self._state(position, payload)) is not None:
            position = following
            if self._ended:
                return b"".join(payload), self._buffer[position:]
        self._buffer = b"" if self._state == self._data else self._buffer[position:]
        return b"".join(payload), None

    @override
    def end(self) -> bool:
        return False

    # Each state consumes what it can from `position` and returns where the next begins,
    # or None when more bytes are needed.

    def _size(self, position: int, payload: list[bytes]) -> int | None:  # noqa: ARG002 -- all states look alike
        end = self._line_end(position)
        if end is None:
            return None
        line = _CHUNK_LINE.fullmatch(self._buffer, position, end)
        if line is None or (size := int(line[1], 16)) > _LARGEST_CHUNK:
            raise self._invalid("bad chunk size")
        self._overhead += end - line.end(1)
        if self._overhead > _LARGEST_CHUNK_OVERHEAD:
            raise self._invalid("too many chunk extensions")
        self._remaining = size
        self._state = self._data if size else self._trailer
        return end + 2

    def _data(self, position: int, payload: list[bytes]) -> int | None:
        piece = self._buffer[position : position + self._remaining]
        payload.append(piece)
        self._remaining -= len(piece)
        if self._remaining:
            return None
        self._state = self._data_end
        return position + len(piece)

    def _data_end(self, position: int, payload: list[bytes]) -> int | None:  # noqa: ARG002
        found = self._buffer[position : position + 2]
        if found == b"\r\n":
            self._state = self._size
            return position + 2
        if found in (b"", b"\r"):
            return None
        raise self._invalid("chunk data longer than its size")

    def _trailer(self, position: int, payload: list[bytes]) -> int | None:  # noqa: ARG002
        end = self._line_end(position)
        if end is None:
            return None
        if end == position:
            self._ended = True
            return end + 2
        self._trailer_bytes += end - position
        field = _TRAILER.fullmatch(self._buffer, position, end)
        if field is None or self._trailer_bytes > _LONGEST_CHUNK_LINE:
            raise self._invalid("bad trailer")
        self.trailers.append((field[1], field[2]))
        return end + 2

    def _line_end(self, position: int) -> int | None:
        end = self._buffer.find(b"\r\n", position)
        longest = end if end >= 0 else len(self._buffer) - 1  # a CR may be the last byte
        if longest - position > _LONGEST_CHUNK_LINE:
            raise self._invalid("chunk line too long")
        if end >= 0:
            return end
        if b"\n" in self._buffer[position:]:
            raise self._invalid("bare LF in chunked body")
        return None


def chunk(payload: bytes) -> bytes:
    """Encode one chunk; an empty payload would end the body, so there must be one."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def last_chunk(trailers: Fields) -> bytes:
    """Encode the end of a chunked body."""
    return b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % field for field in trailers])


class _HeadBuffer:
    """Collects a head until its empty line. `never`: what shows that no head will come of it."""

    __slots__ = ("_data", "_limit", "_never")

    def __init__(self, limit: int, never: re.Pattern[bytes]) -> None:
        self._limit = limit
        self._never = never
        self._data = b""

    def __bool__(self) -> bool:
        return bool(self._data)

    def take(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return head and rest when the head is complete. Raises `HeadTooLarge` past the limit."""
        scanned = max(0, len(self._data) - 3)
        data = self._data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n", scanned)
        # Without an end, the last three bytes may be the beginning of one.
        if (end if end >= 0 else len(data) - 3) > self._limit:
            raise (
                HeadTooLarge("head too large") if b"\r\n" in data[: self._limit] else TargetTooLong("no end")
            )
        if end < 0:
            # What can never become a head is refused now, not at the deadline.
            if self._never.search(data, scanned):
                raise BadRequest("no HTTP")
            return None
        self._data = b""
        return data[: end + 4], data[end + 4 :]

    def skip_empty_lines(self, data: bytes) -> bytes:
        """Return `data` without the empty lines that may stand before a request (RFC 9112 2.2)."""
        if self._data == b"\r":
            self._data, data = b"", b"\r" + data
        if self._data or data[:1] != b"\r":
            return data
        lines = _EMPTY_LINES.match(data)
        return data[lines.end() :] if lines is not None else data


class RequestSink(Protocol):
    """Whom a `RequestReader` tells. None of these may feed the reader."""

    def request_received(self, request: Request) -> None:
        """Take a head."""

    def body_received(self, payload: bytes) -> None:
        """Take a piece of the body; never empty."""

    def request_ended(self, trailers: Fields) -> None:
        """Know that the message is complete."""


class RequestReader:
    """Reads requests from what a client sends."""

    __slots__ = ("_body", "_head", "_sink", "ended", "leftover")

    def __init__(self, sink: RequestSink) -> None:
        self._sink = sink
        self._head = _HeadBuffer(LARGEST_REQUEST_HEAD, _NEVER_IN_A_REQUEST)
        self._body: Body | None = None
        self.ended = False
        """Whether a message has been read to its end, and `proceed` is due."""
        self.leftover = b""
        """What came behind the message that has ended."""

    @property
    def is_between_messages(self) -> bool:
        """Whether nothing of the next head has arrived."""
        return not self._head and self._body is None and not self.ended

    def feed(self, data: bytes) -> None:
        """Take what arrived. Raises `ProxyError` for what is no request: nothing can be read after that."""
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
        data = self._head.skip_empty_lines(data)
        taken = self._head.take(data) if data else None
        if taken is None:
            return
        head, rest = taken
        request = parse_request(head)
        if request.chunked:
            self._body = ChunkedBody(BadRequest)
        elif request.length:
            self._body = LengthBody(request.length)
        self._sink.request_received(request)
        if self._body is None:
            self._end(rest, [])
        elif rest:
            self._read_body(self._body, rest)

    def _read_body(self, body: Body, data: bytes) -> None:
        payload, rest = body.decode(data)
        if payload:
            self._sink.body_received(payload)
        if rest is not None:
            self._end(rest, body.trailers if isinstance(body, ChunkedBody) else [])

    def _end(self, rest: bytes, trailers: Fields) -> None:
        self._body, self.ended, self.leftover = None, True, rest
        self._sink.request_ended(trailers)


class ResponseSink(Protocol):
    """Whom a `ResponseReader` tells."""

    def response_received(self, response: Response) -> None:
        """Take a head: any number of 1xx, then one other."""

    def response_body_received(self, payload: bytes) -> None:
        """Take a piece of the body; never empty."""

    def response_ended(self, trailers: Fields) -> None:
        """Know that the message is complete."""


class ResponseReader:
    """Reads the response to one request from what an instance sends; make a new one for the next."""

    __slots__ = ("_body", "_head", "_informational", "_method", "_sink", "ended", "leftover", "started")

    def __init__(self, sink: ResponseSink, method: bytes) -> None:
        self._sink = sink
        self._method = method
        self._head = _HeadBuffer(LARGEST_RESPONSE_HEAD, _NEVER_IN_A_RESPONSE)
        self._body: Body | None = None
        self._informational = 0
        self.started = False
        """Whether anything has arrived."""
        self.ended = False
        self.leftover = b""
        """What came behind the response: the first bytes of a tunnel, or what nobody asked for."""

    def feed(self, data: bytes) -> None:
        """Take what arrived. Raises `InstanceInvalid`: nothing can be read after that."""
        self.started = True
        while data and not self.ended:
            data = self._read_body(self._body, data) if self._body is not None else self._read_head(data)
        self.leftover += data

    def end(self) -> bool:
        """Take the end of the connection: True when the response is complete with it."""
        if self.ended:
            return True
        if self._body is None or not self._body.end():
            return False
        self._end([])
        return True

    def _read_head(self, data: bytes) -> bytes:
        try:
            taken = self._head.take(data)
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
            self._end([])
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

    def _read_body(self, body: Body, data: bytes) -> bytes:
        payload, rest = body.decode(data)
        if payload:
            self._sink.response_body_received(payload)
        if rest is None:
            return b""
        self._end(body.trailers if isinstance(body, ChunkedBody) else [])
        return rest

    def _end(self, trailers: Fields) -> None:
        self.ended = True
        self._sink.response_ended(trailers)
