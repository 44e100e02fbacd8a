"""Starts the processes of workers, at a priority that control itself has given up.

Control gives way to workers: what it does for the journal, for VISA or for somebody who looks at the board
is never worth a moment of a proxied byte, and where all CPUs are busy it would take some. Linux has a nice
value for every thread, which is passed on to what the thread starts, and which only root may lower again. So
workers are started from a thread of their own, made before control's was raised.

What else a process hands on to those that it starts is arranged here too: how many descriptors they may have.
"""

import asyncio
import os
import resource
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from visa_jupyter_proxy import logs

NICENESS: Final = 10
"""A tenth of a CPU where workers want all of it, and a whole one where they do not: sched(7)."""


class Spawner:
    """The thread that starts processes."""

    def __init__(self) -> None:
        """Make the thread; it has the priority that this one has now."""
        self._thread = ThreadPoolExecutor(1, "spawner")
        self._thread.submit(os.getpid).result()

    async def start(self, command: Sequence[str], descriptors: Sequence[int]) -> "Process":
        """Start a program that inherits `descriptors` and no input. Raises `OSError`."""

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)  # noqa: S603 -- ours

        return Process(await asyncio.get_running_loop().run_in_executor(self._thread, start))


class Process:
    """A process that has been started."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        threading.Thread(target=self._watch, daemon=True, name=f"watch of {popen.pid}").start()

    @property
    def is_there(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._popen.returncode is None

    def kill(self) -> None:
        """End it at once."""
        self._popen.kill()

    async def wait(self) -> int:
        """Wait for its end; its exit status, or the negative number of the signal that has ended it."""
        await self._ended.wait()
        return self._popen.wait()

    def _watch(self) -> None:
        # Its end is only looked at: until the loop has taken it, no other process gets the number.
        with suppress(ChildProcessError):  # `kill` has taken it
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._ended.set)


def give_way() -> None:
    """Let workers go first from now on: this thread, and all that it starts."""
    try:
        os.nice(NICENESS)
    except OSError as error:
        logs.get().warning("control cannot give way to workers", error=error.strerror)


def take_all_descriptors() -> None:
    """Have as many descriptors as this process may, and all that it starts.

    What most systems give a process without asking (1 024) is for programs that use select(2), and enough for
    some 400 clients.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # more than the kernel gives anybody by now (fs.nr_open)
        logs.get().warning("the limit of descriptors stays as it is", descriptors=soft, error=str(error))
