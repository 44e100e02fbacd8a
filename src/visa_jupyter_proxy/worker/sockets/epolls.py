"""Sockets of the event loop that something else waits for, too.

The loop lets nobody else wait for sockets of its own. An epoll of ours does, which is itself a reader of the
loop.
"""

import asyncio
import select
from collections.abc import Callable
from contextlib import suppress


class Epoll:
    """Sockets, by their descriptors, and whom to tell of each."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._look)

    def forget(self, descriptor: int) -> None:
        """Watch no longer, before the socket is closed and its number becomes another's."""
        if self._watched.pop(descriptor, None) is not None:
            with suppress(OSError):  # closed already: the kernel has forgotten it by itself
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _watch(self, descriptor: int, events: int, told: Callable[[], None]) -> None:
        self._epoll.register(descriptor, events)
        self._watched[descriptor] = told

    def _look(self) -> None:
        """Tell what has happened."""
        raise NotImplementedError
