"""Sockets of the event loop that are waited for apart from it."""

import asyncio
from collections.abc import Callable
from typing import Final, override

from visa_jupyter_proxy.worker.sockets.epolls import Epoll

_MOST_IN_A_TURN: Final = 4
"""Splices that move before other connections have their turn: a millisecond's work."""


class Readiness(Epoll):
    """Sockets that are waited for, level-triggered: each is watched only while somebody waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, event: int) -> None:
        """Watch for `event` (`select.EPOLLIN` or `select.EPOLLOUT`)."""
        super().__init__(loop)
        self._event = event

    def watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever the descriptor is, also with an error or its end."""
        self._watch(descriptor, self._event, ready)

    @override
    def _look(self) -> None:
        # What is left out stands first in the kernel's queue the next time.
        for descriptor, _ in self._epoll.poll(0, _MOST_IN_A_TURN):
            ready = self._watched.get(descriptor)  # the one before may have ended this one
            if ready is not None:
                ready()
