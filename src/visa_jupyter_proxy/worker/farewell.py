"""The end of a tunnel by a close frame of ours, where one may stand (RFC 6455 5.5.1, 7.1.2).

What the instance sends is passed on up to the next boundary of its frames; there the browser gets the close
frame, and nothing behind it. What the browser sends goes on to the instance, its answer to the close frame
last: so the instance learns of the end, closes, and the tunnel is over as any other. Nobody who keeps to
something else is waited for longer than `FAREWELL_S`.

A tunnel gets these parts when it is to end, and is as small and quick as any before.
"""

from collections.abc import Callable
from typing import Final, override

from visa_jupyter_proxy.worker.sides import Deaf, FollowedSide, Side

FAREWELL_S: Final = 2.0
"""For each step: to come to a boundary, to answer the close frame, to close. Docker leaves ten in all."""

SLOW_S: Final = 30.0
"""How long who still takes something may take for what was queued: nginx's lingering_time."""


class _LastFrame(Deaf):
    """In the place of the instance's side: passes on the rest of the frame that is under way."""

    __slots__ = ("_followed", "_passed")

    def __init__(self, side: FollowedSide, passed: Callable[[], None]) -> None:
        """Have `passed` called when some of it has been."""
        super().__init__(side)
        self._followed = side
        self._passed = passed

    @override
    def data_received(self, data: bytes) -> None:
        if not self._followed.frames.at_boundary:
            self._followed.finish_frame(data)
            self._passed()


class Farewell:
    """How far the end of one tunnel has come."""

    __slots__ = ("_closes_at", "_down", "_frame", "_now", "_said", "_soon", "_unsent", "_up", "deadline")

    def __init__(
        self,
        down: Side,
        up: FollowedSide,
        frame: bytes,
        *,
        now: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
    ) -> None:
        """Begin: `frame` is for the browser, at the next boundary of the instance's. Both sides are open."""
        self.deadline = now() + FAREWELL_S
        """When `expired` has to be called, on the loop's clock."""
        self._down, self._up = down, up
        self._frame = frame
        self._now = now
        self._soon = soon
        self._said = False
        self._closes_at: float | None = None
        """When what is queued is given up; None while the browser is still heard."""
        self._unsent = 0
        up.transport.set_protocol(_LastFrame(up, self._say))
        self._say()

    @property
    def is_last_word(self) -> bool:
        """Whether the browser is not heard any more, and only has to take what was sent and to close."""
        return self._closes_at is not None

    def expired(self, now: float) -> bool:
        """Go on to the next step; False when there is none, and the connections have to be reset."""
        self.deadline = now + FAREWELL_S
        if self._closes_at is None:
            self._closes_at = now + SLOW_S
            self._hang_up()
            return True
        unsent, self._unsent = self._unsent, self._queued
        if self._unsent:
            return self._unsent < unsent and now < self._closes_at
        if self._down.lost or self._down.transport.is_closing():
            return False
        self._down.transport.close()  # what is still on its way is with the kernel, and a reset would drop it
        return True

    def _say(self) -> None:
        """Write the close frame if it may stand here; otherwise wait for what comes, or for the deadline."""
        up = self._up
        if self._said or up.ended or self._down.lost:
            return  # where one has ended, its end has gone on to the other, and nothing may follow
        if up.is_behind:
            self._soon(self._say)
        elif up.at_boundary:
            self._said = True
            self._down.transport.write(self._frame)
            self.deadline = self._now() + FAREWELL_S
        elif up.frames.gave_up:
            self.deadline = self._now()  # no frames: there will be no boundary

    def _hang_up(self) -> None:
        """Hear neither side any more; send what is queued, and the end behind it."""
        down, up = self._down, self._up
        up.ended = True
        up.transport.close()
        self._unsent = self._queued
        if not down.lost:
            down.transport.set_protocol(Deaf(down))
            down.finish()
            if not down.ended:
                down.transport.resume_reading()

    @property
    def _queued(self) -> int:
        return sum(side.transport.get_write_buffer_size() for side in (self._down, self._up) if not side.lost)
