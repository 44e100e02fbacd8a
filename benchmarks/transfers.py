"""1 GiB in one direction, as cheaply as the kernel can: nothing is copied into this process.

Spoken to like `load`, with blocking sockets: `count N` is all it understands.
"""

import json
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks import messages
from benchmarks.world import HUGE

WORKS: Final = ("download", "upload")

_CHUNK: Final = 1 << 20
_SILENCE_S: Final = 60.0
_FILE: Final = Path("files/jupyter/1/huge")


class Wrong(Exception):
    """The answer was not the one that was due."""


def swallow(fileno: int, size: int) -> int:
    """Throw `size` bytes of a TCP connection away; gives how many have come before its end."""
    left, scratch, poll = size, bytearray(_CHUNK), select.poll()
    with socket.socket(fileno=os.dup(fileno)) as sock:
        poll.register(sock, select.POLLIN)
        while left:
            if not poll.poll(_SILENCE_S * 1000):
                raise TimeoutError
            # MSG_TRUNC: TCP counts the bytes and copies none, see tcp(7).
            got = sock.recv_into(scratch, min(left, _CHUNK), socket.MSG_TRUNC)
            if not got:
                break
            left -= got
    return size - left


def download(sock: socket.socket) -> None:
    """Fetch the large file. Raises `Wrong` unless all of it comes."""
    sock.sendall(messages.request("/jupyter/1/huge"))
    head = _head(sock)
    if b"\r\ncontent-length: %d\r\n" % HUGE not in head.lower():
        raise Wrong(f"wrong response: {head!r}")
    got = swallow(sock.fileno(), HUGE)
    if got != HUGE:
        raise Wrong(f"the download ended after {got} bytes")


def upload(sock: socket.socket) -> None:
    """Send as much. Raises `Wrong` unless the instance has got all of it."""
    sock.sendall(messages.request("/jupyter/2/upload", "POST", length=HUGE))
    with _FILE.open("rb") as file:
        sock.sendfile(file)
    head = _head(sock)
    due = b"%d" % HUGE
    said = sock.recv(len(due), socket.MSG_WAITALL)
    if said != due:
        raise Wrong(f"the instance has got {said!r} bytes: {head!r}")


def _head(sock: socket.socket) -> bytes:
    """Read a response's head, and not one byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte:
            raise Wrong(f"the connection has ended: {head!r}")
        head += byte
    if not head.startswith(b"HTTP/1.1 200 "):
        raise Wrong(f"wrong response: {head!r}")
    return head


def _obey(times: int, sock: socket.socket, work: str) -> dict[str, object]:
    began = time.perf_counter()
    for _ in range(times):
        (download if work == "download" else upload)(sock)
    return {"done": times, "seconds": time.perf_counter() - began, "latency_us": {}}


def run(work: str, port: int) -> None:
    """Do the work once, then obey standard input."""
    with socket.create_connection(("127.0.0.1", port), _SILENCE_S) as sock:
        try:
            order = "count 1"
            while order:
                answer = _obey(int(order.split()[1]), sock, work)
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
                order = sys.stdin.readline()
        except (Wrong, OSError) as error:
            sys.stdout.write(json.dumps({"error": str(error) or "no answer in time"}) + "\n")
            sys.stdout.flush()
