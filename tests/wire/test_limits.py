"""Limits of what is read, and deadlines for peers that are slow (cases 71 to 81, 243)."""

import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from support.client import RawClient, get, upgrade
from support.instance import Connection, Instance, ok
from support.proxy import RunningProxy, running_proxy
from support.usage import cpu_seconds, descriptors, resident
from support.visa_api import VisaApiServer
from wire.conftest import Wire, production

_KIB: Final = 2**10
_MIB: Final = 2**20
_LARGEST_BODY: Final = 1000
_LINGER_S: Final = 30.0
"""Case 60: how long an exchange may go on without progress after the client's FIN."""

_GROWTH: Final = 15
"""Ten times the input may cost so many times as much (cases 80 and 81): 10 is linear, 100 quadratic."""


@pytest.fixture(scope="module")
def proxy(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int
) -> Iterator[RunningProxy]:
    """Run a proxy with short deadlines, and a limit for bodies on one of its routes."""
    settings = {
        "HEADER_TIMEOUT_S": "1",
        "IDLE_TIMEOUT_S": "1",
        "BODY_TIMEOUT_S": "2",
        "WRITE_TIMEOUT_S": "2",
        "TUNNEL_IDLE_TIMEOUT_S": "2",
    }
    routes = production(instance_port)
    routes[1]["maxBodyBytes"] = _LARGEST_BODY
    directory = tmp_path_factory.mktemp("short-deadlines")
    with running_proxy(directory, api_url=api.url, routes=routes, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def patient(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int
) -> Iterator[RunningProxy]:
    """Run a proxy that waits as long as by default: on a busy machine a client may begin late."""
    directory = tmp_path_factory.mktemp("default-deadlines")
    with running_proxy(directory, api_url=api.url, routes=production(instance_port)) as running:
        yield running


@pytest.fixture
def other_proxy(
    tmp_path: Path, api: VisaApiServer, instance_port: int
) -> Iterator[Callable[..., RunningProxy]]:
    """Run another proxy, with settings of the test's own."""
    with ExitStack() as stack:

        def start(**settings: str) -> RunningProxy:
            return stack.enter_context(
                running_proxy(tmp_path, api_url=api.url, routes=production(instance_port), **settings)
            )

        yield start


def trickle(client: RawClient, piece: bytes, seconds: float) -> float:
    """Send `piece` every so many seconds until something comes back; give how long that took."""
    began = time.monotonic()
    while not select.select([client.sock], [], [], seconds)[0]:
        assert time.monotonic() - began < 20, "nothing came back"
        client.send(piece)
    return time.monotonic() - began


def wait_for_the_end(connection: Connection) -> None:
    """Wait in a script until the proxy ends the connection, and record how."""
    connection.rest()
    connection.instance.received.append(b"reset" if connection.was_reset else b"ended")


class TestHeads:
    """How large a head may be, and how long it may take."""

    def test_71_sixteen_kib_of_cookies_pass(self, wire: Wire) -> None:
        """Byte for byte: such sites exist."""
        cookies = "; ".join(f"name{number}={'v' * 50}" for number in range(16 * _KIB // 60))
        assert 200 == wire.ask(wire.get("/x", f"Cookie: {cookies}")).status
        assert cookies.encode() == wire.instance.requests[0].one("cookie")

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ([f"X: {'a' * 64 * _KIB}"], 431),
            ([f"X-{number}: {'a' * 8000}" for number in range(_MIB // 8000)], 431),
            ([f"X-{number}: a" for number in range(1000)], 431),
            ([f"X-{number}: a" for number in range(99)], 431),
            ([f"X-{number}: a" for number in range(98)], 200),
            ([f"{'X' * 64 * _KIB}: a"], 431),
            ([f"X: {'a' * 31 * _KIB}"], 200),
        ],
        ids=["64-KiB", "1-MiB", "1000-fields", "101-fields", "100-fields", "64-KiB-name", "31-KiB"],
    )
    def test_71_larger_heads(self, wire: Wire, fields: list[str], status: int) -> None:
        """431 past 32 KiB or a hundred fields, and the instance hears nothing."""
        with wire.client() as client:
            client.send_in_pieces(wire.get("/x", *fields), _MIB)
            assert status == client.response().status
            assert status == 200 or client.closed()
        assert (status == 200) == bool(wire.instance.requests)

    def test_71_a_long_request_line(self, wire: Wire) -> None:
        """414 past 8 KiB."""
        room = 8 * _KIB - len(f"GET {wire.path('/')} HTTP/1.1\r\n")
        assert [200, 414] == [wire.ask(wire.get("/" + "a" * (room + more))).status for more in (0, 1)]

    def test_71_limits_are_settings(self, wire: Wire, other_proxy: Callable[..., RunningProxy]) -> None:
        """Each has its own."""
        small = other_proxy(REQUEST_LINE_BYTES="512", HEAD_BYTES="2048", HEAD_FIELDS="10")
        wire = replace(wire, proxy=small)
        assert 414 == wire.ask(wire.get("/" + "a" * 512)).status
        assert 431 == wire.ask(wire.get("/x", f"X: {'a' * 2048}")).status
        assert [200, 431] == [wire.ask(wire.get("/x", *["X: a"] * more)).status for more in (8, 9)]

    @pytest.mark.parametrize(
        ("begin", "status"),
        [
            (b"GET / HTTP/1.1\r\nHost: visa.test\r\nX: ", 431),
            (b"GET / HTTP/1.1\r\nHost: visa.test\r\n", 431),
            (b"GET /", 414),
            (b"", 414),
        ],
        ids=["in-a-value", "in-a-name", "in-a-target", "in-a-method"],
    )
    def test_72_a_head_without_end(self, patient: RunningProxy, begin: bytes, status: int) -> None:
        """It is cut at the limit, however fast it comes: less than 1 MiB of memory for each connection."""
        count, before = 20, resident(patient.worker_pid)
        with ExitStack() as stack:
            clients = [stack.enter_context(RawClient(patient.port)) for _ in range(count)]
            senders = [
                threading.Thread(target=client.send_in_pieces, args=(begin + b"a" * 16 * _MIB, _MIB))
                for client in clients
            ]
            for sender in senders:
                sender.start()
            assert [status] * count == [client.response().status for client in clients]
            assert resident(patient.worker_pid) - before < count * _MIB
            for client, sender in zip(clients, senders, strict=True):
                assert client.closed()
                client.sock.shutdown(socket.SHUT_RDWR)
                sender.join(20)
                assert not sender.is_alive()

    @pytest.mark.parametrize("first", [True, False], ids=["first", "behind-another"])
    def test_74_a_slow_head(self, wire: Wire, *, first: bool) -> None:
        """408 at the deadline of the whole head: the bytes that come do not move it."""
        with wire.client() as client:
            if not first:
                assert 200 == client.ask(wire.get()).status
            client.send(b"GET / HTTP/1.1\r\nX: ")
            # One second, and the tick's; the rest is for a slow machine.
            assert 0.9 < trickle(client, b"a", 0.1) < 8
            assert 408 == client.response().status
            assert client.closed()

    def test_74_empty_lines_are_no_head(self, wire: Wire) -> None:
        """They may stand before a head (RFC 9112 2.2), but do not keep a connection open."""
        with wire.client() as client:
            trickle(client, b"\r\n", 0.1)
            assert client.closed()

    def test_77_clients_that_say_nothing(
        self, wire: Wire, other_proxy: Callable[..., RunningProxy], many_descriptors: int
    ) -> None:
        """Thousands of them hinder nobody, and are gone at the deadline."""
        count = min(5000, many_descriptors // 3)
        proxy = other_proxy(HEADER_TIMEOUT_S="10")
        wire = replace(wire, proxy=proxy)
        assert 200 == wire.ask(wire.get()).status
        before = descriptors(proxy.worker_pid)
        with ExitStack() as stack:
            silent = [stack.enter_context(wire.client()) for _ in range(count)]
            proxy.wait(lambda: descriptors(proxy.worker_pid) > count)
            assert [200] * 50 == [wire.ask(wire.get()).status for _ in range(50)]
            assert descriptors(proxy.worker_pid) > count, "too slow: they are gone already"
            assert all(client.closed() for client in silent)
        proxy.wait(lambda: descriptors(proxy.worker_pid) <= before)

    def test_78_an_idle_connection(self, wire: Wire) -> None:
        """It is closed quietly, before and after a request: nobody gets a 408 in place of an answer."""
        with wire.client() as fresh, wire.client() as used:
            assert 200 == used.ask(wire.get()).status
            assert fresh.closed()
            assert used.closed()
            assert [False, False] == [client.was_reset for client in (fresh, used)]


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """Allow this process, and those it starts, all the descriptors it may have; give their number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestBodies:
    """How large a body may be, and how long it may stop."""

    @pytest.mark.parametrize(
        ("framing", "part"),
        [
            ("Content-Length: 10", b"hello"),
            ("Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
            ("Transfer-Encoding: chunked", b"5\r\nhel"),
            ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nX-Sum: "),
            ("Transfer-Encoding: chunked", b"5\r\nhello\r\n1"),
        ],
        ids=["length", "between-chunks", "in-a-chunk", "in-a-trailer", "in-a-size"],
    )
    def test_75_a_body_that_stops(self, wire: Wire, framing: str, part: bytes) -> None:
        """408 after a while without a byte, and the request at the instance is aborted."""

        def script(connection: Connection) -> None:
            connection.request_head()
            wait_for_the_end(connection)

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get("/x", framing, method="POST") + part)
            assert 408 == client.response().status
            assert client.closed()
        wire.instance.wait(lambda: wire.instance.received)
        assert [b"reset"] == wire.instance.received

    def test_75_a_body_that_the_instance_does_not_take(self, wire: Wire) -> None:
        """504 when it has taken nothing for a while: that is not the client's fault."""
        over = threading.Event()

        def script(connection: Connection) -> None:
            connection.request_head()
            assert over.wait(20)
            wait_for_the_end(connection)

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get("/x", f"Content-Length: {2**30}", method="PUT"))
            sender = threading.Thread(target=client.send_in_pieces, args=(bytes(64 * _MIB), _MIB))
            sender.start()
            assert 504 == client.response().status
            over.set()
            client.sock.shutdown(socket.SHUT_RDWR)
            sender.join(20)
            assert not sender.is_alive()
        wire.instance.wait(lambda: wire.instance.received)
        assert [b"reset"] == wire.instance.received

    def test_75_a_body_that_is_slow(self, wire: Wire) -> None:
        """As long as bytes come, it may take more than the deadline in all."""
        length = 16
        with wire.client() as client:
            client.send(wire.get("/x", f"Content-Length: {length}", method="POST"))
            began = time.monotonic()
            for _ in range(length - 1):
                client.send(b"a")
                assert not select.select([client.sock], [], [], 0.2)[0]
            client.send(b"a")
            assert 200 == client.response().status
            assert time.monotonic() - began > 2
        assert b"a" * length == wire.instance.requests[0].body

    @pytest.mark.parametrize(("size", "status"), [(_LARGEST_BODY, 200), (_LARGEST_BODY + 1, 413)])
    @pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
    def test_75_a_body_may_have_a_limit(self, wire: Wire, size: int, status: int, *, chunked: bool) -> None:
        """Past it 413; what says so in advance never reaches the instance, the rest is aborted there."""
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        head = get(f"/visafs/{wire.number}/x", framing, token=wire.token, method="PUT")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"a" * size) if chunked else b"a" * size
        with wire.client() as client:
            client.send_in_pieces(head + body, _MIB)
            assert status == client.response().status
            assert status == 200 or client.closed()
        assert (status == 200) == bool(wire.instance.requests)


class TestSlowReaders:
    """Clients that do not take their responses."""

    def _download(self, wire: Wire, size: int) -> RawClient:
        def script(connection: Connection) -> None:
            connection.request()
            try:
                connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
                for _ in range(size // _MIB):
                    connection.send(bytes(_MIB))
            finally:
                connection.instance.received.append(b"over")

        wire.instance.play(script)
        client = wire.client()
        client.send(wire.get())
        return client

    def test_75_a_client_that_takes_nothing(self, wire: Wire) -> None:
        """After a while it is reset, and so is the instance's connection."""
        with self._download(wire, 256 * _MIB) as client:
            wire.instance.wait(lambda: wire.instance.received)
            client.rest()
            assert client.was_reset

    def test_75_a_client_that_takes_a_little(self, wire: Wire) -> None:
        """As long as it takes something, it may take more than the deadline in all."""
        size = 24 * _MIB
        with self._download(wire, size) as client:
            client.through(b"\r\n\r\n")
            began, taken = time.monotonic(), len(client.buffer)
            while taken < size:
                assert not select.select([], [], [], 0.05)[0]
                taken += len(client.sock.recv(256 * _KIB))
            assert time.monotonic() - began > 2

    def test_75_a_tunnel_that_is_idle(self, wire: Wire) -> None:
        """With a limit set, it is closed when nothing moves; whatever moves keeps it open."""

        def script(connection: Connection) -> None:
            connection.accept_websocket()
            while connection.more():
                connection.send(connection.buffer)
                connection.buffer = b""
            connection.instance.received.append(b"ended")

        wire.instance.play(script)
        with wire.client() as client:
            client.send(upgrade(wire.path("/ws"), token=wire.token))
            client.through(b"\r\n\r\n")
            began = time.monotonic()
            while time.monotonic() - began < 3:
                client.send(b"x")
                assert b"x" == client.exactly(1)
                assert not select.select([client.sock], [], [], 0.2)[0]
            client.rest()
        wire.instance.wait(lambda: wire.instance.received)


class TestConnections:
    """How many clients there may be."""

    def test_77_a_limit_in_all(self, wire: Wire, other_proxy: Callable[..., RunningProxy]) -> None:
        """Those above it wait, and are served when others have gone."""
        wire = replace(wire, proxy=other_proxy(MAX_CONNECTIONS="2"))
        with wire.client() as first, wire.client() as second:
            assert [200, 200] == [client.ask(wire.get()).status for client in (first, second)]
            with wire.client() as third:
                third.send(wire.get())
                assert [200, 200] == [client.ask(wire.get()).status for client in (first, second)]
                assert not select.select([third.sock], [], [], 0)[0]
                first.reset()
                assert 200 == third.response().status

    def test_77_a_limit_for_each_address(self, wire: Wire, other_proxy: Callable[..., RunningProxy]) -> None:
        """One more is closed at once; other addresses, and this one later, are served."""
        wire = replace(wire, proxy=other_proxy(MAX_CONNECTIONS_PER_ADDRESS="2"))
        with wire.client() as first, wire.client() as second:
            assert [200, 200] == [client.ask(wire.get()).status for client in (first, second)]
            # The reset may be there before connecting has returned.
            with suppress(ConnectionResetError), wire.client() as third:
                assert b"" == third.rest()
            first.reset()

            def is_served() -> bool:
                with suppress(ConnectionResetError), wire.client() as again:
                    again.send_in_pieces(wire.get("/x", "Connection: close"), _MIB)
                    return again.rest().startswith(b"HTTP/1.1 200")
                return False

            wire.proxy.wait(is_served)


class TestCost:
    """What costs, costs in proportion: time on the CPU, as the kernel counts it for the worker.

    Instructions would repeat better, but not every machine counts them; the best of several runs does.
    """

    def _grows(self, wire: Wire, size: int, work: Callable[[int], None]) -> None:
        """Do the work for `size` and for ten times as much."""
        costs = []
        for amount in (size, 10 * size):
            runs = []
            for _ in range(3):
                before = cpu_seconds(wire.proxy.worker_pid)
                work(amount)
                runs.append(cpu_seconds(wire.proxy.worker_pid) - before)
            costs.append(min(runs))
        assert costs[1] < _GROWTH * costs[0], costs

    def test_80_tiny_chunks_of_an_instance(self, wire: Wire) -> None:
        """A hundred thousand of them cost ten times what ten thousand do."""

        def script(connection: Connection) -> None:
            while True:
                count = int(connection.request().target.rpartition(b"/")[2])
                head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                connection.send(head + b"1\r\nx\r\n" * count + b"0\r\n\r\n")

        def work(count: int) -> None:
            assert count == len(wire.ask(wire.get(f"/{count}")).body)

        wire.instance.play(script)
        work(100)
        self._grows(wire, 10_000, work)

    def test_80_others_are_served_meanwhile(self, wire: Wire) -> None:
        """One client's flood of chunks is not the others' wait."""
        go_on = threading.Event()

        def script(connection: Connection) -> None:
            if connection.request().target.endswith(b"/small"):
                connection.send(ok())
                return
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not go_on.is_set():
                connection.send(b"1\r\nx\r\n" * 10_000)
            connection.send(b"0\r\n\r\n")

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get("/flood"))
            client.through(b"\r\n\r\n")
            flood = threading.Thread(target=_discard, args=(client,))
            flood.start()
            assert [200] * 20 == [wire.ask(wire.get("/small")).status for _ in range(20)]
            assert flood.is_alive()
            go_on.set()
            flood.join(20)
            assert not flood.is_alive()

    def test_80_others_are_served_while_one_is_refused(self, wire: Wire) -> None:
        """So it is with a client that sends requests nobody serves, as fast as it can."""
        over = threading.Event()
        requests = get("/nope") * 5000

        def send() -> None:
            while not over.is_set():
                client.send_in_pieces(requests, len(requests))

        def read() -> None:
            with suppress(ConnectionResetError):  # what is still written to a client that has gone
                while client.sock.recv(_MIB):
                    continue

        with wire.client() as client:
            flood = [threading.Thread(target=target) for target in (send, read)]
            for thread in flood:
                thread.start()
            assert [200] * 20 == [wire.ask(wire.get("/small")).status for _ in range(20)]
            over.set()
            client.sock.shutdown(socket.SHUT_RDWR)
            for thread in flood:
                thread.join(20)
                assert not thread.is_alive()

    @pytest.mark.parametrize(
        ("target", "field", "status"),
        [
            ("/nope/" + "%2e%2e/" * 10_000, "X: y", 414),
            ("/nope", "Cookie: " + "; ".join(f"name{number}=v" for number in range(10_000)), 431),
            ("/nope", "X: " + "," * 10_000, 404),
            ("/nope", "Connection: " + "," * 10_000, 404),
            ("/nope", "Cookie: " + ";" * 10_000, 404),
        ],
        ids=["dots", "cookies", "commas", "options", "empty-cookies"],
    )
    def test_81_many_small_parts(self, wire: Wire, target: str, field: str, status: int) -> None:
        """Whatever they are, there is an answer."""
        assert status == wire.ask(get(target, field, token=wire.token)).status

    @pytest.mark.parametrize(
        ("target", "field", "size"),
        [
            ("/%2e%2e", "X: y", 100),
            ("//", "X: y", 300),
            ("%61", "X: y", 200),
            ("/x", "Cookie: %s", 300),
            ("/x", "Connection: %s", 3000),
            ("/x", "X-Forwarded-For: %s", 3000),
            ("/x", "Authorization: %s", 400),
            ("/x", "Upgrade: %s", 3000),
        ],
        ids=[
            "dots",
            "slashes",
            "escapes",
            "cookies",
            "Connection",
            "X-Forwarded-For",
            "Authorization",
            "Upgrade",
        ],
    )
    def test_81_cost_of_many_small_parts(self, wire: Wire, target: str, field: str, size: int) -> None:
        """Ten times as many cost ten times as much, at most."""
        parts = {"Cookie": "a=b; ", "Authorization": "Bearer "}

        def work(count: int) -> None:
            filled = field % (parts.get(field.partition(":")[0], ",") * count) if "%s" in field else field
            path = target if "%s" in field else target * count
            with wire.client() as client:
                for _ in range(50):
                    client.ask(wire.get("/" + path, filled))

        self._grows(wire, size, work)


def _discard(client: RawClient) -> None:
    """Read a chunked body to its end, and keep none of it."""
    last = b""
    while not last.endswith(b"\r\n0\r\n\r\n"):
        last = (last + client.sock.recv(_MIB))[-16:]


@dataclass
class HalfClosed:
    """An event stream that is silent, and whose client has sent FIN."""

    began: float
    client: RawClient
    instance: Instance
    ends: list[float]
    """When the instance saw the end of its connection."""


@pytest.fixture(scope="module", autouse=True)
def half_closed(proxy: RunningProxy, api: VisaApiServer, instance_port: int) -> Iterator[HalfClosed]:
    """Begin to wait while the other tests of this module run."""
    number, token, ends = 243_000, "token-of-half-closed", list[float]()

    def script(connection: Connection) -> None:
        connection.sock.settimeout(2 * _LINGER_S)
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        connection.rest()
        ends.append(time.monotonic())

    with Instance(instance_port) as instance, RawClient(proxy.port) as client:
        api.user(token, "half-closed")
        api.instance(number, owner="half-closed", ip=instance.host)
        instance.play(script)
        client.send(get(f"/jupyter/{number}/events", token=token))
        client.through(b"data: 1\n\n")
        client.finish()
        yield HalfClosed(time.monotonic(), client, instance, ends)


def test_243_an_event_stream_whose_client_has_sent_fin(half_closed: HalfClosed) -> None:
    """It goes on, for events may come; when none has for half a minute, both connections are ended."""
    half_closed.client.sock.settimeout(2 * _LINGER_S)
    while half_closed.client.more():
        continue
    half_closed.instance.wait(lambda: half_closed.ends)
    # The tick looks once a second; the rest is for a slow machine.
    assert _LINGER_S - 1 < half_closed.ends[0] - half_closed.began < _LINGER_S + 10
