"""Those who come all at once: they go in one after the other, and nobody else waits for all of them.

When a network or a proxy in front has been away, thousands of browsers open their WebSockets in the same
moment. The loop would serve them in the order in which they came, and whoever asks for something meanwhile
would wait for the whole crowd: a third of a second behind 5 000. So what a new connection says first is
taken at once while few come, and has to wait when many do: a part of each turn of the loop is for those
who wait, in order, and the rest of it for whoever is in already.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

MOST_AT_ONCE: Final = 64
"""So many in one turn of the loop need not wait: it takes about five milliseconds with them. With a bound
of eight in a millisecond, 32 clients that connected again and again paid a quarter more of CPU."""

SHARE: Final = 0.25
"""Of a turn's time, for those who wait. What comes of them later (a connection to the instance, its 101)
takes as much again and more, and is everybody's work."""

LEAST_S: Final = 0.0002
"""Of a turn, however short it was: one of them goes in at least."""


class Newcomers:
    """Lets what new connections say first into the loop's turns."""

    def __init__(
        self,
        soon: Callable[[Callable[[], None]], object],
        exact: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`soon` calls back in the loop's next turn; `exact` is a clock that always moves."""
        self._soon = soon
        self._exact = exact
        self._waiting: deque[Callable[[], None]] = deque()
        self._come = 0
        """In this turn."""
        self._left_at = 0.0

    def may_enter(self) -> bool:
        """Count one more, and say whether it may go on at once; if not, it has to `wait`."""
        if not self._come:
            self._soon(self._turned)
        self._come += 1
        return self._come <= MOST_AT_ONCE and not self._waiting

    def wait(self, enter: Callable[[], None]) -> None:
        """Call `enter` when it is its turn."""
        if not self._waiting:
            self._left_at = self._exact()
            self._soon(self._let_in)
        self._waiting.append(enter)

    def _turned(self) -> None:
        self._come = 0

    def _let_in(self) -> None:
        began = self._exact()
        until = began + max(LEAST_S, SHARE * (began - self._left_at))
        waiting = self._waiting
        try:
            while waiting:
                waiting.popleft()()
                if self._exact() >= until:
                    break
        finally:  # whatever became of one, those behind it have their turn
            self._left_at = self._exact()
            if waiting:
                self._soon(self._let_in)
