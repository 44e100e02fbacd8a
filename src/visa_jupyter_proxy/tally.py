"""What the workers of one proxy know of each other: how many clients each has, and from which addresses.

Memory that control makes and every worker maps. A worker has one place in it, where it alone writes; all
read everything. So there is no lock, and nobody waits for anybody: a number is one aligned word, and may
be a moment old. When a worker is gone, control clears its place.

Connections are counted for each address in a count-min sketch (Cormode and Muthukrishnan, 2005): an
address has one cell in each of four rows, and the smallest of the four is its count. It is never too low;
it is too high only for an address that meets others in all its cells, one in 80 000 when a thousand
addresses are connected. The cells are chosen with a secret key, so nobody can look for such an address.
"""

import hashlib
import mmap
import os
from collections.abc import Iterator
from typing import Final, Self

_WORD: Final = 4
_KEY: Final = 16
"""Bytes of the secret key, in front of the places."""

_CLIENTS: Final = 0
_SEEN: Final = 1
"""When the worker was last seen to turn, in whole seconds; 0 is: it accepts nobody."""
_CELLS: Final = 2
"""Where in a place the cells begin."""

_ROWS: Final = 4
_COLUMNS: Final = 2**14
_PLACE: Final = _CELLS + _ROWS * _COLUMNS
"""Words of a place: 256 KiB, of which the kernel provides what is written to."""

STALE_S: Final = 3
"""A worker that has not ticked for so long is not waited for: three of its ticks."""


class Tally:
    """The memory, as control sees it. Close it when all workers are gone."""

    def __init__(self, descriptor: int, places: int) -> None:
        """Map what `descriptor` names; it belongs to the tally from here on."""
        self.descriptor = descriptor
        self.places = places
        self._memory = mmap.mmap(descriptor, _KEY + places * _PLACE * _WORD)
        self.key = self._memory[:_KEY]
        self.words = memoryview(self._memory)[_KEY:].cast("I")

    @classmethod
    def create(cls, places: int) -> Self:
        """Make the memory for so many workers. Raises `OSError`."""
        descriptor = os.memfd_create("visa-jupyter-proxy")
        os.ftruncate(descriptor, _KEY + places * _PLACE * _WORD)
        os.pwrite(descriptor, os.urandom(_KEY), 0)
        return cls(descriptor, places)

    def clear(self, place: int) -> None:
        """Forget a worker that is gone."""
        begin = place * _PLACE
        self.words[begin : begin + _PLACE] = memoryview(bytes(_PLACE * _WORD)).cast("I")

    def close(self) -> None:
        """Give the memory back."""
        self.words.release()
        self._memory.close()
        os.close(self.descriptor)


class Place:
    """A worker's own place, from which it sees those of the others."""

    def __init__(self, tally: Tally, number: int) -> None:
        self._words = tally.words
        self._key = tally.key
        self._mine = number * _PLACE
        self._all = range(0, tally.places * _PLACE, _PLACE)
        self._others = tuple(place for place in self._all if place != self._mine)

    def publish(self, clients: int) -> None:
        """Tell the others how many clients this worker has."""
        self._words[self._mine + _CLIENTS] = clients

    def seen(self, now: float) -> None:
        """Tell the others that this worker accepts; `now` is the monotonic clock, the same for all."""
        self._words[self._mine + _SEEN] = max(1, int(now))

    def away(self) -> None:
        """Tell the others that it does not."""
        self._words[self._mine + _SEEN] = 0

    def has_fewest(self, now: float) -> bool:
        """Return whether no other worker that accepts clients has fewer than this one."""
        words = self._words
        mine = words[self._mine + _CLIENTS]
        return not any(
            words[other + _CLIENTS] < mine and now - words[other + _SEEN] <= STALE_S for other in self._others
        )

    def enter(self, address: str) -> int:
        """Count a client, and return how many its address has on all workers."""
        fewest = 2**32
        for cell in self._cells(address):
            self._words[self._mine + cell] += 1
            fewest = min(fewest, sum(self._words[place + cell] for place in self._all))
        return fewest

    def leave(self, address: str) -> None:
        """Count one that has gone."""
        for cell in self._cells(address):
            self._words[self._mine + cell] -= 1

    def _cells(self, address: str) -> Iterator[int]:
        digest = hashlib.blake2b(address.encode(), key=self._key, digest_size=2 * _ROWS).digest()
        for row in range(_ROWS):
            chosen = int.from_bytes(digest[2 * row : 2 * row + 2], "big") % _COLUMNS
            yield _CELLS + row * _COLUMNS + chosen
