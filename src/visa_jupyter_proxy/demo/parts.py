"""Programs that the demo starts: started, waited for, and ended with all that they started themselves."""

import asyncio
import ctypes
import os
import signal
import socket
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp

READY_S: Final = 120.0
"""JupyterLab's first start on a slow machine compiles all of its Python; 15 s is usual."""

STOP_S: Final = 12.0
"""Docker waits 10 s for a container to stop; a part may drain for 8 and then needs a moment."""

_LOOK_AGAIN_S: Final = 0.1
_ATTEMPT_S: Final = 5.0
_LAST_LINES: Final = 40
_PR_SET_CHILD_SUBREAPER: Final = 36
"""prctl(2)."""


class PartFailed(Exception):
    """A part could not be started, or ended although nobody asked it to; the text is for people."""


class Part:
    """A program in a process group of its own, with its output in a file."""

    def __init__(
        self, name: str, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self._argv = argv
        self._cwd = cwd
        self._env = env
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the program. Raises `PartFailed`."""
        with self._log.open("wb") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    cwd=self._cwd,
                    env=self._env,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # A Ctrl-C in the terminal is ours to pass on, in our order.
                    start_new_session=True,
                )
            except OSError as error:
                raise PartFailed(f"{self.name} could not be started: {error}") from error

    async def answers(self, url: str) -> None:
        """Wait until `url` is answered, whatever the status. Raises `PartFailed`."""
        try:
            await asyncio.wait_for(first(_answered(url), self.watch()), READY_S)
        except TimeoutError:
            raise self._failed(f"does not answer after {READY_S:.0f} s") from None

    async def watch(self) -> None:
        """Wait until the program ends, which it should not: always raises `PartFailed`."""
        assert self._process is not None  # noqa: S101 -- it was started
        await self._process.wait()
        raise self._failed("has ended")

    async def stop(self) -> None:
        """Ask the program to end; whatever is left of its process group after `STOP_S` is killed."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):  # it has ended by itself
            self._process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):  # it is killed then
            await asyncio.wait_for(self._process.wait(), STOP_S)
        with suppress(ProcessLookupError):  # nothing is left of its group
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def _failed(self, what: str) -> PartFailed:
        status = self._process.returncode if self._process else None
        how = "" if status is None else f" with status {status}"
        lines = self._log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        return PartFailed("\n".join([f"{self.name} {what}{how}. The end of its output:", *lines]))


async def first(*coroutines: Coroutine[object, object, object]) -> None:
    """Run them all until the first ends, cancel the others, and raise what it raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _answered(url: str) -> None:
    timeout = aiohttp.ClientTimeout(total=_ATTEMPT_S)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):  # not yet
                async with session.get(url, allow_redirects=False):
                    return
            await asyncio.sleep(_LOOK_AGAIN_S)


class Orphans:
    """What parts started in process groups of their own (kernels, terminals) and have left behind.

    From `adopt` on they become our children when their parents end (PR_SET_CHILD_SUBREAPER), so none
    can escape.
    """

    def __init__(self) -> None:
        self._before: frozenset[int] = frozenset()

    def adopt(self) -> None:
        """Begin: children that exist already are none of ours. Raises OSError."""
        self._before = _children()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")

    def kill(self) -> None:
        """Kill them, and those that they leave behind in turn. All parts must have been stopped before."""
        while orphans := _children() - self._before:
            for pid in orphans:
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):  # somebody has waited for it already
                    os.waitpid(pid, 0)


def _children() -> frozenset[int]:
    return frozenset(
        int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()
    )


def free_port(wanted: int, hosts: Sequence[str]) -> int:
    """Return `wanted` if nobody has it on any of `hosts`, else (or for 0) one that is free on all.

    Raises OSError when there is none.
    """
    for candidate in (wanted, *[0] * 100):
        with suppress(OSError):  # taken: the next one
            return _bound(candidate, hosts)
    raise OSError(f"no port is free on all of {', '.join(hosts)}")


def _bound(port: int, hosts: Sequence[str]) -> int:
    for host in hosts:
        with socket.socket() as sock:
            # What every server does: a port that only waits out old connections (TIME_WAIT) is free.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            port = sock.getsockname()[1]
    return port
