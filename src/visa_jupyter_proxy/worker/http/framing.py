"""Where one message ends and the next begins (RFC 9112 6 and 7).

A reader is fed what arrived, in any pieces, and calls its sink in order: a head, the body in pieces,
the end. It stops at the end of a message: what came behind it waits in the reader.

Here is what `request_reader` and `response_reader` have in common.
"""

import re
from typing import Final

from visa_jupyter_proxy.errors import BadRequest, HeadTooLarge, TargetTooLong
from visa_jupyter_proxy.worker.http.bodies import Body, Piece
from visa_jupyter_proxy.worker.http.lines import Fields

_LONG: Final = 16 * 1024
"""Bytes behind a head that are rather looked at than copied: of a 64 KiB answer that saves 5 us."""

BARE_LINE_END: Final = rb"(?<!\r)\n|\r(?!\n)(?=.)"
"""In no head, be it of a request or a response."""


class MessageReader:
    """Collects a head until its empty line, and knows how far the body behind it is."""

    __slots__ = ("_body", "_collected", "_pieces", "ended", "leftover")

    _collected: bytes
    """What has come of a head that is not complete."""
    _body: Body | None
    """Of the message that is being read, from the end of its head on."""
    _pieces: int
    """Of a body, in the last read."""
    ended: bool
    """Whether a message has been read to its end."""
    leftover: bytes
    """What came behind it."""

    @property
    def head_so_far(self) -> bytes:
        """What has come of a head that is not complete, or too large."""
        return self._collected

    @property
    def is_behind(self) -> bool:
        """Whether more has come than is taken apart at a time: others have their turn before it is fed on."""
        return self._body is not None and self._body.is_behind

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

    def _end(self, trailers: Fields) -> None:
        """Be at the end of the message, and tell."""
        raise NotImplementedError

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
