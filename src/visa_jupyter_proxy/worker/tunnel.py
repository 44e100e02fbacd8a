"""Two connections tied together: raw bytes both ways until both are done.

Back-pressure is the loop's own: `pause_writing` on one side is `pause_reading` on the other. A half
that is closed is closed on the other side too, after what was queued; a reset is passed on as one.

A tunnel lives for hours and is one of thousands: it keeps the few values that its end needs (`Origin`),
and nothing of the exchange that it comes from.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, override

from visa_jupyter_proxy.errors import ClientGone, InstanceUnreachable, ProxyError
from visa_jupyter_proxy.worker.hangups import NOT_WATCHED, Hangups
from visa_jupyter_proxy.worker.sockets import Timed, reset
from visa_jupyter_proxy.worker.websocket import Frames

LINGER_S: Final = 30.0
"""How long a side may go on after the other has ended: nginx's lingering_time."""


class Origin(NamedTuple):
    """What the end of a tunnel needs of the exchange that it comes from."""

    peer: str
    """The address that is connected to us."""
    client: str
    """The address of the browser, behind whatever trusted proxies there are."""
    request_id: bytes
    path: bytes
    """Without the query; cut, for the log."""
    route: str
    instance_id: int
    user: str
    began: float
    """When the request came, on the loop's clock."""
    notebook: int | None
    """The number by which control knows a kernel channel; None for other tunnels."""


class Owner(Protocol):
    """What a tunnel needs of the worker that it is in."""

    connections: set[Timed]
    """Every open connection, for the worker's tick."""
    hangups: Hangups
    tunnel_idle_s: float
    """How long a tunnel may be without a byte either way; 0 is for ever."""

    def now(self) -> float:
        """Return the loop's clock."""

    def soon(self, callback: Callable[[], None]) -> object:
        """Call back in the next turn of the loop, when others have had theirs."""

    def tunnel_ended(self, tunnel: "Tunnel") -> None:
        """Take note, once: both sides are gone."""


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

    def __init__(self, tunnel: "Tunnel", transport: asyncio.Transport, to: asyncio.Transport) -> None:
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
        self._watch()
        self._tunnel.side_ended(self)
        return True

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

    def _watch(self) -> None:
        """Be told of a reset although nobody reads. Most tunnels never need it, and begin faster without."""
        if self.watched == NOT_WATCHED and not self.lost:
            self.watched = self._tunnel.watch(self)


class FollowedSide(Side):
    """A side whose frames are followed.

    It may send a hundred thousand of them in one piece: they are passed on at once, but not counted so
    fast that all others had to wait. It is read on when that is done.
    """

    __slots__ = ("_uncounted", "frames")

    def __init__(
        self, tunnel: "Tunnel", transport: asyncio.Transport, to: asyncio.Transport, frames: Frames
    ) -> None:
        super().__init__(tunnel, transport, to)
        self.frames = frames
        self._uncounted = b""

    @property
    def at_boundary(self) -> bool:
        """Whether a frame may follow what came from here: it came in full, and did not close."""
        return self.frames.at_boundary and not (self._uncounted or self.frames.closed)

    @override
    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._to.write(data)
        rest = self.frames.feed(data)
        if rest:
            self._fall_behind(rest)

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


class Tunnel:
    """What a WebSocket becomes after the instance's 101."""

    __slots__ = (
        "_closing",
        "_owner",
        "_seen",
        "_told",
        "deadline",
        "down",
        "error",
        "first_interacted_at",
        "interacted_at",
        "origin",
        "up",
    )

    def __init__(
        self, downstream: asyncio.Transport, upstream: asyncio.Transport, owner: Owner, origin: Origin
    ) -> None:
        """Tie two connections; `owner` is told once, when both are gone.

        It is in the owner's `connections` from its start to its end.
        """
        self.origin = origin
        self.error: ProxyError | None = None
        """Why it ended; None for cleanly, or not yet."""
        self.first_interacted_at: float | None = None
        """When the first data message came from the browser of a kernel channel, on the loop's clock."""
        self.interacted_at: float | None = None
        """When the last one came."""
        self.up = FollowedSide(self, upstream, downstream, Frames(masked=False))
        self.down = (
            Side(self, downstream, upstream)
            if origin.notebook is None
            else Person(self, downstream, upstream, Frames(masked=True))
        )
        self.down.peer, self.up.peer = self.up, self.down
        self.deadline = owner.now() + owner.tunnel_idle_s if owner.tunnel_idle_s else math.inf
        self._seen = 0
        self._told = 0
        self._closing = False
        self._owner = owner

    def start(self, from_client: bytes, from_instance: bytes) -> None:
        """Take the connections over, with the bytes that came early."""
        owner = self._owner
        owner.connections.add(self)
        for side in (self.down, self.up):
            side.transport.set_protocol(side)
            if not side.peer.full:
                side.transport.resume_reading()
        # Last: they may be more than the other side takes, which pauses this one.
        for side, early in ((self.down, from_client), (self.up, from_instance)):
            if early:
                side.data_received(early)

    def close(self, error: ProxyError | None, now: float) -> None:
        """End both sides after what is queued; at the deadline without it."""
        self.error = self.error or error
        self._end_by(now + LINGER_S)
        for side in (self.down, self.up):
            if not side.lost:
                side.transport.close()

    def expired(self, now: float) -> None:
        """End what has not ended by itself, and what has been idle for too long."""
        received = self.down.received + self.up.received
        if not self._closing and received != self._seen:
            self._seen, self.deadline = received, now + self._owner.tunnel_idle_s
            return
        if not self._closing:
            self.close(None, now)
            return
        self.deadline = math.inf
        for side in (self.down, self.up):
            if not side.lost:
                reset(side.transport)

    def drain(self) -> None:
        """End both sides: the worker stops."""
        self.close(None, self._owner.now())

    # --- what is known of it ---------------------------------------------------------------

    @property
    def may_take_a_frame(self) -> bool:
        """Whether a frame of ours would stand between two of the instance's, and before its close."""
        return self.up.at_boundary

    @property
    def messages_up(self) -> int | None:
        """Data messages from the browser of a kernel channel; None for other tunnels."""
        return self.down.frames.messages if isinstance(self.down, FollowedSide) else None

    @property
    def messages_down(self) -> int:
        """Data messages from the instance."""
        return self.up.frames.messages

    def has_progressed(self) -> bool:
        """Whether bytes have passed since this was asked last."""
        told, self._told = self._told, self.down.received + self.up.received
        return told != self._told

    # --- told by the sides -----------------------------------------------------------------

    def watch(self, side: Side) -> int:
        """Have `side` told of a reset, also when it does not read."""
        return self._owner.hangups.watch(side.transport, side.hung_up)

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back when others have had their turn."""
        self._owner.soon(callback)

    def note_interaction(self) -> None:
        """Keep the time: the user has done something."""
        self.interacted_at = now = self._owner.now()
        if self.first_interacted_at is None:
            self.first_interacted_at = now

    def side_ended(self, side: Side) -> None:
        """Close the half that leads to the other side, too."""
        side.ended = True
        if side.peer.ended:
            # Both halves are closed, which closes no transport by itself.
            self.close(None, self._owner.now())
        else:
            self._end_by(self._owner.now() + LINGER_S)
            side.peer.finish()

    def side_lost(self, side: Side) -> None:
        """End the other side in the same way; with the second one, all is over."""
        side.lost = True
        self._owner.hangups.forget(side.watched)
        if side.was_reset and self.error is None:
            self.error = ClientGone("reset") if side is self.down else InstanceUnreachable("reset")
        if side.peer.lost:
            self._owner.connections.discard(self)
            self._owner.tunnel_ended(self)
        elif side.was_reset:
            reset(side.peer.transport)
        else:
            self._end_by(self._owner.now() + LINGER_S)
            side.peer.transport.close()

    def _end_by(self, deadline: float) -> None:
        if not self._closing:
            self._closing, self.deadline = True, deadline
