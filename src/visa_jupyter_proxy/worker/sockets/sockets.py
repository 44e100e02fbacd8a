"""What asyncio leaves out of a socket."""

import asyncio
import select
import socket
import struct
from typing import Final, Protocol

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: the close is a reset (RFC 9293 3.10.4)."""

_PROBE_EVERY_S: Final = 15
_PROBES: Final = 4
"""A peer that answers none of four probes in a minute is gone; Linux itself asks nine in 11 minutes."""

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


def keep_alive(transport: asyncio.Transport | socket.socket, idle_s: int) -> None:
    """Have TCP ask whether the peer is there after `idle_s` of silence (RFC 9293 3.8.4); 0 changes nothing.

    On a listening socket it holds for all that it accepts.
    """
    sock = transport if isinstance(transport, socket.socket) else transport.get_extra_info("socket")
    if sock is None or not idle_s:
        return
    # uvloop's own makes a socket for every option, which takes as long again as to set it. Options know
    # nothing of families: asking for the right one, and Python's class, took 9 000 instructions more.
    real = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, sock.fileno())
    real.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    real.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
    real.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY_S)
    real.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    real.detach()  # the descriptor remains the connection's


def arrivals(transport: asyncio.Transport) -> select.poll:
    """Make what tells, by `poll(0)`, whether bytes or the end have arrived that the loop has not read yet.

    It holds while the connection is open. Made once, for making it costs three times as much as asking.
    """
    poll = select.poll()
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        poll.register(sock.fileno(), select.POLLIN)
    return poll


def peer_address(transport: asyncio.BaseTransport) -> str:
    """Return the IP address of the other end; an IPv4-mapped one as IPv4."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]).removeprefix("::ffff:") if peer else "0.0.0.0"  # noqa: S104 -- not bound to: unknown
