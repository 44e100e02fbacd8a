"""Many connections at a time, and nothing left of them."""

import asyncio
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Final, Self

import pytest

from process.conftest import KERNEL, NUMBER, TOKEN, Place, channel, path, request
from support.client import Message, RawClient, get, upgrade
from support.instance import Connection, Instance, ok, switching
from support.proxy import RunningProxy
from support.sessions import rows
from support.usage import Start
from visa_jupyter_proxy.worker.crowds import MOST_AT_ONCE

TUNNELS: Final = 2000
ESTABLISHED: Final = "01"
"""In the kernel's table; connections of a moment ago wait there for their end, on the same port."""

LARGEST_TUNNEL: Final = 10 * 1024
"""Bytes of the worker's memory; nginx takes 35 KB, HAProxy 4 KB, we should take less than that."""


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Have as many descriptors as we may; what is started inherits them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(pid: int) -> int:
    """Give the bytes of memory that a process occupies."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def open_descriptors(proxy: RunningProxy) -> int:
    """Count what the worker has open."""
    return len([*Path(f"/proc/{proxy.worker_pid}/fd").iterdir()])


def cpu_seconds(pid: int) -> float:
    """Give the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Crowd:
    """Many tunnels, each with both of its ends in this one event loop."""

    def __init__(self, place: Place, proxy: RunningProxy) -> None:
        self._place = place
        self._proxy = proxy
        self.ends: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> Self:
        host = "127.81.0.1"
        self._place.api.instance(NUMBER, owner="anna", ip=host)
        self._server = await asyncio.start_server(_echo, host, self._place.instance.port, backlog=4096)
        return self

    async def __aexit__(self, *_: object) -> None:
        for _reader, writer in self.ends:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in self.ends))
        self._server.close()
        await self._server.wait_closed()

    async def grow(self, count: int, rest: str = "/ws") -> None:
        """Open so many tunnels more, a hundred at a time; `{}` in the path is the number of each."""
        while (begin := len(self.ends)) < count:
            paths = [rest.format(number) for number in range(begin, min(begin + 100, count))]
            self.ends += await asyncio.gather(*map(self._open, paths))

    async def _open(self, rest: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.port)
        writer.write(upgrade(path(rest), token=TOKEN))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 101 ")
        return reader, writer

    async def ping(self) -> None:
        """Send a ping frame through every tunnel, and see it come back."""
        for _, writer in self.ends:
            writer.write(b"\x89\x80\x01\x02\x03\x04")
        for reader, _ in self.ends:
            assert b"\x89\x80\x01\x02\x03\x04" == await asyncio.wait_for(reader.readexactly(6), 60)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            names = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
            asked = Message(b"", [(name, value.strip()) for name, _, value in names])
            writer.write(switching(asked))
            while data := await reader.read(65536):
                writer.write(data)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the proxy is stopped at the end


@pytest.mark.usefixtures("descriptors")
def test_168_two_thousand_idle_tunnels(place: Place) -> None:
    """They outlive every deadline that is not theirs, answer pings, and take little memory each."""
    short = dict.fromkeys(("IDLE_TIMEOUT_S", "HEADER_TIMEOUT_S", "BODY_TIMEOUT_S", "WRITE_TIMEOUT_S"), "2")
    # A hundred at a time take their time where others are at work, too.
    proxy = place.start(**short, RESPONSE_TIMEOUT_S="6", CONNECT_TIMEOUT_S="6")

    async def main() -> int:
        async with Crowd(place, proxy) as crowd:
            await crowd.grow(100)
            await crowd.ping()
            before = resident(proxy.worker_pid)
            await crowd.grow(100 + TUNNELS)
            taken = resident(proxy.worker_pid) - before
            for _ in range(3):
                await crowd.ping()
                await _outlive_an_idle_connection(proxy)
            await crowd.ping()
            return taken // TUNNELS

    each = asyncio.run(main())
    print(f"bytes of memory for each idle tunnel: {each}")  # noqa: T201 -- for `pytest -rP`
    assert each < LARGEST_TUNNEL


async def _outlive_an_idle_connection(proxy: RunningProxy) -> None:
    """Wait for the deadline of a connection on which nothing is asked."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert b"" == await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("seconds", ["60", "0"])
def test_168_tcp_looks_after_idle_tunnels(place: Place, seconds: str) -> None:
    """On both connections, unless switched off: a peer that has vanished would stay for ever."""
    proxy = place.start(TCP_KEEPALIVE_S=seconds)
    client = place.client(proxy)
    assert client.ask(upgrade(path("/ws"), token=TOKEN)).status == 101
    expected = "02" if seconds != "0" else "00"  # proc_pid_net(5): the keep-alive timer, or none
    for local, remote in ((proxy.port, client.sock.getsockname()[1]), (None, place.instance.port)):
        timers = [
            line[5].partition(":")[0]
            for line in _connections(proxy)
            if line[3] == ESTABLISHED
            and (local is None or line[1].endswith(f":{local:04X}"))
            and line[2].endswith(f":{remote:04X}")
        ]
        assert [expected] == timers


@pytest.mark.usefixtures("descriptors")
def test_217_five_hundred_sessions_at_once(place: Place) -> None:
    """Each is in the journal and at VISA, while they are open and when they have ended."""
    proxy = place.start()
    journal = place.directory / "data" / "journal.sqlite3"

    async def main() -> None:
        async with Crowd(place, proxy) as crowd:
            await crowd.grow(500, f"/api/kernels/{KERNEL}/channels?session_id=S{{}}")
            await place.api.until(lambda: 500 == sum(place.sessions().values()))
            query = "SELECT session_id FROM sessions WHERE closed_at IS NULL"
            assert {f"S{n}" for n in range(500)} == {row[0] for row in rows(journal, query)}

    asyncio.run(main())
    place.api.wait(lambda: 500 == len(place.sessions()) and not any(place.sessions().values()))
    proxy.wait(lambda: [(500,)] == rows(journal, "SELECT count(*) FROM sessions WHERE closed_at IS NOT NULL"))


def test_a_crowd_that_comes_at_once_holds_up_nobody_else(place: Place) -> None:
    """Who asks on a connection that is in use does not wait for all who have just come, and speak first."""
    proxy = place.start()
    client = place.client(proxy)
    assert client.ask(get("/nobody/in")).status == 404
    with ExitStack() as stack:
        before = open_descriptors(proxy)
        crowd = [stack.enter_context(RawClient(proxy.port)) for _ in range(300)]
        proxy.wait(lambda: open_descriptors(proxy) == before + len(crowd))
        os.kill(proxy.worker_pid, signal.SIGSTOP)  # so that all of it has come when it looks
        for other in crowd:
            other.send(get("/nobody/crowd"))
        client.send(get("/nobody/in"))
        os.kill(proxy.worker_pid, signal.SIGCONT)
        assert {404} == {one.response().status for one in (client, *crowd)}
    proxy.wait(lambda: len(proxy.records("request")) == len(crowd) + 2)
    order = [record["path"] for record in proxy.records("request")]
    # Not behind all 300: behind those of one turn, and what the next ones let in until this one is read.
    assert order.index("/nobody/in", 1) < 150


class TestNothingIsLeft:
    """Descriptors, tasks and memory of connections that have ended are given back."""

    def test_171_a_thousand_connections_of_every_kind(self, place: Place) -> None:
        """Ended cleanly, by reset, half-open, in the handshake, from either side: back to the start."""
        place.instance.play(_leave_as_asked)
        proxy = place.start(HEADER_TIMEOUT_S="2", IDLE_TIMEOUT_S="2", DRAIN_S="600")
        start = Start(proxy.states)
        for number in range(1000):
            _connect_and_leave(place, proxy, ENDS[number % len(ENDS)])
        start.wait_until_back()
        assert 0 == proxy.stop()  # at once: it waits for nobody any more


ENDS: Final = (
    "client FIN",
    "client reset",
    "client half-open",
    "client full",
    "instance FIN",
    "instance reset",
    "in the handshake",
    "in the head",
    "silent",
    "request",
)


def _leave_as_asked(connection: Connection) -> None:
    while True:
        asked = connection.request_head()
        if asked.one("upgrade") is None:
            connection.send(ok())
            continue
        how = asked.target.rpartition(b"/")[2].decode()
        if how == "in-the-handshake":
            connection.rest()
            return
        connection.send(switching(asked))
        if how == "instance-reset":
            connection.reset()
        elif how == "client-full":
            while True:
                connection.send(bytes(2**16))
        elif how != "instance-FIN":
            connection.rest()
        return


def _connect_and_leave(place: Place, proxy: RunningProxy, how: str) -> None:
    client = RawClient(proxy.port)
    asked = upgrade(path("/" + how.replace(" ", "-")), token=TOKEN)
    match how:
        case "silent":
            pass
        case "in the head":
            client.send(asked[:50])
        case "request":
            assert client.ask(request()).status == 200
        case "in the handshake":
            count = len(place.instance.requests)
            client.send(asked)
            place.instance.wait(lambda: len(place.instance.requests) > count)
        case _:
            assert client.ask(asked).status == 101
    match how:
        case "client reset" | "in the handshake" | "client full":
            client.reset()
        case "client half-open":
            client.finish()
            client.rest()
            client.sock.close()
        case "instance FIN" | "instance reset":
            client.rest()
            client.sock.close()
        case _:
            client.sock.close()


def _connections(proxy: RunningProxy) -> list[list[str]]:
    """Read the kernel's table of TCP connections, without what listens: local and remote address, timer."""
    table = Path(f"/proc/{proxy.worker_pid}/net/tcp").read_text().splitlines()[1:]
    return [line for line in map(str.split, table) if line[3] != "0A"]


def test_a_crowd_that_leaves_at_once_holds_up_nobody_else(place: Place) -> None:
    """Nor does who asks wait until all tunnels of those are over that have gone in one moment."""
    proxy = place.start()
    place.instance.play(_leave_as_asked)
    client = place.client(proxy)
    assert client.ask(get("/nobody/in")).status == 404
    with ExitStack() as stack:
        crowd = [stack.enter_context(RawClient(proxy.port)) for _ in range(300)]
        for other in crowd:
            assert other.ask(upgrade(path("/ws"), token=TOKEN)).status == 101
        os.kill(proxy.worker_pid, signal.SIGSTOP)
        for other in crowd:
            other.sock.close()
        client.send(get("/nobody/in"))
        os.kill(proxy.worker_pid, signal.SIGCONT)
        assert client.response().status == 404
    proxy.wait(lambda: len(proxy.records("tunnel")) == len(crowd))
    asked = proxy.records("request")[-1]["timestamp"]
    assert len([one for one in proxy.records("tunnel") if one["timestamp"] < asked]) < 150


def test_instances_that_switch_and_reset_in_one_moment_have_had_their_tunnels(place: Place) -> None:
    """All of them, also those whose answers have to wait: each session has begun, and has ended."""
    proxy = place.start()
    go = threading.Event()

    def switch_and_reset(connection: Connection) -> None:
        asked = connection.request_head()
        assert go.wait(60)
        connection.send(switching(asked))
        connection.reset()
        place.instance.received.append(asked.target)

    place.instance.play(switch_and_reset)
    with ExitStack() as stack:
        crowd = [stack.enter_context(RawClient(proxy.port)) for _ in range(3 * MOST_AT_ONCE)]
        for number, other in enumerate(crowd):
            other.send(channel(f"S{number}"))
        place.instance.wait(lambda: len(place.instance.requests) == len(crowd))
        os.kill(proxy.worker_pid, signal.SIGSTOP)
        go.set()
        place.instance.wait(lambda: len(place.instance.received) == len(crowd))
        os.kill(proxy.worker_pid, signal.SIGCONT)
        proxy.wait(lambda: len(proxy.records("tunnel")) == len(crowd))
    assert [] == proxy.records("request")
    place.api.wait(lambda: len(place.sessions()) == len(crowd) and not any(place.sessions().values()))


@pytest.mark.parametrize(("limits", "most"), [("256", 256), ("256:4096", 4096)])
def test_there_is_room_for_all_descriptors_from_the_start(place: Place, limits: str, most: int) -> None:
    """Up to the hard limit; to make it while many connect takes 10 to 20 ms each time, for everybody."""
    proxy = place.start(under=("prlimit", f"--nofile={limits}"))
    status = Path(f"/proc/{proxy.worker_pid}/status").read_text()
    assert f"FDSize:\t{most}\n" in status


class TestDescriptorsRunOut:
    """Accepting pauses below the limit of file descriptors."""

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_230_five_hundred_connections_and_256_descriptors(self, place: Place, workers: str) -> None:
        """No crash and no spinning; who waits is served when others leave; nothing is said of a fault."""
        proxy = place.start(under=("prlimit", "--nofile=256"), HEADER_TIMEOUT_S="600", WORKERS=workers)
        assert place.client(proxy).ask(request()).status == 200
        worker = proxy.worker_pid
        with ExitStack() as stack:
            crowd = [stack.enter_context(RawClient(proxy.port)) for _ in range(500)]
            proxy.wait(lambda: open_descriptors(proxy) > 60)
            before, began = cpu_seconds(worker), time.monotonic()
            while time.monotonic() - began < 2:  # a period in which nothing is to be done
                assert open_descriptors(proxy) < 256
                time.sleep(0.1)
            assert cpu_seconds(worker) - before < 0.5
            assert crowd[0].ask(request()).status == 200  # those inside are served, upstream included
            last = crowd[-1]
            last.send(request())
            for client in crowd[:-1]:
                client.sock.close()
            assert last.response().status == 200
        assert worker == proxy.worker_pid
        assert place.client(proxy).ask(request()).status == 200
        assert not [r for r in proxy.records("request") if r.get("status") != 200]

    def test_230_idle_connections_of_many_instances(self, place: Place) -> None:
        """What waits for a next request takes no place from those who come: all in turn are served."""
        proxy = place.start(under=("prlimit", "--nofile=256"))
        with ExitStack() as instances:
            for number in range(NUMBER + 1, NUMBER + 13):
                instance = instances.enter_context(Instance(place.instance.port))
                place.api.instance(number, owner="anna", ip=instance.host)
                together = threading.Barrier(24)
                instance.play(partial(_answer_together, together))
                with ExitStack() as stack:
                    crowd = [stack.enter_context(RawClient(proxy.port)) for _ in range(together.parties)]
                    for client in crowd:
                        client.send(get(f"/jupyter/{number}/x", token=TOKEN))
                    assert {200} == {client.response().status for client in crowd}


def _answer_together(together: threading.Barrier, connection: Connection) -> None:
    """Answer when all have asked, so that each has a connection of its own; then keep it."""
    connection.request()
    together.wait(20)
    connection.send(ok())
    connection.rest()
