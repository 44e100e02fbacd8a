"""Asking the process that runs on a `STORAGE_DIR`, by way of its control socket (`control_socket` answers).

A question in each message (SOCK_SEQPACKET), and an answer, with which open sockets may come.
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

import msgspec

from visa_jupyter_proxy import __version__

FILE: Final = "control.sock"

LARGEST: Final = 64 * 1024
"""Bytes of a message."""

_CREDENTIALS: Final = struct.Struct("iII")
"""struct ucred: process, user, group (SO_PEERCRED of unix(7))."""

_MOST_SOCKETS: Final = 2
_PATIENCE_S: Final = 30.0
"""For an answer: a reload reads files, and nothing takes longer."""

type Asks = Literal["greet", "reload", "hand over", "drain"]


class Question(msgspec.Struct):
    """What one process asks another."""

    ask: Asks


class Answer(msgspec.Struct, kw_only=True):
    """What the running process says to it."""

    is_stopping: bool = False
    """It serves no more, and has done nothing of what it was asked."""
    mistakes: tuple[str, ...] = ()
    """Why a reload has changed nothing."""
    changed: tuple[str, ...] = ()
    """What is otherwise after a reload: names of settings, `services`, `pages`."""
    at_the_next_start: tuple[str, ...] = ()
    """Settings that would be others, and are not before that."""
    warnings: tuple[str, ...] = ()
    pid: int = msgspec.field(default_factory=os.getpid)
    version: str = __version__


class Reply(NamedTuple):
    """An answer, and the sockets that go with it; who gets them has them as well."""

    answer: Answer
    sockets: tuple[socket.socket, ...] = ()


class NoAnswer(Exception):
    """Why there is none, in words for the operator."""


class Caller:
    """A connection to the process that runs on a directory. Blocking, with a time-out."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    def find(cls, directory: Path, patience_s: float = _PATIENCE_S) -> "Caller | None":
        """Connect to the process that answers in `directory`; None when there is none.

        Raises `OSError` when there is one that may not be asked.
        """
        try:
            return cls._connected(directory, patience_s)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return None  # nobody, or one that was killed

    @classmethod
    def who_serves(cls, directory: Path, patience_s: float) -> int | None:
        """Give the id of the process that serves on `directory`; None without one, or when it stops. Blocks.

        One that does not answer in time is there all the same, whatever is the matter with it. 0 is one that
        cannot be seen from here, in another container. Raises `OSError` when it may not be asked.
        """
        caller = cls.find(directory, patience_s)
        if caller is None:
            return None
        try:
            return caller.server()
        finally:
            caller.close()

    @classmethod
    def _connected(cls, directory: Path, patience_s: float) -> Self:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(patience_s)
        try:
            with near(directory) as short:
                sock.connect(str(short / FILE))
        except OSError:
            sock.close()
            raise
        return cls(sock)

    def ask(self, ask: Asks) -> Reply:
        """Ask, and wait for the answer. Raises `OSError`, also when there is none in time."""
        self._sock.send(msgspec.json.encode(Question(ask)))
        data, descriptors, _, _ = socket.recv_fds(self._sock, LARGEST, _MOST_SOCKETS)
        sockets = tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
        for sock in sockets:
            sock.set_inheritable(False)
        try:
            return Reply(msgspec.json.decode(data, type=Answer), sockets)
        except msgspec.DecodeError as error:
            raise ConnectionError("it hung up without an answer") from error

    def server(self) -> int | None:
        """Give the id of the process at the other end; None when it says that it stops. Blocks."""
        try:
            answer = self.ask("greet").answer
        except OSError:
            return peer(self._sock)[0]
        return None if answer.is_stopping else answer.pid

    @classmethod
    def ask_for_reload(cls, directory: Path) -> Answer:
        """Have the process that runs on `directory` read its configuration again. Raises `NoAnswer`."""
        try:
            caller = cls._connected(directory, _PATIENCE_S)
        except OSError as error:
            raise NoAnswer(_why_nobody_answers(directory, error)) from error
        try:
            return caller.ask("reload").answer
        except OSError as error:
            why = f"not within {_PATIENCE_S:g} s" if isinstance(error, TimeoutError) else error
            raise NoAnswer(f"the process on {directory} has not answered: {why}") from error
        finally:
            caller.close()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


def _why_nobody_answers(directory: Path, error: OSError) -> str:
    file = directory / FILE
    if isinstance(error, ConnectionRefusedError):
        return f"no process runs on {directory} (STORAGE_DIR): the one that made {file} was killed"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        what = f"there is no {file}" if directory.is_dir() else "there is no such directory"
        return f"no process serves on {directory} (STORAGE_DIR): {what}, which one that starts makes"
    if isinstance(error, PermissionError):
        return f"{file}: {error.strerror}: ask as the user that runs the proxy, or as root"
    return f"{file}: {error.strerror or error}"


def peer(sock: socket.socket) -> tuple[int, int]:
    """Give the process and the user at the other end: of a client's socket, those who listen."""
    pid, user, _ = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return pid, user


@contextmanager
def near(directory: Path) -> Iterator[Path]:
    """Give a short path to `directory`: that of a socket has 107 bytes at most (unix(7))."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
