"""Those who come or go all at once: one after the other, and nobody else waits for all of them.

When a network or a proxy in front has been away, thousands of browsers open their WebSockets in the same
moment. The loop would serve them in the order in which they came, and whoever asks for something meanwhile
would wait for the whole crowd: a third of a second behind 5 000. So what is first said on a connection, be
it by a client or by an instance that answers to a WebSocket, and what ends a tunnel, is taken at once while
it is few, and has to wait when it is many: a part of each turn of the loop is for those who wait, in order,
and the rest of it for whoever is in already.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final, cast, override

MOST_AT_ONCE: Final = 16
"""So many in one turn of the loop need not wait: it takes about two milliseconds with them."""

SHARE: Final = 0.125
"""Of a turn's time, for those who wait. What comes of them without waiting (a connection to the instance that
is there, a transport that is closed) takes as much again and more, and is everybody's work."""

LEAST_S: Final = 0.0002
"""Of a turn, however short it was: one of them goes in at least."""


class Crowd:
    """Lets steps that may be many into the loop's turns."""

    def __init__(
        self,
        soon: Callable[[Callable[[], None]], object],
        exact: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`soon` calls back in the loop's next turn; `exact` is a clock that always moves."""
        self._soon = soon
        self.exact = exact
        self._waiting: deque[Callable[[], None]] = deque()
        self._come = 0
        """In this turn."""
        self._left_at = 0.0

    def may_enter(self) -> bool:
        """Count one more in this turn, and say whether it may go on at once; if not, it has to `wait`."""
        if not self._come:
            self._soon(self._turned)
        self._come += 1
        return self._come <= MOST_AT_ONCE and not self._waiting

    def wait(self, step: Callable[[], None]) -> None:
        """Take a step when it is its turn, in the order in which they came."""
        if not self._waiting:
            self._left_at = self.exact()
            self._soon(self._let_in)
        self._waiting.append(step)

    def enter(self, step: Callable[[], None]) -> None:
        """Take a step, at once if that may be."""
        if self.may_enter():
            step()
        else:
            self.wait(step)

    def _turned(self) -> None:
        self._come = 0

    def _let_in(self) -> None:
        began = self.exact()
        until = began + max(LEAST_S, SHARE * (began - self._left_at))
        waiting = self._waiting
        try:
            while waiting:
                waiting.popleft()()
                if self.exact() >= until:
                    break
        finally:  # whatever became of one, those behind it have their turn
            self._left_at = self.exact()
            if waiting:
                self._soon(self._let_in)


class Entrant(asyncio.Protocol):
    """The protocol of a connection whose first bytes have to wait for their turn."""

    deadline: float
    """On the loop's clock; `math.inf` while they wait: they have come in time, and wait for us."""
    is_heard_when_lost = False
    """Whether somebody wants what has come although the connection is lost before its turn."""


class Newcomer(asyncio.Protocol):
    """Stands in for the protocol of a connection whose first bytes wait for their turn.

    What comes meanwhile is kept. Not to read would take six system calls for each of a crowd, and hardly
    anybody says more before there is an answer: only who does is not read any more.
    """

    __slots__ = ("_came_at", "_crowd", "_data", "_deadline", "_entrant", "_has_ended", "_transport")

    def __init__(self, crowd: Crowd, transport: asyncio.Transport, entrant: Entrant, data: bytes) -> None:
        """Take the connection over; `entrant` gets it back with `data` and what follows, or with its end."""
        self._crowd = crowd
        self._transport = transport
        self._entrant = entrant
        self._data = data
        self._has_ended = False
        self._came_at = crowd.exact()
        self._deadline, entrant.deadline = entrant.deadline, math.inf
        transport.set_protocol(self)
        crowd.wait(self._enter)

    @override
    def data_received(self, data: bytes) -> None:
        self._data += data
        self._transport.pause_reading()

    @override
    def eof_received(self) -> bool:
        self._has_ended = True
        return self._transport.can_write_eof()  # what becomes of it is said when it is its turn

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        entrant, data = self._entrant, self._data
        self._data = b""
        self._transport.set_protocol(entrant)
        if entrant.is_heard_when_lost:
            entrant.data_received(data)
            if self._has_ended:
                self._successor.eof_received()
        self._successor.connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        self._entrant.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._entrant.resume_writing()

    @property
    def _successor(self) -> asyncio.Protocol:
        """Who has the connection by now: a tunnel may have taken it over from the entrant."""
        return cast("asyncio.Protocol", self._transport.get_protocol())

    def _enter(self) -> None:
        transport, entrant = self._transport, self._entrant
        if not self._data or transport.is_closing():
            return  # it has gone meanwhile, or will be gone in a moment
        transport.set_protocol(entrant)
        entrant.deadline = self._deadline + self._crowd.exact() - self._came_at
        transport.resume_reading()
        entrant.data_received(self._data)
        if self._has_ended and not (transport.is_closing() or self._successor.eof_received()):
            transport.close()
