"""Where the listening socket comes from: the service manager, the process before this one, or our own bind.

There is one queue of connections, whoever accepts from it: the predecessor hands its very socket over, so
what waits there is served by one or the other (`docs/decisions/0014-one-socket-is-handed-over.md`).
"""

import asyncio
import errno
import socket
from pathlib import Path
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.binding import bound, resolved, why_not
from visa_jupyter_proxy.control.caller import Caller
from visa_jupyter_proxy.control.service_manager import NotInherited, inherited, is_listening
from visa_jupyter_proxy.settings import Settings

_BACKLOG: Final = 4096
"""Connections that wait to be accepted: Linux's net.core.somaxconn."""

_PATIENCE_S: Final = 2.0
"""For another process to say whether it stops."""


class CannotStart(Exception):
    """What stops the program from starting, in words for the operator."""


class Predecessor:
    """The process that runs already, and is to drain when this one serves. Until then it goes on."""

    def __init__(
        self, caller: Caller, pid: int, listener: socket.socket, admin: socket.socket | None
    ) -> None:
        self.pid = pid
        self.listener = listener
        self.admin = admin
        """The socket of the admin listener."""
        self._caller = caller

    @classmethod
    def find(cls, directory: Path) -> "Predecessor | None":
        """Find the process that runs on `directory`, and have its sockets. Raises `CannotStart`."""
        try:
            caller = Caller.find(directory)
            if caller is None:
                return None
            answer, sockets = caller.ask("hand over")
        except OSError as error:
            raise CannotStart(
                f"the process on {directory} does not hand its socket over: {error.strerror or error}; "
                "start without --take-over when it has ended"
            ) from error
        if not sockets or not all(map(is_listening, sockets)):
            return None  # it is ending by itself
        return cls(caller, answer.pid, sockets[0], sockets[1] if len(sockets) > 1 else None)

    async def relieve(self) -> None:
        """Have it drain: this process serves in its place."""
        try:
            await asyncio.to_thread(self._caller.ask, "drain")
        except OSError as error:
            logs.get().warning("the process before this one is gone", pid=self.pid, cause=error.strerror)
        self._caller.close()


def listen(settings: Settings, predecessor: Predecessor | None) -> socket.socket:
    """Return the socket to listen on. Raises `CannotStart`."""
    try:
        passed_on = inherited()
    except NotInherited as error:
        raise CannotStart(str(error)) from error
    if passed_on is not None:
        return passed_on
    if predecessor is not None and fits(predecessor.listener, settings.server_host, settings.server_port):
        return predecessor.listener
    return bind(
        settings.server_host, settings.server_port, settings.storage_dir if predecessor is None else None
    )


def bind(host: str, port: int, directory: Path | None = None) -> socket.socket:
    """Bind and listen. Raises `CannotStart`, which names the process that serves on `directory` already."""
    try:
        return bound(host, port, backlog=_BACKLOG)
    except OSError as error:
        is_taken = error.errno == errno.EADDRINUSE
        raise CannotStart(
            f"cannot listen on {host} port {port}: {why_not(error)}; "
            f"{_instead(directory) if is_taken and directory is not None else ''}"
            "change VISA_JUPYTER_PROXY_SERVER_HOST or VISA_JUPYTER_PROXY_SERVER_PORT, or stop what uses it"
        ) from error


def _instead(directory: Path) -> str:
    """Say what else to do when a proxy serves on the same directory; nothing without one."""
    try:
        other = Caller.who_serves(directory, _PATIENCE_S)
    except OSError:
        return ""  # one that may not be asked is another user's
    if other is None:
        return ""
    return (
        f"a proxy serves on this STORAGE_DIR already, process {other}: "
        "`visa-jupyter-proxy reload` has it read its configuration again, "
        "`visa-jupyter-proxy serve --take-over` puts a new one in its place; otherwise "
    )


def fits(sock: socket.socket, host: str, port: int) -> bool:
    """Whether a socket that was passed on is the one that is wanted; port 0 is any. Raises nothing."""
    try:
        family, (address, _) = resolved(host, port)
    except OSError:
        return False
    name = sock.getsockname()
    return sock.family == family and name[0] == address and port in (0, name[1])
