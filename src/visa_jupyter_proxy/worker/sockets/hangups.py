"""Resets that the event loop does not report.

While reading is paused, or after a half-close, the loop does not look at a socket, and a peer that has
reset its connection is noticed only at our next write, which may never come. One epoll of our own
watches such sockets for nothing but errors; it is itself a reader of the loop.
"""

import asyncio
import select
from collections.abc import Callable
from contextlib import suppress
from typing import Final

NOT_WATCHED: Final = -1
"""No descriptor has this number."""


class Hangups:
    """The watched connections of a worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._loop = loop
        loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, transport: asyncio.Transport, hung_up: Callable[[], None]) -> int:
        """Call `hung_up`, once, when the peer resets; the number is for `forget`."""
        sock = transport.get_extra_info("socket")
        descriptor: int = sock.fileno() if sock is not None else NOT_WATCHED
        if descriptor != NOT_WATCHED:
            # Edge-triggered, so that what is pending is told once; errors are reported unasked.
            self._epoll.register(descriptor, select.EPOLLET)
            self._watched[descriptor] = hung_up
        return descriptor

    def forget(self, descriptor: int) -> None:
        """Watch no longer, before the socket is closed and its number becomes another's."""
        if self._watched.pop(descriptor, None) is not None:
            with suppress(OSError):  # closed already: the kernel has forgotten it by itself
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Stop watching."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _look(self) -> None:
        for descriptor, events in self._epoll.poll(0):
            if events & select.EPOLLERR and (hung_up := self._watched.pop(descriptor, None)):
                hung_up()
