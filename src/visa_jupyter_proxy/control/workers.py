"""A worker process as control sees it: started, spoken to, pinged, ended.

A worker inherits the listening socket, its end of the mailbox and, when there are several, the memory
that they share, and nothing else.
"""

import asyncio
import itertools
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.spawner import Process, Spawner
from visa_jupyter_proxy.mailbox import (
    Drain,
    EndTunnels,
    LookAtTunnels,
    Mailbox,
    Message,
    Ping,
    Pong,
    Ready,
    Reload,
    ShowState,
    Start,
)
from visa_jupyter_proxy.tally import Tally

PING_S: Final = 1.0

MOST_UNANSWERED: Final = 30
"""A worker that has left so many pings unanswered hangs: gunicorn's `timeout` is 30 s too. Pings are
counted, not seconds: a machine that was suspended finds its workers as they were."""

_FEW_UNANSWERED: Final = 3
"""Pings that a worker leaves unanswered while it is only busy; its neighbours wait no longer for it, either
(decision 6)."""

_EXIT_S: Final = 2.0
"""How long a process may take to end after it has closed its mailbox."""

_numbers = itertools.count(1)


class WorkerProcess:
    """One life of a worker; a restarted worker is another one, with another number."""

    def __init__(self, spawner: Spawner, received: Callable[["WorkerProcess", Message], None]) -> None:
        """`received` is called with every message that is not about the process itself."""
        self.number = next(_numbers)
        self.ready = asyncio.Event()
        """Set when it accepts connections."""
        self.settled = asyncio.Event()
        """Set when one of the two is, or when the process could not be started."""
        self.gone = asyncio.Event()
        """Set when the process has ended, and all its messages have been handed on."""
        self.started_at = time.monotonic()
        self._spawner = spawner
        self._received = received
        self._lost = asyncio.Event()
        self._unanswered = 0
        self._mailbox: Mailbox | None = None
        self._process: Process | None = None
        self._reload: Reload | None = None
        self._life: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket, message: Start, tally: Tally | None) -> None:
        """Start the process. Raises `OSError` when the system refuses."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [listener.fileno(), theirs.fileno()]
            if tally is not None:
                descriptors.append(tally.descriptor)
            # -P: what lies in the working directory is not ours to import.
            command = (sys.executable, "-P", "-m", "visa_jupyter_proxy.worker", *map(str, descriptors))
            try:
                self._process = await self._spawner.start(command, descriptors)
            except OSError:
                ours.close()
                raise
        self._mailbox = await Mailbox.open(ours, self._take, self._lost.set)
        self._mailbox.send(message)
        if self._reload is not None:
            self._mailbox.send(self._reload)
        self._life = asyncio.create_task(self._live(self._process, self._mailbox))

    @property
    def is_serving(self) -> bool:
        """Whether the process is there and accepts connections, or has done so and finishes."""
        return self.ready.is_set() and not self.gone.is_set()

    @property
    def is_responsive(self) -> bool:
        """Whether it serves, and has not been silent for some seconds: stopped by somebody, or hanging."""
        return self.is_serving and self._unanswered <= _FEW_UNANSWERED

    @property
    def pid(self) -> int | None:
        """Process id while the process is there."""
        return self._process.pid if self._process is not None and self._process.is_there else None

    def drain(self, seconds: float) -> None:
        """Ask the worker to finish within `seconds` and exit."""
        if self._mailbox is not None:
            self._mailbox.send(Drain(seconds=seconds))

    def look(self) -> None:
        """Have the worker tell at once what has passed through kernel channels."""
        if self._mailbox is not None:
            self._mailbox.send(LookAtTunnels())

    def end_tunnels(self, message: EndTunnels) -> None:
        """Have the worker end tunnels; their ends follow as messages of theirs."""
        if self._mailbox is not None:
            self._mailbox.send(message)

    def reload(self, message: Reload) -> None:
        """Have the worker go by other settings and routes, also one that is just being started."""
        self._reload = message
        if self._mailbox is not None:
            self._mailbox.send(message)

    def show_state(self) -> None:
        """Ask the worker to write its state to the log."""
        if self._mailbox is not None:
            self._mailbox.send(ShowState())

    def kill(self) -> None:
        """End the process at once; `gone` follows."""
        if self._process is not None and self._process.is_there:
            self._process.kill()

    def _take(self, _mailbox: Mailbox, message: Message) -> None:
        self._unanswered = 0
        match message:
            case Ready():
                self.ready.set()
                self.settled.set()
            case Pong():
                pass
            case _:
                self._received(self, message)

    async def _live(self, process: Process, mailbox: Mailbox) -> None:
        pings = asyncio.create_task(self._ping(mailbox))
        ended = asyncio.create_task(process.wait())
        # The pipe may still hold messages of a process that has ended: its end comes behind them.
        await self._lost.wait()
        pings.cancel()
        if not (await asyncio.wait({ended}, timeout=_EXIT_S))[0]:
            self.kill()
        status = await ended
        tell = logs.get().info if status == 0 else logs.get().error
        tell("worker ended", worker=self.number, pid=process.pid, status=status)
        self.gone.set()
        self.settled.set()

    async def _ping(self, mailbox: Mailbox) -> None:
        for number in itertools.count(1):
            mailbox.send(Ping(number=number))
            self._unanswered += 1
            await asyncio.sleep(PING_S)
            if self._unanswered >= MOST_UNANSWERED:
                logs.get().error("worker hangs: killing it", worker=self.number)
                self.kill()
                return
