"""WebSocket: how one is asked for and accepted, and where its frames begin (RFC 6455)."""

import base64
import hashlib
import re
from itertools import repeat
from typing import Final

from visa_jupyter_proxy.errors import BadRequest, UpgradeRequired
from visa_jupyter_proxy.worker.http.lines import Lines, Named
from visa_jupyter_proxy.worker.http.request import Request
from visa_jupyter_proxy.worker.http.response import Response, response_head
from visa_jupyter_proxy.worker.http.sections import options

UPGRADE: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
"""The hop-by-hop fields of both halves of a handshake (RFC 6455 1.3)."""

_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SHA1: Final = hashlib.sha1(usedforsecurity=False)
"""To be copied: OpenSSL looks for the algorithm each time, a twentieth of what opening a WebSocket takes."""


def asks_for_websocket(request: Request) -> bool:
    """Whether to upgrade. Any other protocol is not one of ours, and is ignored (RFC 9110 7.8).

    Raises `BadRequest` and `UpgradeRequired` for an invalid handshake (RFC 6455 4.2.1).
    """
    if b"upgrade" not in request.connection or request.method != b"GET" or request.minor == 0:
        return False
    if b"websocket" not in options(request.special.get(b"upgrade")):
        return False
    if request.has_body:
        raise BadRequest("WebSocket request with a body")
    keys = request.special.get(b"sec-websocket-key", ())
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise BadRequest("bad Sec-WebSocket-Key")
    if request.special.get(b"sec-websocket-version") != [b"13"]:
        raise UpgradeRequired("another WebSocket version")
    return True


def accepts_websocket(request: Request, response: Response) -> bool:
    """Whether a 101 is the right answer to this very WebSocket request (RFC 6455 4.1)."""
    key = request.one(b"sec-websocket-key") or b""
    sha1 = _SHA1.copy()
    sha1.update(key + _GUID)
    return (
        response.minor == 1  # HTTP/1.0 has no upgrades (RFC 9110 7.8)
        and b"upgrade" in response.connection
        and options(response.special.get(b"upgrade")) == [b"websocket"]
        and response.special.get(b"sec-websocket-accept") == [base64.b64encode(sha1.digest())]
        and _chooses_what_was_offered(request.special, response.special)
    )


def _chooses_what_was_offered(offered: Named, chosen: Named) -> bool:
    """Whether a browser would go on: it fails a WebSocket with what it has not asked for (RFC 6455 4.1)."""
    protocols, extensions = chosen.get(b"sec-websocket-protocol"), chosen.get(b"sec-websocket-extensions")
    if protocols is not None:
        values = offered.get(b"sec-websocket-protocol", ())
        # Names of sub-protocols are compared byte for byte, those of extensions are not.
        names = {name.strip(b" \t") for value in values for name in value.split(b",")}
        if len(protocols) > 1 or not protocols[0] or protocols[0] not in names:
            return False
    return extensions is None or _extensions(extensions) <= _extensions(
        offered.get(b"sec-websocket-extensions")
    )


def _extensions(values: list[bytes] | None) -> set[bytes]:
    return {element.partition(b";")[0].rstrip(b" \t") for element in options(values)}


def switching_protocols(lines: Lines) -> bytes:
    """Compose the 101 with which a tunnel begins; `lines` are the end-to-end ones."""
    return response_head(101, b"Switching Protocols", [*lines, UPGRADE])


# --- frames (RFC 6455 5.2) -----------------------------------------------------------------

_LONGEST_REASON: Final = 123
"""Bytes, behind the code, of the 125 that a control frame may have (5.5)."""


def close_frame(code: int, reason: str) -> bytes:
    """Compose a server's close frame (5.5.1); a longer reason than there is room for is cut."""
    text = reason.encode()[:_LONGEST_REASON].decode(errors="ignore").encode()
    return b"\x88" + bytes((2 + len(text),)) + code.to_bytes(2) + text


_CONTINUES: Final = 0
_BEGINS: Final = 1
_WHOLE: Final = 2
"""A data message, text or binary, in one frame."""
_CONTROL: Final = 3
_CLOSES: Final = 4
_RESERVED: Final = 5

_FIN: Final = 0x80
_MASKED: Final = 0x80
_LONGEST_HEADER: Final = 14
_MOST_AT_A_TIME: Final = 1000
"""Frames, which may be of two bytes each: a third of a millisecond's work."""
_NEVER: Final = 1 << 127
"""Farther than any stream goes, and than any length that a frame can have."""


def _kind(first: int) -> int:
    """Say what the first byte of a frame makes of it; extensions may use the reserved bits (5.8)."""
    opcode = first & 0x0F
    if opcode < 3:
        return (_WHOLE if first & _FIN else _BEGINS) if opcode else _CONTINUES
    if 8 <= opcode <= 10 and first & _FIN:  # control frames are not fragmented (5.5)
        return _CLOSES if opcode == 8 else _CONTROL
    return _RESERVED


def _small(second: int, *, masked: bool) -> int:
    """Return the size of a frame, header included, where its second byte tells it, else 0."""
    size = second ^ _MASKED if masked else second
    return size + (6 if masked else 2) if size < 126 else 0


_KINDS: Final = bytes(map(_kind, range(256)))
_SMALL_OF_CLIENT: Final = bytes(_small(second, masked=True) for second in range(256))
_SMALL_OF_SERVER: Final = bytes(_small(second, masked=False) for second in range(256))


class Frames:
    """Follows the frames of one direction by their headers: boundaries, opcodes and sizes.

    It is fed whatever passes, in any pieces, and keeps no payload. It judges no more than it must to
    know where the next frame begins: what is no frame makes it give up, and it raises nothing.
    """

    __slots__ = ("_header", "_in_message", "_left", "_masked", "_small", "closed", "messages")

    def __init__(self, *, masked: bool) -> None:
        """Frames of a client are masked, those of a server are not (RFC 6455 5.1)."""
        self.messages = 0
        """Data messages that have begun, in however many fragments they come."""
        self.closed = False
        """Whether a close frame has begun."""
        self._in_message = False
        """Whether fragments are to come. Zeros would otherwise be endless fragments of two bytes each."""
        self._masked = masked
        self._small = _SMALL_OF_CLIENT if masked else _SMALL_OF_SERVER
        self._left = 0
        """What is to come of the current frame; below 0, so many bytes of a header are in `_header`."""
        self._header = b""

    def __repr__(self) -> str:
        state = "not frames" if self.gave_up else "at a boundary" if self.at_boundary else "in a frame"
        return f"Frames({state}, messages={self.messages}, closed={self.closed})"

    @property
    def at_boundary(self) -> bool:
        """Whether a frame may begin here: the last one has come in full, or none has begun."""
        return self._left == 0

    @property
    def gave_up(self) -> bool:
        """Whether something came that is no frame; nothing is counted from there on."""
        return self._left > _NEVER >> 1

    def feed(self, data: bytes) -> bytes:
        """Follow what passes, and return what is to be fed another time: `data` may be full of frames."""
        left, length = self._left, len(data)
        if not left and length > 1 and self._small[data[1]] == length and _KINDS[data[0]] == _WHOLE:
            self.messages += 1  # a small message of its own: two thirds quicker than the loop
            return b""
        if left < 0:
            return self.feed(data) if self._complete_header(data) else b""
        return self._follow(data, left)

    def finish(self, data: bytes) -> int:
        """Follow the frame that is under way, and no further; return how much of `data` belongs to it."""
        if self._left < 0 and not self._complete_header(data):
            return len(data)
        taken = min(self._left, len(data))
        self._left -= taken
        return taken

    def _follow(self, data: bytes, at: int) -> bytes:
        last, small, begun = len(data) - 1, self._small, 0
        for _ in repeat(None, _MOST_AT_A_TIME):
            if at >= last:
                break
            size = small[data[at + 1]]
            if size and _KINDS[data[at]] == _WHOLE:
                begun += 1
            else:
                size = self._other_frame(data, at)
                if not size:
                    break
            at += size
        else:
            if at <= last:
                self._left = 0
                self.messages += begun
                return data[at:]
        self._left = at - last - 1
        self.messages += begun
        if at <= last:
            self._header = data[at:]
        return b""

    def _complete_header(self, data: bytes) -> bool:
        """Go on in the middle of a header; False while it is not complete."""
        seen = len(self._header)
        header = self._header + data[: _LONGEST_HEADER - seen]
        size = self._other_frame(header, 0) if len(header) > 1 else 0
        if not size:
            self._header, self._left = header, -len(header)
            return False
        self._header, self._left = b"", size - seen
        return True

    def _other_frame(self, data: bytes, at: int) -> int:
        """Count a frame of any kind and return its size; 0 when its header is not complete."""
        kind = _KINDS[data[at]]
        size = data[at + 1] ^ _MASKED if self._masked else data[at + 1]
        if size > 127 or not self._may_come(kind, size):
            return _NEVER
        header = 6 if self._masked else 2
        if size > 125:
            length = data[at + 2 : at + (4 if size == 126 else 10)]
            if len(length) < (2 if size == 126 else 8):
                return 0
            size = int.from_bytes(length)
            if size >> 63:
                return _NEVER
            header += len(length)
        self.messages += kind in (_BEGINS, _WHOLE)
        self.closed = self.closed or kind == _CLOSES
        if kind <= _BEGINS:
            self._in_message = not data[at] & _FIN
        return header + size

    def _may_come(self, kind: int, size: int) -> bool:
        """Whether such a frame can stand here (5.4, 5.5)."""
        if kind == _CONTINUES:
            return self._in_message
        return kind < _CONTROL or (kind != _RESERVED and size < 126)
