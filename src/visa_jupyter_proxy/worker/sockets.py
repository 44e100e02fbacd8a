"""What asyncio leaves out of a socket."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Protocol

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: the close is a reset (RFC 9293 3.10.4)."""

_READ_SIZE: Final = 64 * 1024

type Transport = asyncio.Transport
"""For those who hand a connection on without touching it."""


class Timed(Protocol):
    """Anything that the worker's tick looks after."""

    deadline: float
    """On the loop's clock; `math.inf` for none."""

    def expired(self, now: float) -> None:
        """End: the deadline is over."""

    def drain(self) -> None:
        """Begin to end: the worker stops."""


def reset(transport: asyncio.Transport) -> None:
    """Close so that the peer sees a reset: `abort()` alone sends FIN."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def unread(transport: asyncio.Transport) -> Iterator[bytes]:
    """Yield what had arrived before the connection was lost; to be used in `connection_lost` only.

    When a write fails because the peer has closed, the loop gives up at once: what the peer said
    before is still in the kernel's buffer, which bounds it.
    """
    sock: socket.socket | None = transport.get_extra_info("socket")
    with suppress(OSError):  # nothing more: the reset itself, or the loop has closed it
        while sock is not None and (data := os.read(sock.fileno(), _READ_SIZE)):
            yield data


def peer_address(transport: asyncio.BaseTransport) -> str:
    """Return the IP address of the other end; an IPv4-mapped one as IPv4."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]).removeprefix("::ffff:") if peer else "0.0.0.0"  # noqa: S104 -- not bound to: unknown
