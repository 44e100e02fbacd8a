"""The control socket: what other processes of the same user ask the running one, by way of `STORAGE_DIR`.

A file that only this user may open, and a question in each message (SOCK_SEQPACKET): to read its
configuration again, to hand its listening socket over, to drain because another process serves in its place.
Where there can be no such file, the proxy serves all the same.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from visa_jupyter_proxy import __version__, logs

FILE: Final = "control.sock"

_LARGEST: Final = 64 * 1024
_MOST_SOCKETS: Final = 2
_PATIENCE_S: Final = 30.0
"""For an answer: a reload reads files, and nothing takes longer."""

_CREDENTIALS: Final = struct.Struct("iII")
"""struct ucred: process, user, group (SO_PEERCRED of unix(7))."""

type Asks = Literal["reload", "hand over", "drain"]


class Question(msgspec.Struct):
    """What one process asks another."""

    ask: Asks


class Answer(msgspec.Struct):
    """What the running process says to it."""

    done: bool = True
    lines: tuple[str, ...] = ()
    """For people."""
    pid: int = msgspec.field(default_factory=os.getpid)
    version: str = __version__


class Reply(NamedTuple):
    """An answer, and the sockets that go with it; who gets them has them as well."""

    answer: Answer
    sockets: tuple[socket.socket, ...] = ()


type Answering = Callable[[Asks, int], Awaitable[Reply]]
"""Answers the question of a process, which is known by its id."""


class ControlSocket:
    """Answers questions, from `open` to `close`."""

    def __init__(self, directory: Path, answering: Answering) -> None:
        self._directory = directory
        self._answering = answering
        self._listener: socket.socket | None = None
        self._file: tuple[int, int] | None = None
        """Device and inode of the file that is ours."""
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, *, replace: bool) -> None:
        """Answer from now on: to `replace` whoever has answered here, or if there is nobody."""
        try:
            if not replace and (other := Caller.find(self._directory)) is not None:
                other.close()
                logs.get().notice("another process has the control socket", directory=str(self._directory))
                return
            self._listener, self._file = _bind(self._directory)
        except OSError as error:
            logs.get().warning(
                "no control socket: neither `reload` nor `serve --take-over` will find this process",
                directory=str(self._directory),
                cause=error.strerror,
            )
            return
        self._begin(self._accept(self._listener))

    async def close(self) -> None:
        """Answer no more; remove the file, if it is still ours."""
        if self._listener is None:
            return
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()
        with suppress(OSError), _near(self._directory) as near:  # the directory may be gone, or read-only
            status = (near / FILE).stat()
            if (status.st_dev, status.st_ino) == self._file:
                (near / FILE).unlink()

    def _begin(self, work: "Awaitable[None]") -> None:
        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            self._begin(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with client:
            pid, user, _ = _CREDENTIALS.unpack(
                client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            if user not in (0, os.getuid()):
                return
            try:
                while data := await loop.sock_recv(client, _LARGEST):
                    reply = await self._answering(msgspec.json.decode(data, type=Question).ask, pid)
                    _send(client, reply)
            except (OSError, msgspec.DecodeError) as error:
                logs.get().warning("a question at the control socket is lost", cause=str(error))


class Caller:
    """The other end: a connection to the process that runs on a directory. Blocking, with a time-out."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    def find(cls, directory: Path) -> "Caller | None":
        """Connect to the process that answers in `directory`; None when there is none.

        Raises `OSError` when there is one that may not be asked.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(_PATIENCE_S)
        try:
            with _near(directory) as near:
                sock.connect(str(near / FILE))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            sock.close()  # nobody, or one that was killed
            return None
        except OSError:
            sock.close()
            raise
        return cls(sock)

    def ask(self, ask: Asks) -> Reply:
        """Ask, and wait for the answer. Raises `OSError`, also when there is none in time."""
        self._sock.send(msgspec.json.encode(Question(ask)))
        data, descriptors, _, _ = socket.recv_fds(self._sock, _LARGEST, _MOST_SOCKETS)
        sockets = tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
        for sock in sockets:
            sock.set_inheritable(False)
        try:
            return Reply(msgspec.json.decode(data, type=Answer), sockets)
        except msgspec.DecodeError as error:
            raise ConnectionError("the running process has not answered") from error

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


def _send(client: socket.socket, reply: Reply) -> None:
    data = msgspec.json.encode(reply.answer)
    if reply.sockets:
        socket.send_fds(client, [data], [sock.fileno() for sock in reply.sockets])
    else:
        client.send(data)


@contextmanager
def _near(directory: Path) -> Iterator[Path]:
    """Give a short path to `directory`: that of a socket has 107 bytes at most (unix(7))."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _bind(directory: Path) -> tuple[socket.socket, tuple[int, int]]:
    """Make the socket and its file, which replaces the one that is there. Raises `OSError`."""
    directory.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _near(directory) as near:
            new = near / f".{FILE}.{os.getpid()}"
            new.unlink(missing_ok=True)
            listener.bind(str(new))
            new.chmod(0o600)  # before anybody can connect: it does not listen yet
            listener.listen(8)
            listener.setblocking(False)
            new.rename(near / FILE)
            status = (near / FILE).stat()
    except OSError:
        listener.close()
        raise
    return listener, (status.st_dev, status.st_ino)
