"""How many clients there may be at a time, in all and from one address (in IPv6: from one network).

Past the first limit nobody is refused: the worker stops accepting, and the others wait in the kernel's
queue. Past the second, which is off by default, a connection is closed at once.

Several workers divide the first limit: each has its part of it, and because they accept from one queue,
nobody waits while one of them has room. The second cannot be divided, for the connections of one
address may be anywhere: the workers count them together, in the memory that they share.
"""

import fcntl
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from visa_jupyter_proxy.tally import Place
from visa_jupyter_proxy.worker.sockets.networks import of_one_client

_RESERVED_DESCRIPTORS: Final = 64
"""Standard streams, mailbox, listener, epoll, the API's connections, libraries."""

_MOST_PIPES: Final = 32
"""Of a worker. Linux lets an ordinary user have 128 pipes of 512 KiB (pipe-user-pages-soft), in all
processes together, and makes further ones small: enough for four workers."""

_DESCRIPTORS_FOR_A_PIPE: Final = 32
"""One pipe for so many descriptors: most are for connections."""

_DESCRIPTORS_OF_A_PIPE: Final = 2

_DESCRIPTORS_OF_A_CLIENT: Final = 2
"""Its own connection, and the one to an instance."""

_IDLE_SHARE: Final = 8
"""One descriptor in eight is for connections to instances that are kept though their clients have gone."""

_LARGEST_TABLE: Final = 2**16
"""Descriptors for which there is room at once; half a megabyte of the kernel's memory."""


class Admission:
    """Counts client connections; `pause` and `resume` accepting as they come and go."""

    def __init__(
        self,
        most: int,
        most_of_an_address: int,
        *,
        pause: Callable[[], None],
        resume: Callable[[], None],
        place: Place | None = None,
    ) -> None:
        """`most` 0 is what the file descriptors allow, `most_of_an_address` 0 is any number.

        `place` is this worker's among several; None when it is alone.
        """
        self.most = most or connections_that_descriptors_allow()
        self._most_of_an_address = most_of_an_address
        self._pause = pause
        self._resume = resume
        self.count = 0
        """How many clients there are."""
        self._place = place
        self._addresses: Addresses = _Addresses() if place is None else place
        self._paused = False

    def allow(self, most: int) -> None:
        """Have another bound from now on; nobody who is there has to go."""
        self.most = most or connections_that_descriptors_allow()
        if self._paused and self.count < self.most:
            self._paused = False
            self._resume()
        elif not self._paused and self.count >= self.most:
            self._paused = True
            self._pause()

    def enter(self, address: str) -> bool:
        """Count a client that has connected; False when its address has too many already."""
        self._changed(self.count + 1)
        if self.count >= self.most and not self._paused:
            self._paused = True
            self._pause()
        if not self._most_of_an_address:
            return True
        return self._addresses.enter(of_one_client(address)) <= self._most_of_an_address

    def leave(self, address: str) -> None:
        """Count one that has gone, admitted or not."""
        self._changed(self.count - 1)
        if self._most_of_an_address:
            self._addresses.leave(of_one_client(address))
        if self._paused and self.count < self.most:
            self._paused = False
            self._resume()

    def _changed(self, count: int) -> None:
        self.count = count
        if self._place is not None:
            self._place.publish(count)


class Addresses(Protocol):
    """Counts the connections of each address."""

    def enter(self, address: str) -> int:
        """Count one that has come, and return how many there are."""

    def leave(self, address: str) -> None:
        """Count one that has gone."""


class _Addresses:
    """Those of the only worker."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def enter(self, address: str) -> int:
        count = self._counts[address] = self._counts.get(address, 0) + 1
        return count

    def leave(self, address: str) -> None:
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]


def connections_that_descriptors_allow() -> int:
    """Return how many clients this process can have at a time, at least one."""
    left = _descriptors() - idle_connections_that_descriptors_allow()
    return max(1, left // _DESCRIPTORS_OF_A_CLIENT)


def idle_connections_that_descriptors_allow() -> int:
    """Return how many connections to instances may wait for the next request, beside those in use."""
    return max(0, _descriptors() // _IDLE_SHARE)


def make_room_for_descriptors() -> None:
    """Have the kernel make its table of our descriptors as large as it may become, before there are threads.

    It doubles the table when it is full, and with threads it waits each time until no CPU reads the old one
    (RCU): seven times 10 to 20 ms while 5 000 clients connect. The table takes eight bytes for each.
    """
    last = min(_limit(), _LARGEST_TABLE) - 1
    with Path(os.devnull).open("rb") as nothing:
        os.close(fcntl.fcntl(nothing, fcntl.F_DUPFD_CLOEXEC, last))


def pipes_that_descriptors_allow() -> int:
    """Return how many pipes may move large bodies at a time; bodies beyond that pass without one."""
    return min(_MOST_PIPES, _limit() // _DESCRIPTORS_FOR_A_PIPE)


def _descriptors() -> int:
    return _limit() - _RESERVED_DESCRIPTORS - pipes_that_descriptors_allow() * _DESCRIPTORS_OF_A_PIPE


def _limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else soft
