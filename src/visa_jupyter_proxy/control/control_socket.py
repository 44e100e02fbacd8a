"""The control socket: what other processes of the same user ask the running one, by way of `STORAGE_DIR`.

A file that only this user may open, and a question in each message (`caller` asks): to read its
configuration again, to hand its listening socket over, to drain because another process serves in its place.
Where there can be no such file, the proxy serves all the same. A process answers until its end: while it
stops, that it does so, and whoever starts meanwhile takes the file.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.caller import FILE, LARGEST, Asks, Caller, Question, Reply, near, peer

_LOOK_S: Final = 2.0
"""Between two looks whether the file is there: somebody may tidy up what is no regular file."""

_PATIENCE_S: Final = 2.0
"""For another process to say whether it stops."""

type Answering = Callable[[Asks, int], Awaitable[Reply]]
"""Answers the question of a process, which is known by its id."""


class _File(NamedTuple):
    device: int
    inode: int


class ControlSocket:
    """Answers questions, from `open` to `close`."""

    def __init__(self, directory: Path, answering: Answering) -> None:
        self._directory = directory
        self._answering = answering
        self._listener: socket.socket | None = None
        self._file: _File | None = None
        """The one that is ours."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._failed = False
        """Whether it has been said that there can be none."""

    def open(self, *, replace: bool) -> None:
        """Answer from now on: to `replace` whoever has answered here, or if nobody serves here."""
        other = None if replace else _who_serves(self._directory)
        if other is not None:
            logs.get().warning(
                "another process serves on this STORAGE_DIR: stop one and give it a directory of its own, "
                "or start with `serve --take-over` to take its place",
                pid=other,
                directory=str(self._directory),
            )
        else:
            try:
                self._listen(*_bind(self._directory))
            except OSError as error:
                self._cannot(error)
        self._begin(self._look_on())

    async def close(self) -> None:
        """Answer no more; remove the file, if it is still ours."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        with suppress(OSError), near(self._directory) as short:  # the directory may be gone, or read-only
            if _look(short) == self._file:
                (short / FILE).unlink()

    def _cannot(self, error: OSError) -> None:
        if not self._failed:
            logs.get().warning(
                "no control socket: neither `reload` nor `serve --take-over` will find this process",
                directory=str(self._directory),
                cause=error.strerror,
            )
        self._failed = True

    def _listen(self, listener: socket.socket, file: _File) -> None:
        self._failed = False
        self._listener, self._file = listener, file
        self._accepting = self._begin(self._accept(listener))

    async def _look_on(self) -> None:
        """Make the file again when it has vanished, with its directory: nobody would find this process."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if await asyncio.to_thread(_is_there, self._directory):
                continue
            try:
                listener, file = await asyncio.to_thread(_bind, self._directory)
            except OSError as error:
                self._cannot(error)
                continue
            await self._hang_up()
            self._listen(listener, file)
            logs.get().warning(
                "the control socket was not there: it has been made", directory=str(self._directory)
            )

    async def _hang_up(self) -> None:
        if self._accepting is not None and self._listener is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._listener.close()

    def _begin(self, work: "Awaitable[None]") -> asyncio.Task[None]:
        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listener)
            self._begin(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with client:
            pid, user = peer(client)
            if user not in (0, os.getuid()):
                return
            try:
                while data := await loop.sock_recv(client, LARGEST):
                    reply = await self._answering(msgspec.json.decode(data, type=Question).ask, pid)
                    _send(client, reply)
            except (OSError, msgspec.DecodeError) as error:
                logs.get().warning("a question at the control socket is lost", cause=str(error))


def _who_serves(directory: Path) -> int | None:
    """Give the process that answers there and does not stop; 0 when its id cannot be had. Blocks."""
    try:
        return Caller.who_serves(directory, _PATIENCE_S)
    except OSError:
        return None  # making the file will say why it cannot be had


def _is_there(directory: Path) -> bool:
    try:
        with near(directory) as short:
            return _look(short) is not None
    except OSError:
        return False


def _look(directory: Path) -> _File | None:
    try:
        status = (directory / FILE).stat()
    except OSError:
        return None
    return _File(status.st_dev, status.st_ino)


def _send(client: socket.socket, reply: Reply) -> None:
    data = msgspec.json.encode(reply.answer)
    if reply.sockets:
        socket.send_fds(client, [data], [sock.fileno() for sock in reply.sockets])
    else:
        client.send(data)


def _bind(directory: Path) -> tuple[socket.socket, _File]:
    """Make the socket and its file, which replaces the one that is there. Blocks. Raises `OSError`."""
    directory.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with near(directory) as short:
            new = short / f".{FILE}.{os.getpid()}"
            new.unlink(missing_ok=True)
            listener.bind(str(new))
            new.chmod(0o600)  # before anybody can connect: it does not listen yet
            listener.listen(8)
            listener.setblocking(False)
            new.rename(short / FILE)
            status = (short / FILE).stat()
    except OSError:
        listener.close()
        raise
    return listener, _File(status.st_dev, status.st_ino)
