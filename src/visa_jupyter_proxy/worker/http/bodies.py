"""Bodies: so many bytes, chunks, or all until the connection ends (RFC 9112 6 and 7).

A body is fed what arrived behind its head, in any pieces, and says where it ends.
"""

import re
from typing import Final, Protocol, override

from visa_jupyter_proxy.errors import ProxyError
from visa_jupyter_proxy.worker.http.lines import Fields

_LARGEST_CHUNK_OVERHEAD: Final = 16 * 1024
"""Go's net/http allows so many bytes of chunk extensions in a body (CVE-2023-39326)."""

_LONGEST_CHUNK_LINE: Final = 4096
"""Go's limit for one line."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_EXTENSION = rb"[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?+"
_PLAIN_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:" + _EXTENSION + rb")*+")
# Without a second way to match anything: three repetitions that all take spaces would try every split.
_TRAILER: Final = re.compile(rb"(" + _TOKEN + rb"):([\t -~\x80-\xff]*+)")
_LARGEST_CHUNK: Final = 2**62
_ENDLESS: Final = 2**62

type Piece = bytes | memoryview
"""Of a body, as it was read. A view is of what came with a head: it keeps that, too, until it is sent."""

_MOST_AT_A_TIME: Final = 1000
"""Chunks, of which one read may have forty thousand: half a millisecond's work."""

LARGE: Final = 1024 * 1024
"""Bytes left of a body that make it worth being moved by the kernel: 4 MiB cost 20 % less down and 4 % less
up, 1 MiB the same down and 25 % less up, smaller ones as much as ever (docs/decisions/0008-splice.md)."""


class Body(Protocol):
    """The rest of a message."""

    pieces: int
    """Of how many parts the last payload was put together: what `decode` has cost."""
    remaining: int
    """Bytes to come that are the body's whatever they are, as far as is known. They need not pass through
    `decode`: those that go by elsewhere are taken off here."""
    trailers: Fields
    """What came behind the last chunk, when the end has been seen."""
    is_behind: bool
    """Whether more has come than is taken apart at a time: `decode` wants to be called, also with nothing."""

    def decode(self, data: Piece) -> tuple[Piece, bytes | None]:
        """Return the payload in `data`, and what lies behind the end; None while the end is to come."""

    def end(self) -> bool:
        """Say whether the body is complete when the connection ends here."""


class LengthBody(Body):
    """So many bytes (RFC 9112 6.2)."""

    __slots__ = ("remaining",)
    pieces = 1
    trailers = ()
    is_behind = False

    def __init__(self, length: int) -> None:
        self.remaining = length

    @override
    def decode(self, data: Piece) -> tuple[Piece, bytes | None]:
        if len(data) < self.remaining:
            self.remaining -= len(data)
            return data, None
        cut, self.remaining = self.remaining, 0
        return (data, b"") if cut == len(data) else (data[:cut], bytes(data[cut:]))

    @override
    def end(self) -> bool:
        return False


class UntilClose(Body):
    """All until the connection ends (RFC 9112 6.3, 8)."""

    __slots__ = ("_seen", "remaining")
    pieces = 1
    trailers = ()
    is_behind = False

    def __init__(self) -> None:
        self._seen = 0
        self.remaining = 0

    @override
    def decode(self, data: Piece) -> tuple[Piece, bytes | None]:
        self._seen += len(data)
        if self._seen >= LARGE:
            self.remaining = _ENDLESS  # much has come: more will, most likely
        return data, None

    @override
    def end(self) -> bool:
        return True


class ChunkedBody(Body):
    """Chunks (RFC 9112 7.1). The payload of what is taken apart at a time comes out in one piece."""

    __slots__ = (
        "_buffer",
        "_ended",
        "_invalid",
        "_overhead",
        "_remaining",
        "_state",
        "_trailer_bytes",
        "is_behind",
        "pieces",
        "trailers",
    )
    remaining = 0

    def __init__(self, invalid: type[ProxyError]) -> None:
        self._invalid = invalid
        self._buffer = b""
        # No bound methods: who refers to itself stays, with its buffer, until somebody looks for it.
        self._state = ChunkedBody._size
        self._ended = False
        self._remaining = 0
        self._overhead = 0
        self._trailer_bytes = 0
        self.pieces = 0
        self.is_behind = False
        self.trailers: list[tuple[bytes, bytes]] = []

    @override
    def decode(self, data: Piece) -> tuple[bytes, bytes | None]:
        payload: list[bytes] = []
        self._buffer = self._buffer + data if self._buffer else bytes(data)
        position = 0
        while (following := self._state(self, position, payload)) is not None:
            position = following
            if self._ended or len(payload) >= _MOST_AT_A_TIME:
                break
        self.pieces = len(payload)
        rest = self._buffer[position:]
        if self._ended:
            self.is_behind = False
            return b"".join(payload), rest
        self.is_behind = following is not None and bool(rest)
        # Without more to come of it, all that there is of a chunk's data has been taken.
        self._buffer = b"" if following is None and self._state is ChunkedBody._data else rest
        return b"".join(payload), None

    @override
    def end(self) -> bool:
        return False

    # Each state consumes what it can from `position` and returns where the next begins,
    # or None when more bytes are needed.

    def _size(self, position: int, payload: list[bytes]) -> int | None:
        following = self._whole_chunks(position, payload)
        if following > position:
            return following
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
        self._state = ChunkedBody._data if size else ChunkedBody._trailer
        return end + 2

    def _whole_chunks(self, position: int, payload: list[bytes]) -> int:
        """Take all that are plain and whole, and leave everything else to the states.

        A third of the states' cost: a peer may send as many tiny chunks as it likes (case 80).
        """
        buffer = self._buffer
        while len(payload) < _MOST_AT_A_TIME and (line := _PLAIN_CHUNK_LINE.match(buffer, position)):
            begin = line.end()
            end = begin + int(line[1], 16)
            if end == begin or buffer[end : end + 2] != b"\r\n":
                break
            payload.append(buffer[begin:end])
            position = end + 2
        return position

    def _data(self, position: int, payload: list[bytes]) -> int | None:
        piece = self._buffer[position : position + self._remaining]
        payload.append(piece)
        self._remaining -= len(piece)
        if self._remaining:
            return None
        self._state = ChunkedBody._data_end
        return position + len(piece)

    def _data_end(self, position: int, payload: list[bytes]) -> int | None:  # noqa: ARG002 -- all states look alike
        found = self._buffer[position : position + 2]
        if found == b"\r\n":
            self._state = ChunkedBody._size
            return position + 2
        if found in (b"", b"\r"):
            return None
        raise self._invalid("chunk data longer than its size")

    def _trailer(self, position: int, payload: list[bytes]) -> int | None:  # noqa: ARG002 -- likewise
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
        self.trailers.append((field[1], field[2].strip(b" \t")))
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


def chunk(payload: Piece) -> bytes:
    """Encode one chunk; an empty payload would end the body, so there must be one."""
    return b"".join((b"%x\r\n" % len(payload), payload, b"\r\n"))


def last_chunk(trailers: Fields) -> bytes:
    """Encode the end of a chunked body."""
    return b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % field for field in trailers])
