"""Large bodies, which the kernel moves from one connection to the other: exact, whatever happens."""

import hashlib
import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from support.client import ConnectionEnded, Message, RawClient, get
from support.instance import Connection, ok
from support.proxy import RunningProxy, running_proxy
from support.streams import MIB, in_background, take
from support.visa_api import VisaApiServer
from wire.conftest import Wire, production

SIZE: Final = 3 * MIB + 12_345
CONTENT: Final = random.Random(1).randbytes(SIZE)
DIGEST: Final = hashlib.sha256(CONTENT).digest()
CUTS: Final = [0, 1, 70_000, 2 * MIB, SIZE - 1]
"""How much of a body is sent before something happens."""


def read_by(proxy: RunningProxy) -> int:
    """Count the bytes that the worker has read itself: what the kernel moves is not among them."""
    lines = Path(f"/proc/{proxy.worker_pid}/io").read_text().splitlines()
    return int(lines[0].removeprefix("rchar: "))


def pipes(proxy: RunningProxy) -> int:
    """Count the pipes that the worker has."""
    links = set()
    for one in Path(f"/proc/{proxy.worker_pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            links.add(str(one.readlink()))
    return sum(link.startswith("pipe:") for link in links)


def put(wire: Wire, *fields: str, size: int = SIZE) -> bytes:
    """Write the head of an upload."""
    return wire.get("/x", f"Content-Length: {size}", *fields, method="PUT")


def head(size: int = SIZE) -> bytes:
    """Write the head of a download."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size


def digest_of(end: RawClient | Connection, count: int, dice: random.Random | None = None) -> bytes:
    """Read so many bytes, by pieces and with breaks as the dice say."""
    digest, left = hashlib.sha256(end.buffer[:count]), count - len(end.buffer)
    end.buffer = end.buffer[count:]
    while left > 0:
        most = MIB if dice is None else int(2 ** dice.uniform(6, 20))
        data = end.sock.recv(min(left, most))
        if not data:
            raise ConnectionEnded
        digest.update(data)
        left -= len(data)
        if dice is not None and not dice.randrange(16):
            time.sleep(0.001)  # a slow reader is what is tested
    return digest.digest()


def send_pieces(end: RawClient | Connection, data: bytes, dice: random.Random) -> None:
    """Send it by pieces and with breaks as the dice say."""
    position = 0
    while position < len(data):
        step = int(2 ** dice.uniform(4, 20))
        end.send(data[position : position + step])
        position += step
        if not dice.randrange(16):
            time.sleep(0.001)  # a slow writer is what is tested


def record(wire: Wire) -> dict[str, Any]:
    """Give the one line of the log that is this user's."""

    def mine() -> list[dict[str, Any]]:
        return [one for one in wire.proxy.records("request") if one.get("instance") == wire.number]

    wire.proxy.wait(mine)
    (found,) = mine()
    return found


class TestBytes:
    """What goes in comes out, and the connections go on."""

    @pytest.mark.parametrize("seed", range(4))
    def test_downloads_and_uploads_in_turn(self, wire: Wire, seed: int) -> None:
        """On one connection each way, large and small, in any pieces, with slow readers and writers."""

        def script(connection: Connection) -> None:
            dice = random.Random(seed)
            while True:
                request = connection.request_head()
                if request.method == b"PUT":
                    connection.instance.received.append(digest_of(connection, SIZE, dice))
                    connection.send(ok(b"taken"))
                elif request.target.endswith(b"/large"):
                    send_pieces(connection, head() + CONTENT, dice)
                else:
                    connection.send(ok(b"small"))

        wire.instance.play(script)
        dice = random.Random(seed + 100)
        with wire.client() as client:
            for _ in range(3):
                client.send(wire.get("/large"))
                client.through(b"\r\n\r\n")
                assert DIGEST == digest_of(client, SIZE, dice)
                assert b"small" == client.ask(wire.get()).body
                send_pieces(client, put(wire) + CONTENT, dice)
                assert b"taken" == client.response().body
        assert [DIGEST] * 3 == wire.instance.received
        assert 1 == wire.instance.connections

    @pytest.mark.parametrize("way", ["down", "up"])
    def test_the_kernel_moves_them(self, wire: Wire, way: str) -> None:
        """Hardly any of the bytes pass through the process; all are counted."""

        def script(connection: Connection) -> None:
            connection.request_head()
            if way == "up":
                digest_of(connection, 8 * SIZE)
                connection.send(ok(b""))
                return
            connection.send(head(8 * SIZE))
            for _ in range(8):
                connection.send(CONTENT)

        wire.instance.play(script)
        before = read_by(wire.proxy)
        with wire.client() as client:
            if way == "up":
                client.send(put(wire, size=8 * SIZE))
                for _ in range(8):
                    client.send(CONTENT)
                assert 200 == client.response().status
            else:
                client.send(wire.get())
                client.through(b"\r\n\r\n")
                digest_of(client, 8 * SIZE)
            line = record(wire)
        assert read_by(wire.proxy) - before < 4 * MIB
        down, up = (8 * SIZE, 0) if way == "down" else (0, 8 * SIZE)
        assert (down, up, 200) == (line["bytes_down"], line["bytes_up"], line["status"])

    def test_what_comes_behind_an_upload_is_the_next_request(self, wire: Wire) -> None:
        """Though it came with its last bytes, and before the answer."""

        def script(connection: Connection) -> None:
            for _ in range(2):
                request = connection.request_head()
                size = int(request.one("content-length") or 0)
                connection.instance.received.append(digest_of(connection, size))
                connection.send(ok(request.method))

        wire.instance.play(script)
        with wire.client() as client:
            client.send(put(wire) + CONTENT + wire.get())
            assert [b"PUT", b"GET"] == [client.response().body for _ in range(2)]
        assert [DIGEST, hashlib.sha256().digest()] == wire.instance.received

    def test_surplus_behind_a_download_goes_nowhere(self, wire: Wire) -> None:
        """What an instance sends behind its body ends its connection (case 179), and no other."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(head() + CONTENT + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            connection.rest()

        wire.instance.play(script)
        with wire.client() as client:
            for _ in range(2):
                client.send(wire.get())
                client.through(b"\r\n\r\n")
                assert DIGEST == digest_of(client, SIZE)
        assert 2 == wire.instance.connections

    def test_a_client_of_http_1_0_gets_all_until_the_end(self, wire: Wire) -> None:
        """A body without a length ends with the connection, on both sides."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(b"HTTP/1.0 200 OK\r\n\r\n")
            for _ in range(8):
                connection.send(CONTENT)

        wire.instance.play(script)
        before = read_by(wire.proxy)
        with wire.client() as client:
            client.send(wire.get().replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1))
            client.through(b"\r\n\r\n")
            assert hashlib.sha256(CONTENT * 8).digest() == digest_of(client, 8 * SIZE)
            assert client.closed()
            assert not client.was_reset
        assert read_by(wire.proxy) - before < 8 * MIB

    def test_a_client_that_says_no_more_gets_its_download(self, wire: Wire) -> None:
        """It has sent FIN behind its request (case 60)."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(head() + CONTENT)

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get())
            client.finish()
            client.through(b"\r\n\r\n")
            assert DIGEST == digest_of(client, SIZE)
            assert client.closed()


class TestEnds:
    """Either side may go at any point."""

    @pytest.mark.parametrize("how", ["end", "reset"])
    @pytest.mark.parametrize("cut", CUTS)
    def test_an_instance_that_goes_in_a_download(self, wire: Wire, cut: int, how: str) -> None:
        """The client gets what came, never more, and cannot take it for all."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(head() + CONTENT[:cut])
            assert arrived.wait(20)
            if how == "reset":
                reset(connection)

        arrived = threading.Event()
        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get())
            client.through(b"\r\n\r\n")
            assert hashlib.sha256(CONTENT[:cut]).digest() == digest_of(client, cut)
            arrived.set()
            assert b"" == client.rest()
        line = record(wire)
        assert ("instance_invalid", cut) == (line["reason"], line["bytes_down"])

    @pytest.mark.parametrize("cut", CUTS)
    def test_a_client_that_goes_in_a_download(self, wire: Wire, cut: int) -> None:
        """The instance is reset at once, however much it had to say."""

        def script(connection: Connection) -> None:
            connection.request_head()
            try:
                connection.send(head(100 * SIZE))
                for _ in range(100):
                    connection.send(CONTENT)
            except ConnectionError:
                connection.instance.received.append(b"reset")

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get())
            client.through(b"\r\n\r\n")
            digest_of(client, cut)
            client.reset()
            wire.instance.wait(lambda: wire.instance.received)
        line = record(wire)
        assert "client_gone" == line["reason"]
        assert cut <= line["bytes_down"] < 100 * SIZE

    @pytest.mark.parametrize("how", ["end", "reset"])
    @pytest.mark.parametrize("cut", CUTS)
    def test_a_client_that_goes_in_an_upload(self, wire: Wire, cut: int, how: str) -> None:
        """The instance gets what came, then a reset, so that it cannot take it for all."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.instance.received.append(digest_of(connection, cut))
            arrived.set()
            assert b"" == connection.rest()
            connection.instance.received.append(b"reset" if connection.was_reset else b"end")

        arrived = threading.Event()
        wire.instance.play(script)
        with wire.client() as client:
            client.send(put(wire) + CONTENT[:cut])
            assert arrived.wait(20)
            if how == "reset":
                client.reset()
            else:
                client.finish()
                assert 400 == client.response().status
            wire.instance.wait(lambda: len(wire.instance.received) == 2)
        assert [hashlib.sha256(CONTENT[:cut]).digest(), b"reset"] == wire.instance.received
        assert cut == record(wire)["bytes_up"]

    @pytest.mark.parametrize("how", ["end", "reset"])
    @pytest.mark.parametrize("cut", CUTS)
    def test_an_instance_that_goes_in_an_upload(self, wire: Wire, cut: int, how: str) -> None:
        """The client is told, though it still sends."""

        def script(connection: Connection) -> None:
            connection.request_head()
            digest_of(connection, cut)
            if how == "reset":
                reset(connection)

        wire.instance.play(script)
        with wire.client() as client:
            client.send(put(wire, size=100 * SIZE))
            sender = in_background(client.send_in_pieces, CONTENT * 100, MIB)
            response = client.response()
            client.sock.shutdown(socket.SHUT_RDWR)
            sender.join(20)
            assert not sender.is_alive()
        assert 502 == response.status

    @pytest.mark.parametrize("cut", CUTS)
    def test_an_answer_in_the_middle_of_an_upload(self, wire: Wire, cut: int) -> None:
        """It arrives in full, large or small, and the upload is given up (case 183)."""
        answer = CONTENT[: 2 * MIB]

        def script(connection: Connection) -> None:
            connection.request_head()
            digest_of(connection, cut)
            connection.send(b"HTTP/1.1 413 No\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
            assert over.wait(20)

        over = threading.Event()
        wire.instance.play(script)
        with wire.client() as client:
            client.send(put(wire, size=100 * SIZE))
            sender = in_background(client.send_in_pieces, CONTENT * 100, MIB)
            response = client.response()
            over.set()
            client.sock.shutdown(socket.SHUT_RDWR)
            sender.join(20)
            assert not sender.is_alive()
        assert (413, answer) == (response.status, response.body)

    def test_an_upload_that_waits_for_100(self, wire: Wire) -> None:
        """The instance's 100 reaches the client, and then the body the instance."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.instance.received.append(digest_of(connection, SIZE))
            connection.send(ok())

        wire.instance.play(script)
        with wire.client() as client:
            assert 100 == client.ask(put(wire, "Expect: 100-continue")).status
            client.send(CONTENT)
            assert 200 == client.response().status
        assert [DIGEST] == wire.instance.received


def reset(connection: Connection) -> None:
    """Close with a reset."""
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sock.close()


@dataclass
class Stuck:
    """Downloads that nobody reads yet."""

    clients: list[RawClient]

    def finish(self) -> list[bytes]:
        """Read all of them; give their digests."""
        for client in self.clients:
            client.through(b"\r\n\r\n")
        return [digest_of(client, 4 * SIZE) for client in self.clients]


class TestPipes:
    """There are only so many pipes."""

    @pytest.fixture
    def other_proxy(
        self, tmp_path: Path, api: VisaApiServer, instance_port: int
    ) -> Iterator[Callable[..., RunningProxy]]:
        """Run another proxy, under a command or with settings of the test's own."""
        with ExitStack() as stack:

            def start(*under: str, **settings: str) -> RunningProxy:
                routes = production(instance_port)
                running = running_proxy(tmp_path, api_url=api.url, routes=routes, under=under, **settings)
                return stack.enter_context(running)

            yield start

    def test_those_without_one_pass_as_ever(
        self, wire: Wire, other_proxy: Callable[..., RunningProxy]
    ) -> None:
        """As many as the descriptors allow go through pipes, the others do not; all arrive."""
        wire = replace(wire, proxy=other_proxy("prlimit", "--nofile=256"))

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(head(4 * SIZE))
            for _ in range(4):
                connection.send(CONTENT)

        wire.instance.play(script)
        others = pipes(wire.proxy)
        with ExitStack() as stack:
            stuck = Stuck([stack.enter_context(wire.client()) for _ in range(12)])
            for client in stuck.clients:
                client.send(wire.get())
            wire.proxy.wait(lambda: pipes(wire.proxy) == others + 8)
            assert {hashlib.sha256(CONTENT * 4).digest()} == {*stuck.finish()}
        assert others + 8 == pipes(wire.proxy)  # they are kept

    @pytest.mark.parametrize("way", ["down", "up"])
    def test_a_deadline_for_what_stops(
        self, wire: Wire, other_proxy: Callable[..., RunningProxy], way: str
    ) -> None:
        """A body that moves now and then takes as long as it does; one that stops is ended, and counted."""
        wire = replace(wire, proxy=other_proxy(BODY_TIMEOUT_S="2", WRITE_TIMEOUT_S="2"))
        over = threading.Event()

        def script(connection: Connection) -> None:
            connection.request_head()
            if way == "down":
                connection.send(head(100 * SIZE))
                for _ in range(100):
                    connection.send(CONTENT)
            else:
                connection.rest()
                over.set()

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get() if way == "down" else put(wire, size=100 * SIZE))
            for _ in range(8):
                if way == "down":
                    # More than the kernel's buffers: it tells of progress when a third of one is free.
                    assert 8 * MIB == take(client, 8 * MIB)
                else:
                    client.send(CONTENT[:100_000])
                time.sleep(0.5)  # slower than the deadline in all, faster at any time
                assert [] == wire.proxy.records("request")
            if way == "up":
                assert 408 == client.response().status
                assert over.wait(20)
            else:
                client.rest()
                assert client.was_reset
        line = record(wire)
        assert (way == "down", way == "up") == (line["bytes_down"] > SIZE, line["bytes_up"] == 800_000)


def test_a_request_is_drained(tmp_path: Path, wire: Wire, api: VisaApiServer, instance_port: int) -> None:
    """A download that is under way when the proxy is told to stop goes on to its end."""
    going = threading.Event()

    def script(connection: Connection) -> None:
        connection.request_head()
        connection.send(head() + CONTENT[:MIB])
        assert going.wait(20)
        connection.send(CONTENT[MIB:])

    wire.instance.play(script)
    with running_proxy(tmp_path, api_url=api.url, routes=production(instance_port)) as proxy:
        wire = replace(wire, proxy=proxy)
        with wire.client() as client:
            client.send(wire.get())
            client.through(b"\r\n\r\n")
            begin = client.exactly(MIB)
            proxy.signal(signal.SIGTERM)
            proxy.wait(lambda: not _accepts(proxy))
            going.set()
            digest = hashlib.sha256(begin)
            digest.update(client.exactly(SIZE - MIB))
            assert DIGEST == digest.digest()
        assert 0 == proxy.exit_status()


def _accepts(proxy: RunningProxy) -> bool:
    try:
        with RawClient(proxy.port):
            return True
    except ConnectionError:
        return False


def test_a_token_that_is_refused(wire: Wire) -> None:
    """Of an upload that is not allowed nothing reaches the instance; the client is told, though it sends."""
    with wire.client() as client:
        client.send(get(wire.path(), f"Content-Length: {100 * SIZE}", method="PUT", token="other"))
        sender = in_background(client.send_in_pieces, CONTENT * 100, MIB)
        response: Message = client.response()
        client.sock.shutdown(socket.SHUT_RDWR)
        sender.join(20)
        assert not sender.is_alive()
    assert (401, 0) == (response.status, wire.instance.connections)
