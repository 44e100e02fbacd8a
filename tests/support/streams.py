"""Many bytes through raw ends: give, take, and fill all buffers on the way."""

import itertools
import socket
import threading
from collections.abc import Callable
from typing import Final

from support.client import RawClient
from support.instance import Connection

MIB: Final = 2**20


def give(end: RawClient | Connection, count: int) -> None:
    """Send `count` bytes, then FIN."""
    block = bytes(MIB)
    for start in range(0, count, MIB):
        end.send(block[: min(MIB, count - start)])
    end.finish()


def take(end: RawClient | Connection, count: int | None = None) -> int:
    """Read and drop `count` bytes, or all until the end; give how many came. Sees resets as `rest` does."""
    left = -1 if count is None else count - len(end.buffer)
    taken, end.buffer = len(end.buffer), b""
    while left:
        try:
            got = len(end.sock.recv(MIB if left < 0 else min(left, MIB)))
        except ConnectionError:
            end.was_reset = True
            break
        if not got:
            break
        taken, left = taken + got, left - got if left > 0 else left
    return taken


def fill(sock: socket.socket) -> int:
    """Send until nothing goes out for half a second: every buffer on the way is full. Give how much."""
    sock.settimeout(0.5)
    block, sent = bytes(MIB), 0
    try:
        for _ in itertools.repeat(None, 200):
            sent += sock.send(block)
    except TimeoutError:
        return sent
    finally:
        sock.settimeout(20)
    raise AssertionError("nobody stops us from sending")


def in_background(action: Callable[..., None], *arguments: object) -> threading.Thread:
    """Start a thread."""
    thread = threading.Thread(target=action, args=arguments)
    thread.start()
    return thread
