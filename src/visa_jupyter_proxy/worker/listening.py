"""Where clients come in: the listening socket that control has bound, and that all workers share.

A worker that is alone leaves accepting to uvloop. Several would take very uneven parts of it so: all are
woken, and whoever turns fastest takes most of what waits (41 of 400 connections here, 359 there). So each
takes one connection at a time, and only while no other worker has fewer; what it leaves to the others
it takes all the same if it still waits there a few milliseconds later.
`docs/decisions/0006-workers-share-one-socket.md` has the figures, and what else was thought of.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.tally import Place

_BACKLOG: Final = 4096
"""Connections that wait to be accepted: Linux's net.core.somaxconn."""

LEFT_TO_OTHERS_S: Final = 0.005
"""How long a connection is left to a worker with fewer; an idle one takes it in a tenth of a millisecond."""

_RETRY_S: Final = 1.0
"""After an error of the system such as ENFILE: asyncio's ACCEPT_RETRY_DELAY."""


class Listening(Protocol):
    """Accepts, and can stop and go on. What is not accepted waits in the kernel's queue."""

    async def start(self) -> None:
        """Accept, from the return on."""

    def pause(self) -> None:
        """Accept nobody until `resume`."""

    def resume(self) -> None:
        """Accept again."""

    def close(self) -> None:
        """Accept nobody any more."""

    def tick(self, now: float) -> None:
        """Once a second."""


class Alone:
    """Of the only worker: uvloop accepts, and takes 15 us less for it than we would."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        connected: Callable[[], asyncio.Protocol],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._connected = connected
        self._accepts = True
        self._server: asyncio.Server | None = None
        self._one_server = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept, on a descriptor of its own: that can be closed and leaves the queue as it is."""
        async with self._one_server:
            if self._server is None and self._accepts:
                self._server = await self._loop.create_server(
                    self._connected, sock=self._listener.dup(), backlog=_BACKLOG
                )
            if not self._accepts:
                self._close_server()

    def pause(self) -> None:
        """Accept nobody until `resume`."""
        self._accepts = False
        self._close_server()

    def resume(self) -> None:
        """Accept again."""
        if self._listener.fileno() != -1:
            self._accepts = True
            self._task = self._loop.create_task(self.start())

    def close(self) -> None:
        """Accept nobody any more."""
        self.pause()
        self._listener.close()

    def tick(self, now: float) -> None:
        """Do nothing: nobody looks."""

    def _close_server(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.close()


class Shared:
    """Of one worker among several: each takes its part."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        connected: Callable[[], asyncio.Protocol],
        place: Place,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._connected = connected
        self._place = place
        self._accepts = True
        self._reads = False
        self._coming: set[asyncio.Task[object]] = set()
        self._later: asyncio.TimerHandle | None = None
        listener.setblocking(False)

    async def start(self) -> None:
        """Accept, from the return on."""
        self.resume()

    def pause(self) -> None:
        """Accept nobody until `resume`; the others are told."""
        self._accepts = False
        self._stop_reading()
        self._place.away()

    def resume(self) -> None:
        """Accept again."""
        if self._listener.fileno() != -1:
            self._accepts = True
            self._place.seen(self._loop.time())
            self._read()

    def close(self) -> None:
        """Accept nobody any more."""
        self.pause()
        self._listener.close()

    def tick(self, now: float) -> None:
        """Tell the others that this worker turns."""
        if self._accepts:
            self._place.seen(now)

    def _read(self) -> None:
        if self._accepts and not self._reads:
            self._reads = True
            self._loop.add_reader(self._listener.fileno(), self._waiting)

    def _stop_reading(self) -> None:
        if self._reads:
            self._reads = False
            self._loop.remove_reader(self._listener.fileno())
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _waiting(self) -> None:
        if self._place.has_fewest(self._loop.time()):
            self._take()
        else:
            # The kernel would tell us again and again.
            self._stop_reading()
            self._later = self._loop.call_later(LEFT_TO_OTHERS_S, self._take_what_is_left)

    def _take_what_is_left(self) -> None:
        self._take()
        self._read()

    def _take(self) -> None:
        """Accept one connection; the next one is for the next turn of the loop, when this one counts."""
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another worker was faster, or the client has gone
        except OSError as error:
            logs.get().error("cannot accept connections for a moment", error=error.strerror)
            self._stop_reading()
            self._later = self._loop.call_later(_RETRY_S, self._read)
            return
        coming = asyncio.Task(
            self._loop.connect_accepted_socket(self._connected, client), loop=self._loop, eager_start=True
        )
        self._coming.add(coming)
        coming.add_done_callback(self._come)

    def _come(self, task: asyncio.Task[object]) -> None:
        self._coming.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logs.get().error("a connection could not be taken over", exc_info=error)
