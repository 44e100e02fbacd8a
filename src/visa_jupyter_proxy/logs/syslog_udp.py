"""Sending the log to a syslog host: RFC 5424 messages in UDP datagrams (RFC 5426).

It never waits and never raises: as UDP goes, a message may be lost. That the host cannot be reached is
reported once, and again only after it has been well for a minute.
"""

import contextlib
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

_LOCAL0: Final = 16
"""The facility, as the original's."""

_LARGEST: Final = 2048
"""Bytes that every receiver should take (RFC 5424 6.1)."""

_MOST_WAITING: Final = 1000
"""Messages kept while the host's name is looked up; then the oldest go."""

_CALM_S: Final = 60.0
"""Seconds between two look-ups, and without a failure until the host counts as well."""


class SyslogHost:
    """A syslog host. A name is looked up by a thread of its own, and again after a failure.

    `report` is called, from any thread, with what to tell the operator.
    """

    def __init__(self, host: str, port: int, app_name: str, report: Callable[[str], None]) -> None:
        self._host, self._port, self._report = host, port, report
        self._names = f"{_header(socket.gethostname(), 255)} {_header(app_name, 48)} {os.getpid()}"
        self._waiting: deque[bytes] = deque(maxlen=_MOST_WAITING)
        self._socket: socket.socket | None = None
        self._closed = False
        self._failed_at: float | None = None
        self._looked_up_at: float | None = None
        self._look_up()

    def send(self, severity: int, timestamp: str, text: str) -> None:
        """Send one message; `timestamp` as RFC 3339 has it."""
        head = f"<{_LOCAL0 * 8 + severity}>1 {timestamp} {self._names} - - "
        # ASCII: text in UTF-8 would have to begin with a byte order mark (RFC 5424 6.4).
        self._waiting.append((head + text).encode("ascii", "backslashreplace")[:_LARGEST])
        if self._socket is None:
            self._look_up()
        else:
            self._flush()

    def close(self) -> None:
        """Send no more."""
        self._closed = True
        if self._socket is not None:
            self._socket.close()

    def _look_up(self) -> None:
        now = time.monotonic()
        if self._looked_up_at is None or now - self._looked_up_at > _CALM_S:
            self._looked_up_at = now
            threading.Thread(target=self._connect, name="syslog", daemon=True).start()

    def _connect(self) -> None:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_DGRAM
            )[0]
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            # Connected, so that the kernel says when nobody listens there.
            sock.connect(address)
        except OSError as error:
            self._failed(error)
            return
        previous, self._socket = self._socket, sock
        if previous is not None:
            previous.close()
        if self._closed:
            sock.close()
        # After `_socket` is set: what is appended from now on is flushed by `send`.
        self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(IndexError):  # the other thread took the last one
            while self._waiting:
                self._transmit(self._waiting.popleft())

    def _transmit(self, datagram: bytes) -> None:
        sock = self._socket
        if sock is None or self._closed:
            return
        try:
            sock.send(datagram)
        except ConnectionRefusedError as error:
            # That was the answer to an earlier datagram; this one has not been sent.
            self._failed(error)
            with contextlib.suppress(OSError):  # told already, and syslog over UDP promises nothing
                sock.send(datagram)
        except OSError as error:
            self._failed(error)
        else:
            if self._failed_at is not None and time.monotonic() - self._failed_at > _CALM_S:
                self._failed_at = None

    def _failed(self, error: OSError) -> None:
        first = self._failed_at is None
        self._failed_at = time.monotonic()
        if first:
            self._report(f"the syslog host {self._host}:{self._port} cannot be reached: {error.strerror}")
        self._look_up()


def _header(text: str, longest: int) -> str:
    """Return a header field: printable ASCII without spaces, `-` for nothing (RFC 5424 6.2)."""
    return re.sub("[^!-~]", "_", text)[:longest] or "-"
