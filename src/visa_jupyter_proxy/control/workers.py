"""A worker process as control sees it: started, spoken to, pinged, ended.

A worker inherits two descriptors, the listening socket and its end of the mailbox, and nothing else.
"""

import asyncio
import itertools
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.mailbox import Drain, Mailbox, Message, Ping, Pong, Ready, ShowState, Start

PING_S: Final = 1.0

SILENT_S: Final = 30.0
"""A worker that has not answered for so long hangs: gunicorn's `timeout`."""

_EXIT_S: Final = 2.0
"""How long a process may take to end after it has closed its mailbox."""

_numbers = itertools.count(1)


class WorkerProcess:
    """One life of a worker; a restarted worker is another one, with another number."""

    def __init__(self, received: Callable[["WorkerProcess", Message], None]) -> None:
        """`received` is called with every message that is not about the process itself."""
        self.number = next(_numbers)
        self.ready = asyncio.Event()
        """Set when it accepts connections."""
        self.gone = asyncio.Event()
        """Set when the process has ended, and all its messages have been handed on."""
        self.started_at = time.monotonic()
        self._received = received
        self._lost = asyncio.Event()
        self._heard_at = self.started_at
        self._mailbox: Mailbox | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._life: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket, message: Start) -> None:
        """Start the process. Raises `OSError` when the system refuses."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = (listener.fileno(), theirs.fileno())
            # -P: what lies in the working directory is not ours to import.
            command = (sys.executable, "-P", "-m", "visa_jupyter_proxy.worker", *map(str, descriptors))
            self._process = await asyncio.create_subprocess_exec(
                *command, pass_fds=descriptors, stdin=asyncio.subprocess.DEVNULL
            )
        self._mailbox = await Mailbox.open(ours, self._take, self._lost.set)
        self._mailbox.send(message)
        self._life = asyncio.create_task(self._live(self._process, self._mailbox))

    @property
    def is_serving(self) -> bool:
        """Whether the process is there and accepts connections, or has done so and finishes."""
        return self.ready.is_set() and not self.gone.is_set()

    def drain(self, seconds: float) -> None:
        """Ask the worker to finish within `seconds` and exit."""
        if self._mailbox is not None:
            self._mailbox.send(Drain(seconds=seconds))

    def show_state(self) -> None:
        """Ask the worker to write its state to the log."""
        if self._mailbox is not None:
            self._mailbox.send(ShowState())

    def kill(self) -> None:
        """End the process at once; `gone` follows."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def _take(self, _mailbox: Mailbox, message: Message) -> None:
        self._heard_at = time.monotonic()
        match message:
            case Ready():
                self.ready.set()
            case Pong():
                pass
            case _:
                self._received(self, message)

    async def _live(self, process: asyncio.subprocess.Process, mailbox: Mailbox) -> None:
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

    async def _ping(self, mailbox: Mailbox) -> None:
        for number in itertools.count(1):
            mailbox.send(Ping(number=number))
            await asyncio.sleep(PING_S)
            if time.monotonic() - self._heard_at > SILENT_S:
                logs.get().error("worker hangs: killing it", worker=self.number)
                self.kill()
                return
