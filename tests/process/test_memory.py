"""Bodies and tunnels of any size pass in bounded memory, whoever is slow."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from process.conftest import TOKEN, Place, path, request
from support.client import RawClient, upgrade
from support.instance import Connection
from support.proxy import RunningProxy
from support.streams import MIB, fill, give, in_background, take

GIB: Final = 1024 * MIB
TUNNELS: Final = 8
ALLOWED_GROWTH: Final = 24 * MIB
"""Buffers of a few connections in both directions, and what an allocator keeps; far below any body here."""


def _peak(proxy: RunningProxy) -> int:
    for line in Path(f"/proc/{proxy.worker_pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def _take(client: RawClient | Connection, count: int) -> int:
    """Read and drop `count` bytes; give how many came."""
    buffer = bytearray(MIB)
    left = count - len(client.buffer)
    client.buffer = b""
    while left > 0 and (got := client.sock.recv_into(buffer, min(left, len(buffer)))):
        left -= got
    return count - left


def _give(client: RawClient | Connection, count: int) -> None:
    block = bytes(MIB)
    for _ in range(count // MIB):
        client.sock.sendall(block)


def test_173_a_download_of_5_gib(place: Place) -> None:
    """It is exact, and the worker's memory stays flat."""
    size = 5 * 1024 * MIB

    def script(connection: Connection) -> None:
        connection.request()
        connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        _give(connection, size)

    place.instance.play(script)
    proxy = place.start()
    client = place.client(proxy)
    client.send(request())
    client.through(b"\r\n\r\n")
    before = _peak(proxy)
    assert size == _take(client, size)
    assert _peak(proxy) - before < ALLOWED_GROWTH


def test_173_an_upload_of_2_gib(place: Place) -> None:
    """Likewise."""
    size = 2 * 1024 * MIB

    def script(connection: Connection) -> None:
        connection.request_head()
        connection.instance.received.append(str(_take(connection, size)).encode())
        connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    place.instance.play(script)
    proxy = place.start()
    client = place.client(proxy)
    client.send(request("/x", f"Content-Length: {size}", method="PUT"))
    place.instance.wait(lambda: place.instance.requests)
    before = _peak(proxy)
    _give(client, size)
    assert client.response().status == 204
    assert [str(size).encode()] == place.instance.received
    assert _peak(proxy) - before < ALLOWED_GROWTH


@pytest.mark.parametrize("who", ["client", "instance"])
def test_166_a_peer_that_stops_reading(place: Place, who: str) -> None:
    """Whoever sends a gigabyte to it is blocked, in less than a mebibyte for each tunnel; then it goes on."""
    instances: list[Connection] = []
    over = threading.Event()

    def script(connection: Connection) -> None:
        connection.accept_websocket()
        instances.append(connection)
        assert over.wait(100)

    place.instance.play(script)
    proxy = place.start()
    clients = []
    for _ in range(TUNNELS + 1):
        clients.append(place.client(proxy))
        assert clients[-1].ask(upgrade(path("/ws"), token=TOKEN)).status == 101
        place.instance.wait(lambda: len(instances) == len(clients))
    pairs: list[tuple[RawClient | Connection, RawClient | Connection]] = [
        (client, instance) if who == "client" else (instance, client)
        for client, instance in zip(clients, instances, strict=True)
    ]
    fill(pairs.pop()[0].sock)  # so that the allocator has seen such a thing
    before = _peak(proxy)
    with ThreadPoolExecutor(TUNNELS) as threads:
        sent = [*threads.map(lambda pair: fill(pair[0].sock), pairs)]
    assert _peak(proxy) - before < TUNNELS * MIB
    giver, taker = pairs[0]
    sender = in_background(give, giver, GIB - sent[0])
    assert GIB == take(taker)
    sender.join(20)
    assert _peak(proxy) - before < TUNNELS * MIB
    over.set()


@pytest.mark.parametrize("what", ["download", "upload", "tunnel down", "tunnel up"])
def test_a_peer_that_reads_slowly(place: Place, what: str) -> None:
    """While one side reads nothing, the other is not read either; afterwards everything arrives."""
    size = 96 * MIB
    go_on = threading.Event()
    down, tunnel = what.endswith(("download", "down")), what.startswith("tunnel")

    def script(connection: Connection) -> None:
        if tunnel:
            connection.accept_websocket()
        elif down:
            connection.request()
            connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        else:
            connection.request_head()
        if down:
            _give(connection, size)
        else:
            assert go_on.wait(60)
            connection.instance.received.append(str(_take(connection, size)).encode())

    place.instance.play(script)
    proxy = place.start()
    client = place.client(proxy)
    fields = () if down else (f"Content-Length: {size}",)
    client.send(
        upgrade(path("/ws"), token=TOKEN)
        if tunnel
        else request("/x", *fields, method="GET" if down else "PUT")
    )
    if tunnel:
        client.through(b"\r\n\r\n")
    sender = threading.Thread(target=lambda: None if down else _give(client, size))
    before = _peak(proxy)
    sender.start()
    _wait_until_nothing_moves(proxy)
    assert _peak(proxy) - before < ALLOWED_GROWTH
    go_on.set()
    if down:
        if not tunnel:
            client.through(b"\r\n\r\n")
        assert size == _take(client, size)
    else:
        place.instance.wait(lambda: place.instance.received)
        assert [str(size).encode()] == place.instance.received
    sender.join(20)
    assert _peak(proxy) - before < ALLOWED_GROWTH


def _wait_until_nothing_moves(proxy: RunningProxy) -> None:
    """Wait until the worker has moved nothing for a while: all buffers are full.

    What it tells control once a second is read and written, too: a few kilobytes.
    """
    seen: list[int] = []

    def is_still() -> bool:
        io = Path(f"/proc/{proxy.worker_pid}/io").read_text().splitlines()[:2]
        seen.append(sum(int(line.split()[1]) for line in io))
        return len(seen) > 50 and seen[-1] - seen[-50] < MIB // 8

    proxy.wait(is_still)
