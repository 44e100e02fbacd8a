"""Pipes of the kernel, for bytes that go from one socket to another (`splice`).

An ordinary user has a bounded number of them, so some are kept for the next body, and none is too small.
"""

import fcntl
import os
from contextlib import suppress
from typing import Final, NamedTuple

PIPE_SIZE: Final = 512 * 1024
"""What moves in one turn, so it bounds how long others wait; from 128 KiB to 1 MiB the cost is the same."""

_SMALLEST_PIPE: Final = 64 * 1024
"""Linux's default. Through the 8 KiB that remain past the limit, less moves at a time than through us."""

_MOST_KEPT: Final = 8
"""Empty pipes kept for the next ones: making one takes 30 us, moving 1 MiB through it 800."""


class Pipe(NamedTuple):
    """Two descriptors; whoever has taken it gives it back."""

    reader: int
    writer: int

    def close(self) -> None:
        """Give it back to the kernel, with what is in it."""
        os.close(self.reader)
        os.close(self.writer)


class Pipes:
    """The empty ones of a worker."""

    def __init__(self) -> None:
        self._kept: list[Pipe] = []

    @property
    def kept_count(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def take(self) -> Pipe | None:
        """Give an empty pipe; None when there is none to be had."""
        return self._kept.pop() if self._kept else _open()

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        """Keep a pipe, or close it."""
        if empty and len(self._kept) < _MOST_KEPT:
            self._kept.append(pipe)
        else:
            pipe.close()

    def close(self) -> None:
        """Close all that are kept."""
        while self._kept:
            self._kept.pop().close()


def _open() -> Pipe | None:
    try:
        pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:  # no more descriptors
        return None
    with suppress(PermissionError):  # an ordinary user has as many pages as it may
        fcntl.fcntl(pipe.writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    if fcntl.fcntl(pipe.writer, fcntl.F_GETPIPE_SZ) < _SMALLEST_PIPE:
        pipe.close()
        return None
    return pipe
