"""Children that do not outlive us: each leads a session of its own, which is ended whole."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

PATIENCE_S: Final = 30.0

_END_S: Final = 15.0
"""For an orderly end: ours drains for 8 s at most."""

DESCRIPTORS: Final = 65_536
"""As many as the files in deploy/ give."""


class Failed(Exception):
    """A part of the benchmark did not do its work; the text says which and why."""


def wait(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until `condition` holds. Raises `Failed` after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"waited {patience_s:.0f} s in vain for {what}")
        time.sleep(0.005)


def free_port(host: str = "127.0.0.1") -> int:
    """Ask the kernel for a port that is free now."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def listens(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return False
    return True


def processes_of(session: int) -> list[int]:
    """Give the process ids of a session, its leader first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                # The name in parentheses may contain anything, so the fields are counted from its end.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append(int(entry.name))
    return sorted(found)


class Child:
    """A running program and all its descendants that stay in its session."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.pid = popen.pid
        self.log = log
        self._popen = popen

    @property
    def stdin(self) -> IO[bytes]:
        """Its standard input, if it was started with one."""
        if self._popen.stdin is None:
            raise Failed(f"{self.name} has no input")
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Its standard output, likewise."""
        if self._popen.stdout is None:
            raise Failed(f"{self.name} has no output")
        return self._popen.stdout

    def pids(self) -> list[int]:
        """Give the process ids of the program and its descendants."""
        return processes_of(self.pid)

    def check(self) -> None:
        """Raise `Failed`, with the end of its log, when the program has ended."""
        if self._popen.poll() is not None:
            raise Failed(f"{self.name} ended with status {self._popen.returncode}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Give the end of what it wrote."""
        return self.log.read_text(errors="replace")[-2000:]

    def wait_until_listening(self, port: int, host: str = "127.0.0.1") -> None:
        """Wait until somebody accepts connections. Raises `Failed` when the program ends instead."""

        def look() -> bool:
            self.check()
            return listens(host, port)

        wait(look, f"{self.name} to listen on {host}:{port}")

    def interrupt(self) -> None:
        """Tell the program to come to an end, and wait for it."""
        self._popen.send_signal(signal.SIGINT)
        try:
            self._popen.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} does not end") from None

    def end(self) -> None:
        """End the whole session: first politely, then not."""
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        with contextlib.suppress(ProcessLookupError):
            self._popen.terminate()
        deadline = time.monotonic() + _END_S
        while (self._popen.poll() is None or self.pids()) and time.monotonic() < deadline:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


@contextmanager
def child(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    *,
    cpus: str | None = None,
    environment: Mapping[str, str] | None = None,
    pipes: bool = False,
    first: bool = False,
) -> Iterator[Child]:
    """Run a program in `folder`, pinned to `cpus`; it has ended when this block is left, however that is.

    With `first` it never waits for a CPU that something ordinary uses; only root may ask for that.
    Its output goes to `<name>.log` in `folder`; with `pipes`, standard input and output are ours.
    """
    # When we are killed, so is the program: nothing else would tell it.
    command = ["setpriv", "--pdeathsig", "KILL", "prlimit", f"--nofile={descriptors()}", *command]
    if first:
        command = ["chrt", "--fifo", "1", *command]
    if cpus is not None:
        command = ["taskset", "--cpu-list", cpus, *command]
    log = folder / f"{name}.log"
    with ExitStack() as stack:
        output = stack.enter_context(log.open("ab"))
        popen = subprocess.Popen(
            command,
            cwd=folder,
            env=None if environment is None else dict(environment),
            stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipes else output,
            stderr=output,
            start_new_session=True,
        )
        running = Child(name, popen, log)
        stack.callback(running.end)
        yield running


def descriptors() -> int:
    """Return how many descriptors a child may have: what is needed, or what we may give."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)


def program(name: str) -> str | None:
    """Find a program, also where only root has it in the path."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
