"""Sockets of the event loop that something else waits for, too.

The loop lets nobody else wait for sockets of its own. An epoll of ours does, which is itself a reader of the
loop.
"""

import asyncio
import select
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_MOST_IN_A_TURN: Final = 4
"""Splices that move before other connections have their turn: a millisecond's work."""


class Readiness:
    """Sockets that are waited for, level-triggered: each is watched only while somebody waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, event: int) -> None:
        """Watch for `event` (`select.EPOLLIN` or `select.EPOLLOUT`)."""
        self._loop = loop
        self._event = event
        self._epoll = select.epoll()
        self._waiting: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever the descriptor is, also with an error or its end."""
        self._waiting[descriptor] = ready
        self._epoll.register(descriptor, self._event)

    def forget(self, descriptor: int) -> None:
        """Watch no longer."""
        del self._waiting[descriptor]
        with suppress(OSError):  # closed already: the kernel has forgotten it by itself
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _look(self) -> None:
        # What is left out stands first in the kernel's queue the next time.
        for descriptor, _ in self._epoll.poll(0, _MOST_IN_A_TURN):
            ready = self._waiting.get(descriptor)  # the one before may have ended this one
            if ready is not None:
                ready()
