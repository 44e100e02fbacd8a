"""Two connections tied together: raw bytes both ways until both are done.

Back-pressure is the loop's own: `pause_writing` on one side is `pause_reading` on the other. A half
that is closed is closed on the other side too, after what was queued; a reset is passed on as one.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final, override

from visa_jupyter_proxy.errors import ClientGone, InstanceUnreachable, ProxyError
from visa_jupyter_proxy.worker.hangups import NOT_WATCHED, Hangups
from visa_jupyter_proxy.worker.sockets import Timed, reset

LINGER_S: Final = 30.0
"""How long a side may go on after the other has ended: nginx's lingering_time."""


class Side(asyncio.Protocol):
    """One of the two connections."""

    peer: "Side"

    def __init__(self, tunnel: "Tunnel", transport: asyncio.Transport) -> None:
        self.transport = transport
        self.received = 0
        self.ended = False
        """Whether this side will send no more."""
        self.lost = False
        self.was_reset = False
        self.watched = NOT_WATCHED
        self._tunnel = tunnel

    @override
    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.peer.transport.write(data)

    @override
    def eof_received(self) -> bool:
        self._tunnel.side_ended(self)
        return True

    @override
    def pause_writing(self) -> None:
        self.peer.transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        self.peer.transport.resume_reading()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.was_reset = self.was_reset or exc is not None
        self._tunnel.side_lost(self)

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


class Tunnel:
    """What a WebSocket becomes after the instance's 101."""

    def __init__(
        self,
        downstream: asyncio.Transport,
        upstream: asyncio.Transport,
        connections: set[Timed],
        hangups: Hangups,
        *,
        idle_s: float,
        now: Callable[[], float],
        ended: Callable[["Tunnel", ProxyError | None], None],
    ) -> None:
        """Tie two connections; `ended` is called once, when both are gone, with why (None: cleanly).

        Without a byte either way for `idle_s` (0 is never) it is closed. It is in `connections`, for
        the worker's tick, from its start to its end.
        """
        self.down = Side(self, downstream)
        self.up = Side(self, upstream)
        self.down.peer, self.up.peer = self.up, self.down
        self.deadline = now() + idle_s if idle_s else math.inf
        self._idle_s = idle_s
        self._seen = 0
        self._closing = False
        self._connections = connections
        self._hangups = hangups
        self._now = now
        self._ended = ended
        self._error: ProxyError | None = None

    def start(self, from_client: bytes, from_instance: bytes) -> None:
        """Take the connections over, with the bytes that came early."""
        self._connections.add(self)
        for side in (self.down, self.up):
            side.transport.set_protocol(side)
            side.watched = self._hangups.watch(side.transport, side.hung_up)
            side.transport.resume_reading()
        # Last: they may be more than the other side takes, which pauses this one.
        for side, early in ((self.down, from_client), (self.up, from_instance)):
            if early:
                side.data_received(early)

    def close(self, error: ProxyError | None, now: float) -> None:
        """End both sides after what is queued; at the deadline without it."""
        self._error = self._error or error
        self._end_by(now + LINGER_S)
        for side in (self.down, self.up):
            if not side.lost:
                side.transport.close()

    def expired(self, now: float) -> None:
        """End what has not ended by itself, and what has been idle for too long."""
        received = self.down.received + self.up.received
        if not self._closing and received != self._seen:
            self._seen, self.deadline = received, now + self._idle_s
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
        self.close(None, self._now())

    # --- told by the sides -----------------------------------------------------------------

    def side_ended(self, side: Side) -> None:
        """Close the half that leads to the other side, too."""
        side.ended = True
        if side.peer.ended:
            # Both halves are closed, which closes no transport by itself.
            self.close(None, self._now())
        else:
            self._end_by(self._now() + LINGER_S)
            side.peer.finish()

    def side_lost(self, side: Side) -> None:
        """End the other side in the same way; with the second one, all is over."""
        side.lost = True
        self._hangups.forget(side.watched)
        if side.was_reset and self._error is None:
            self._error = ClientGone("reset") if side is self.down else InstanceUnreachable("reset")
        if side.peer.lost:
            self._connections.discard(self)
            self._ended(self, self._error)
        elif side.was_reset:
            reset(side.peer.transport)
        else:
            self._end_by(self._now() + LINGER_S)
            side.peer.transport.close()

    def _end_by(self, deadline: float) -> None:
        if not self._closing:
            self._closing, self.deadline = True, deadline
