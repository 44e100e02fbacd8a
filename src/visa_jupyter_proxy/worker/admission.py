"""How many clients there may be at a time, in all and from one address.

Past the first limit nobody is refused: the worker stops accepting, and the others wait in the kernel's
queue. Past the second, which is off by default, a connection is closed at once.
"""

import resource
from collections.abc import Callable
from typing import Final

_RESERVED_DESCRIPTORS: Final = 64
"""Standard streams, mailbox, listener, epoll, the API's connections, libraries."""

_DESCRIPTORS_OF_A_CLIENT: Final = 2
"""Its own connection, and the one to an instance."""


class Admission:
    """Counts client connections; `pause` and `resume` accepting as they come and go."""

    def __init__(
        self, most: int, most_of_an_address: int, *, pause: Callable[[], None], resume: Callable[[], None]
    ) -> None:
        """`most` 0 is what the file descriptors allow, `most_of_an_address` 0 is any number."""
        self.most = most or connections_that_descriptors_allow()
        self._most_of_an_address = most_of_an_address
        self._pause = pause
        self._resume = resume
        self.count = 0
        """How many clients there are."""
        self._addresses: dict[str, int] = {}
        self._paused = False

    def enter(self, address: str) -> bool:
        """Count a client that has connected; False when its address has too many already."""
        self.count += 1
        if self.count >= self.most and not self._paused:
            self._paused = True
            self._pause()
        if not self._most_of_an_address:
            return True
        self._addresses[address] = self._addresses.get(address, 0) + 1
        return self._addresses[address] <= self._most_of_an_address

    def leave(self, address: str) -> None:
        """Count one that has gone, admitted or not."""
        self.count -= 1
        if self._most_of_an_address:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
        if self._paused and self.count < self.most:
            self._paused = False
            self._resume()


def connections_that_descriptors_allow() -> int:
    """Return how many clients this process can have at a time, at least one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = 2**20
    return max(1, (soft - _RESERVED_DESCRIPTORS) // _DESCRIPTORS_OF_A_CLIENT)
