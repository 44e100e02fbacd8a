"""The two sides of a tunnel: each sends on what comes, and tells the tunnel of its end.

Back-pressure is the loop's own: `pause_writing` on one side is `pause_reading` on the other.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, override

from visa_jupyter_proxy.worker.http.websocket import Frames
from visa_jupyter_proxy.worker.sockets.hangups import NOT_WATCHED
from visa_jupyter_proxy.worker.sockets.sockets import reset


class TunnelPort(Protocol):
    """What a side needs of its tunnel."""

    def watch(self, side: "Side") -> int:
        """Have `side` told of a reset, also when it does not read; the number is for `Hangups.forget`."""

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back when others have had their turn."""

    def in_turn(self, step: Callable[[], None]) -> None:
        """Take a step, later when there are many."""

    def note_interaction(self) -> None:
        """Keep the time: the user has done something."""

    def side_ended(self, side: "Side") -> None:
        """Know that no more will come from `side`."""

    def side_lost(self, side: "Side") -> None:
        """Know that the connection of `side` is over."""


class Side(asyncio.Protocol):
    """One of the two connections."""

    __slots__ = (
        "_to",
        "_tunnel",
        "ended",
        "full",
        "lost",
        "peer",
        "received",
        "transport",
        "was_reset",
        "watched",
    )

    peer: "Side"

    def __init__(self, tunnel: TunnelPort, transport: asyncio.Transport, to: asyncio.Transport) -> None:
        """Send on to `to` what comes from `transport`."""
        self.transport = transport
        self.received = 0
        self.full = False
        """Whether it takes no more at the moment."""
        self.ended = False
        """Whether this side will send no more."""
        self.lost = False
        self.was_reset = False
        self.watched = NOT_WATCHED
        self._to = to
        self._tunnel = tunnel

    @override
    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._to.write(data)

    @override
    def eof_received(self) -> bool:
        self._tunnel.in_turn(self._end)
        return self.transport.can_write_eof()  # what is half-closed stays open; TLS cannot be

    @override
    def pause_writing(self) -> None:
        self.full = True
        self.peer.hold()

    @override
    def resume_writing(self) -> None:
        self.full = False
        self.peer.read_on()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.was_reset = self.was_reset or exc is not None
        self._tunnel.side_lost(self)

    def hold(self) -> None:
        """Stop reading: the other side takes no more."""
        self.transport.pause_reading()
        self._watch()

    def read_on(self) -> None:
        """Read again: the other side takes more."""
        self.transport.resume_reading()

    def hung_up(self) -> None:
        """Know that the peer has reset while nobody was reading."""
        if not self.lost:
            self.was_reset = True
            self.transport.abort()

    def finish(self) -> None:
        """Send what is queued, then the end."""
        if self.lost or self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()  # TLS cannot be half-closed here

    def reset(self) -> None:
        """End at once, and have the peer see a reset."""
        if not self.lost:
            reset(self.transport)

    def _end(self) -> None:
        if not self.lost:
            self._tunnel.side_ended(self)
            if not self.transport.is_closing():
                self._watch()

    def let_go(self) -> None:
        """Refer to nobody any more, so that all is freed at once: nothing is called after both are lost."""
        del self._tunnel, self.peer

    def _watch(self) -> None:
        """Be told of a reset although nobody reads. Most tunnels never need it, and begin faster without."""
        if self.watched == NOT_WATCHED and not self.lost:
            self.watched = self._tunnel.watch(self)


class Deaf(asyncio.Protocol):
    """In the place of a side whose bytes are dropped; of all else it is told as before."""

    __slots__ = ("side",)

    def __init__(self, side: Side) -> None:
        self.side = side

    @override
    def data_received(self, data: bytes) -> None:
        """Drop it: read all the same, for bytes that nobody has read turn the close into a reset."""

    @override
    def eof_received(self) -> bool:
        return self.side.eof_received()

    @override
    def pause_writing(self) -> None:
        self.side.pause_writing()

    @override
    def resume_writing(self) -> None:
        self.side.resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.side.connection_lost(exc)


class FollowedSide(Side):
    """A side whose frames are followed.

    It may send a hundred thousand of them in one piece: they are passed on at once, but not counted so
    fast that all others had to wait. It is read on when that is done.
    """

    __slots__ = ("_uncounted", "frames")

    def __init__(
        self, tunnel: TunnelPort, transport: asyncio.Transport, to: asyncio.Transport, frames: Frames
    ) -> None:
        super().__init__(tunnel, transport, to)
        self.frames = frames
        self._uncounted = b""

    @property
    def at_boundary(self) -> bool:
        """Whether a frame may follow what came from here: it came in full, and did not close."""
        return self.frames.at_boundary and not (self._uncounted or self.frames.closed)

    @property
    def is_behind(self) -> bool:
        """Whether frames have passed that are not counted yet; meanwhile nothing is read."""
        return bool(self._uncounted)

    def finish_frame(self, data: bytes) -> None:
        """Pass on what belongs to the frame that is under way, and drop the rest of `data`."""
        rest = data[: self.frames.finish(data)]
        self.received += len(rest)
        self._to.write(rest)

    @override
    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._to.write(data)
        rest = self.frames.feed(data)
        if rest:
            self._fall_behind(rest)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._uncounted = b""  # nobody counts on, nor may anybody wait for it
        super().connection_lost(exc)

    @override
    def read_on(self) -> None:
        if not self._uncounted:
            self.transport.resume_reading()

    def _fall_behind(self, rest: bytes) -> None:
        self._uncounted = rest
        self.hold()
        self._tunnel.soon(self._count_on)

    def _count_on(self) -> None:
        if self.lost:
            return
        rest, self._uncounted = self.frames.feed(self._uncounted), b""
        if rest:
            self._fall_behind(rest)
        elif not self.peer.full:
            self.transport.resume_reading()


class Person(FollowedSide):
    """The browser of a kernel channel: a data message from there is something that somebody did."""

    __slots__ = ()

    @override
    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._to.write(data)
        frames = self.frames
        before = frames.messages
        rest = frames.feed(data)
        if frames.messages != before:
            self._tunnel.note_interaction()
        if rest:
            self._fall_behind(rest)
