"""Two connections tied together: raw bytes both ways until both are done.

Back-pressure is the loop's own: `pause_writing` on one side is `pause_reading` on the other. A half
that is closed is closed on the other side too, after what was queued; a reset is passed on as one.

A tunnel lives for hours and is one of thousands: it keeps the few values that its end needs (`Origin`),
and nothing of the exchange that it comes from.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from visa_jupyter_proxy.close_codes import SERVICE_RESTART
from visa_jupyter_proxy.errors import ClientGone, InstanceUnreachable, ProxyError
from visa_jupyter_proxy.worker.crowds import Crowd
from visa_jupyter_proxy.worker.farewell import Farewell
from visa_jupyter_proxy.worker.http.websocket import Frames, close_frame
from visa_jupyter_proxy.worker.sides import Deaf, FollowedSide, Person, Side
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.sockets.sockets import Timed

LINGER_S: Final = 30.0
"""How long a side may go on after the other has ended: nginx's lingering_time."""

RESTARTING: Final = "service restart"
"""Why a worker that stops ends its tunnels: the name of the close code."""


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
    user_agent: bytes | None
    """What the browser says that it is; cut, for the log."""
    began: float
    """When the request came, on the loop's clock."""
    notebook: int | None
    """The number by which control knows a kernel channel; None for other tunnels."""


class Owner(Protocol):
    """What a tunnel needs of the worker that it is in."""

    connections: set[Timed]
    """Every open connection, for the worker's tick."""
    hangups: Hangups
    crowd: Crowd
    """Has ends wait that come all at once."""
    tunnel_idle_s: float
    """How long a tunnel may be without a byte either way; 0 is for ever."""

    def now(self) -> float:
        """Return the loop's clock."""

    def soon(self, callback: Callable[[], None]) -> object:
        """Call back in the next turn of the loop, when others have had theirs."""

    def tunnel_ended(self, tunnel: "Tunnel") -> None:
        """Take note, once: both sides are gone."""


class Tunnel:
    """What a WebSocket becomes after the instance's 101."""

    __slots__ = (
        "_closing",
        "_farewell",
        "_is_cut",
        "_owner",
        "_seen",
        "_told",
        "deadline",
        "down",
        "ended_for",
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
        """What broke it; None for nothing, or not yet."""
        self.ended_for: str | None = None
        """Why we have ended it; None for others have, or not yet."""
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
        self._is_cut = False
        self._farewell: Farewell | None = None
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

    def end(self, code: int, reason: str, now: float) -> None:
        """End with a close frame for the browser, between two frames of the instance.

        Without a boundary within `farewell.FAREWELL_S`, or where no frames pass, there is none. `reason` is
        also what is recorded. Nothing suspends; the end comes later, as that of any tunnel.
        """
        if self._farewell is not None or self._is_lost:
            return
        self.ended_for = reason
        if self._closing:
            self.close(None, now)  # one side has ended already: there is nothing to be said between frames
            return
        self._closing = True
        owner = self._owner
        self._farewell = Farewell(
            self.down, self.up, close_frame(code, reason), now=owner.now, soon=owner.soon
        )
        self.deadline = self._farewell.deadline

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
        farewell = self._farewell
        if farewell is not None and (farewell.deadline > now or farewell.expired(now)):
            self.deadline = farewell.deadline
            return
        self.deadline = math.inf
        for side in (self.down, self.up):
            side.reset()

    def drain(self) -> None:
        """End: the worker stops, and another one will serve."""
        self.end(SERVICE_RESTART, RESTARTING, self._owner.now())

    def cut(self) -> None:
        """End at once, whatever is queued: there is no time left."""
        if self._is_lost:
            self._over()
            return
        self._is_cut = True
        self.ended_for = self.ended_for or RESTARTING
        for side in (self.down, self.up):
            if not side.lost:
                side.transport.abort()

    # --- what is known of it ---------------------------------------------------------------

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

    def in_turn(self, step: Callable[[], None]) -> None:
        """Take a step, later when there are many."""
        self._owner.crowd.enter(step)

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
        side.lost = side.ended = True
        self._owner.hangups.forget(side.watched)
        if side.was_reset and self.error is None:
            self.error = ClientGone("reset") if side is self.down else InstanceUnreachable("reset")
        if side.peer.lost:
            self._closing, self.deadline = True, math.inf
            if self._is_cut:
                self._over()  # the worker has no more turns for a crowd
            else:
                self._owner.crowd.enter(self._over)
        elif side.was_reset:
            self._end_by(self._owner.now() + LINGER_S)
            side.peer.transport.set_protocol(Deaf(side.peer))  # there is nobody to send it on to
            self._owner.crowd.enter(side.peer.reset)
        elif self._farewell is None or not self._farewell.is_last_word:
            self._end_by(self._owner.now() + LINGER_S)
            side.peer.transport.close()

    @property
    def _is_lost(self) -> bool:
        """Whether both connections are over; that is taken note of when it is its turn."""
        return self.down.lost and self.up.lost

    def _over(self) -> None:
        if self not in self._owner.connections:
            return  # it was cut while this step waited
        self._owner.connections.discard(self)
        self._owner.tunnel_ended(self)
        self.down.let_go()
        self.up.let_go()

    def _end_by(self, deadline: float) -> None:
        if not self._closing:
            self._closing, self.deadline = True, deadline
