"""The service manager that has started us, if it is systemd or speaks like it: the only file that does.

It may have opened the listening socket (sd_listen_fds(3)), and it may want to know how we are (sd_notify(3)).
Without it, none of this does anything.
"""

import asyncio
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

from visa_jupyter_proxy import logs

_FIRST_DESCRIPTOR: Final = 3
"""SD_LISTEN_FDS_START."""


class NotInherited(Exception):
    """What the service manager has passed on is not one listening TCP socket; in words for the operator."""


def inherited(environ: MutableMapping[str, str] = os.environ) -> socket.socket | None:
    """Take over the listening socket that we were started with, if there is one. Raises `NotInherited`.

    It is meant for this process alone: the variables that tell of it are taken out of `environ`.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise NotInherited(f"{count} sockets were passed on (LISTEN_FDS): one is wanted, ListenStream=8088")
    try:
        listener = socket.socket(fileno=_FIRST_DESCRIPTOR)
    except OSError as error:
        raise NotInherited(f"descriptor 3 is no socket: {error.strerror}") from error
    if not is_listening(listener):
        raise NotInherited("the socket that was passed on does not listen on TCP: write ListenStream=8088")
    listener.set_inheritable(False)
    return listener


def is_listening(sock: socket.socket) -> bool:
    """Whether it is a TCP socket that connections can be accepted from."""
    return (
        sock.family in (socket.AF_INET, socket.AF_INET6)
        and sock.type == socket.SOCK_STREAM
        and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )


class ServiceManager:
    """Tells the service manager how we are. Nothing here waits or raises."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Take the variables out of `environ`: they are not for the workers."""
        path = environ.pop("NOTIFY_SOCKET", "")
        watchdog = environ.pop("WATCHDOG_USEC", "")
        self._is_meant = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._every_s = int(watchdog) / 2_000_000 if watchdog.isdecimal() else 0.0
        self._watchdog: asyncio.Task[None] | None = None

    def ready(self, status: str) -> None:
        """Say that we serve, also after a reload; and from now on from time to time that we live."""
        self._tell(f"READY=1\nSTATUS={status}")
        if self._every_s and self._is_meant and self._watchdog is None:
            self._watchdog = asyncio.create_task(self._live(self._every_s))

    def reloading(self) -> None:
        """Say that we read the configuration again; to be followed by `ready`."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that we end, as we were told to."""
        self._tell("STOPPING=1\nSTATUS=draining")

    def replaced(self, pid: int) -> None:
        """Say that another process goes on in our place: it is the one to be watched from now on."""
        self._tell(f"MAINPID={pid}")
        if self._watchdog is not None:
            self._watchdog.cancel()

    async def _live(self, every_s: float) -> None:
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(every_s)

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), self._address)
        except OSError as error:
            logs.get().warning("the service manager does not listen", cause=error.strerror)
