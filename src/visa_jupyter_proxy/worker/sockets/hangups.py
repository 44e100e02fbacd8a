"""Resets that the event loop does not report.

While reading is paused, or after a half-close, the loop does not look at a socket, and a peer that has
reset its connection is noticed only at our next write, which may never come. Such sockets are watched for
nothing but errors.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Final, override

from visa_jupyter_proxy.worker.sockets.epolls import Epoll

NOT_WATCHED: Final = -1
"""No descriptor has this number."""


class Hangups(Epoll):
    """The watched connections of a worker."""

    def watch(self, transport: asyncio.Transport, hung_up: Callable[[], None]) -> int:
        """Call `hung_up`, once, when the peer resets; the number is for `forget`."""
        sock = transport.get_extra_info("socket")
        descriptor: int = sock.fileno() if sock is not None else NOT_WATCHED
        if descriptor != NOT_WATCHED:
            # Edge-triggered, so that what is pending is told once; errors are reported unasked.
            self._watch(descriptor, select.EPOLLET, hung_up)
        return descriptor

    @override
    def _look(self) -> None:
        for descriptor, events in self._epoll.poll(0):
            if events & select.EPOLLERR and (hung_up := self._watched.pop(descriptor, None)):
                hung_up()
