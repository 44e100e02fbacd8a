"""Connections to an instance: made, kept, tried again, given up (cases 188 to 197)."""

import array
import fcntl
import socket
import termios
import threading
import time
from collections.abc import Iterator

import pytest

from support.client import ConnectionEnded, upgrade
from support.instance import Connection, Script, ok
from support.proxy import RunningProxy, running_proxy
from support.usage import Start, resident
from support.visa_api import VisaApiServer
from wire.conftest import Wire, production

_MIB = 2**20


@pytest.fixture(scope="module")
def proxy(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int
) -> Iterator[RunningProxy]:
    """Run a proxy with little patience, that may go to addresses which no kernel has a route to."""
    settings = {
        "CONNECT_TIMEOUT_S": "1",
        "RESPONSE_TIMEOUT_S": "2",
        "INSTANCE_NETWORKS": "127.0.0.0/8,224.0.0.0/4,255.255.255.255/32",
    }
    directory = tmp_path_factory.mktemp("impatient")
    with running_proxy(directory, api_url=api.url, routes=production(instance_port), **settings) as running:
        yield running


def move(wire: Wire, address: str | None, *, state: str = "ACTIVE") -> None:
    """Let the API give another address for the instance, from its next answer on."""
    wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=address, state=state)


def in_order(*answers: bytes) -> Script:
    """Answer the requests of all connections with these, in order; then wait for the end."""
    left = list(answers)

    def script(connection: Connection) -> None:
        while left:
            connection.request()
            connection.send(left.pop(0))
        connection.rest()

    return script


class TestUnreachable:
    """There is no connection, or none that answers."""

    @pytest.mark.parametrize("address", ["255.255.255.255", "224.0.0.1"])
    def test_188_an_address_without_a_route(self, wire: Wire, address: str) -> None:
        """The kernel says so at once: 502."""
        move(wire, address)
        self._is_generic(wire, 502, b"instance_unreachable", address)

    @pytest.mark.parametrize("address", ["localhost", "instance.example", "127.77.0.1.example", "127.0.1"])
    def test_188_a_name_is_no_address(self, wire: Wire, address: str) -> None:
        """Nobody is asked what it might mean: 502."""
        move(wire, address)
        self._is_generic(wire, 502, b"instance_address", address)
        assert 0 == wire.instance.connections

    def test_188_refused(self, wire: Wire) -> None:
        """Nobody listens: 502, and the API is asked for the address anew next time."""
        wire.instance.refuse()
        self._is_generic(wire, 502, b"instance_unreachable", wire.instance.host)
        asked = len(wire.api.asked("instance"))
        wire.ask(wire.get())
        assert asked + 1 == len(wire.api.asked("instance"))

    @pytest.mark.parametrize("how", ["closes", "resets", "reads-and-closes", "reads-and-resets"])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_188_accepted_and_closed(self, wire: Wire, method: str, how: str) -> None:
        """A new connection that ends without an answer is an answer: 502, and no second attempt."""

        def script(connection: Connection) -> None:
            if how.startswith("reads"):
                connection.request()
            if how.endswith("resets"):
                connection.reset()

        wire.instance.play(script)
        response = wire.ask(wire.get("/x", "Content-Length: 0", method=method))
        assert (502, True) == (response.status, b"instance_unreachable" in response.body)
        assert wire.instance.host.encode() not in response.head + response.body
        assert 1 == wire.instance.connections

    def test_188_refused_while_it_starts(self, wire: Wire) -> None:
        """The state explains it: 503; so it does without an address."""
        wire.instance.refuse()
        for address in (wire.instance.host, None):
            move(wire, address, state="STARTING")
            assert 503 == wire.ask(wire.get()).status

    def test_188_the_state_is_a_hint(self, wire: Wire) -> None:
        """An instance in no up state that answers is served (contract section 2)."""
        move(wire, wire.instance.host, state="UNKNOWN")
        assert 200 == wire.ask(wire.get()).status

    def test_189_a_black_hole(self, wire: Wire) -> None:
        """Where nothing answers, not even the kernel, it is 504 within the connect timeout."""
        address = "127.78.0.1"
        with socket.create_server((address, wire.instance.port), backlog=0) as listener:
            waiting = _fill(listener)
            move(wire, address)
            began = time.monotonic()
            self._is_generic(wire, 504, b"instance_timeout", address)
            # The setting is one second; the rest is for a slow machine. TCP alone would take minutes.
            assert 1 <= time.monotonic() - began < 10
            for sock in waiting:
                sock.close()

    def _is_generic(self, wire: Wire, status: int, error: bytes, address: str) -> None:
        response = wire.ask(wire.get())
        assert (status, True) == (response.status, b'"%b"' % error in response.body)
        assert address.encode() not in response.head + response.body


def _fill(listener: socket.socket) -> list[socket.socket]:
    """Connect until the queue of a listener is full and the kernel drops what still comes."""
    waiting = []
    while True:
        sock = socket.socket()
        waiting.append(sock)
        sock.settimeout(0.3)
        try:
            sock.connect(listener.getsockname())
        except TimeoutError:
            return waiting


class TestSilence:
    """An instance that says nothing."""

    def test_190_no_head(self, wire: Wire) -> None:
        """504 at the deadline of a head, and the connection is reset."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.rest()
            connection.instance.received.append(b"reset" if connection.was_reset else b"end")

        wire.instance.play(script)
        response = wire.ask(wire.get())
        assert (504, True) == (response.status, b"instance_timeout" in response.body)
        wire.instance.wait(lambda: wire.instance.received)
        assert [b"reset"] == wire.instance.received

    def test_190_a_head_and_then_nothing(self, wire: Wire) -> None:
        """An event stream may be silent for longer than a head may take."""
        go_on = threading.Event()

        def script(connection: Connection) -> None:
            if connection.request().target.endswith(b"/silent"):
                connection.rest()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            assert go_on.wait(20)
            connection.send(b"data: 2\n\n")

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get("/events"))
            client.through(b"data: 1\n\n")
            # A head that was asked for later is too late first.
            assert 504 == wire.ask(wire.get("/silent")).status
            go_on.set()
            client.through(b"data: 2\n\n")
            client.through(b"0\r\n\r\n")

    def test_190_a_client_waits_no_longer_than_it_lives(self, wire: Wire) -> None:
        """When it goes, the instance's connection is reset, and nobody waits for the head."""
        gone = threading.Event()

        def script(connection: Connection) -> None:
            connection.request()
            gone.set()
            connection.rest()
            connection.instance.received.append(b"reset" if connection.was_reset else b"end")

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get())
            assert gone.wait(20)
            client.reset()
        wire.instance.wait(lambda: wire.instance.received)
        assert [b"reset"] == wire.instance.received


class TestRetry:
    """A kept connection that turns out dead (RFC 9110 9.2.2)."""

    @pytest.mark.parametrize("how", ["closes", "resets"])
    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    def test_191_what_may_be_repeated_is_tried_again(self, wire: Wire, method: str, how: str) -> None:
        """Once, on a new connection, and the client sees nothing of it."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(ok())
            connection.request()  # dies here, on the first connection
            if connection.instance.connections == 1:
                connection.reset() if how == "resets" else connection.finish()
            else:
                connection.rest()

        wire.instance.play(script)
        with wire.client() as client:
            assert 200 == client.ask(wire.get("/1")).status
            client.send(wire.get("/2", method=method))
            assert 200 == client.response(to_head=method == "HEAD").status
        assert [b"/1", b"/2", b"/2"] == [request.target[-2:] for request in wire.instance.requests]

    def test_191_only_once(self, wire: Wire) -> None:
        """The new connection's fate is the answer."""

        def script(connection: Connection) -> None:
            if connection.instance.connections == 1:
                connection.request()
                connection.send(ok())
            connection.request()

        wire.instance.play(script)
        with wire.client() as client:
            assert [200, 502] == [client.ask(wire.get(rest)).status for rest in ("/1", "/2")]
        assert [b"/1", b"/2", b"/2"] == [request.target[-2:] for request in wire.instance.requests]

    @pytest.mark.parametrize(
        ("method", "fields", "body"),
        [
            ("POST", ["Content-Length: 1"], b"x"),
            ("POST", ["Content-Length: 0"], b""),
            ("PUT", ["Content-Length: 1"], b"x"),
            ("DELETE", [], b""),
            ("PATCH", ["Transfer-Encoding: chunked"], b"1\r\nx\r\n0\r\n\r\n"),
            ("GET", ["Content-Length: 1"], b"x"),
            ("FOO", [], b""),
        ],
        ids=["POST", "POST-empty", "PUT", "DELETE", "PATCH-chunked", "GET-with-a-body", "FOO"],
    )
    def test_191_what_may_not_be_repeated_is_not(
        self, wire: Wire, method: str, fields: list[str], body: bytes
    ) -> None:
        """It may have been done: 502, and the instance has seen it once."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(ok())
            connection.request()
            connection.reset()

        wire.instance.play(script)
        with wire.client() as client:
            assert 200 == client.ask(wire.get("/1")).status
            assert 502 == client.ask(wire.get("/2", *fields, method=method) + body).status
        assert [b"/1", b"/2"] == [request.target[-2:] for request in wire.instance.requests]

    def test_191_a_kept_connection_must_be_fresh_for_what_may_not_be_repeated(self, wire: Wire) -> None:
        """Used within the last second it is taken, later a new one is opened; others take it all the same."""
        with wire.client() as client:
            post = wire.get("/x", "Content-Length: 0", method="POST")
            assert [200, 200] == [client.ask(data).status for data in (wire.get(), post)]
            used = time.monotonic()
            assert 1 == wire.instance.connections
            wire.instance.wait(lambda: time.monotonic() > used + 1.2)
            assert 200 == client.ask(post).status
            assert 2 == wire.instance.connections
            used = time.monotonic()
            wire.instance.wait(lambda: time.monotonic() > used + 1.2)
            assert 200 == client.ask(wire.get()).status
            assert 2 == wire.instance.connections

    def test_191_a_connection_that_was_closed_in_time_is_not_used(self, wire: Wire) -> None:
        """Both sides know of its end before the next request: it goes over a new one, whatever it is."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(ok())
            connection.finish()
            connection.rest()
            connection.instance.received.append(b"over")

        wire.instance.play(script)
        for method in ("GET", "POST", "PUT", "GET"):
            assert 200 == wire.ask(wire.get("/x", "Content-Length: 0", method=method)).status
            wire.instance.wait(lambda: len(wire.instance.received) == len(wire.instance.requests))
        assert 4 == wire.instance.connections == len(wire.instance.requests)

    @pytest.mark.parametrize(
        ("came", "statuses"),
        [
            (b"H", [502]),
            (b"HTTP/1.1 200 OK\r\n", [502]),
            (b"HTTP/1.1 100 Continue\r\n\r\n", [502]),
            (ok(b"hello")[:-1], []),
        ],
        ids=["one-byte", "half-a-head", "an-interim-response", "half-a-body"],
    )
    @pytest.mark.parametrize("how", ["closes", "resets"])
    def test_192_never_after_the_first_byte_of_an_answer(
        self, wire: Wire, came: bytes, statuses: list[int], how: str
    ) -> None:
        """A kept connection that dies later was alive: the request is not sent again."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(ok())
            connection.request()
            connection.send(came)
            if how == "resets":
                # A reset may overtake bytes that are on their way, but not those that were acknowledged.
                wire.instance.wait(lambda: _unsent(connection.sock) == 0)
                connection.reset()

        wire.instance.play(script)
        with wire.client() as client:
            assert 200 == client.ask(wire.get("/1")).status
            client.send(wire.get("/2"))
            if statuses:
                assert statuses == [client.response().status for _ in statuses]
            else:
                with pytest.raises(ConnectionEnded):
                    client.response()
        assert [b"/1", b"/2"] == [request.target[-2:] for request in wire.instance.requests]


def _unsent(sock: socket.socket) -> int:
    """Count the bytes that the other end's kernel has not acknowledged (SIOCOUTQ)."""
    buffer = array.array("i", [0])
    fcntl.ioctl(sock, termios.TIOCOUTQ, buffer)
    return buffer[0]


class TestReuse:
    """Which connections are kept for another request."""

    def test_194_ten_requests_use_one_connection(self, wire: Wire) -> None:
        """Of any clients, one after the other."""
        assert [200] * 10 == [wire.ask(wire.get()).status for _ in range(10)]
        assert 1 == wire.instance.connections

    @pytest.mark.parametrize(
        ("request_", "answer", "status"),
        [
            ("upgrade", ok(b"no"), 200),
            ("upgrade", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404),
            ("upgrade", b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", 426),
            ("upgrade", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n", 502),
            ("upload", b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n", 413),
            ("get", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n", 502),
            ("get", ok(b"hello")[:-1], None),
            ("get", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX", None),
        ],
        ids=["200", "404", "426", "101-without-accept", "413", "101-surprise", "short", "bad-chunk"],
    )
    def test_194_not_after_what_went_wrong(
        self, wire: Wire, request_: str, answer: bytes, status: int | None
    ) -> None:
        """Refused upgrades, early answers, bodies cut short, surprises: the next request gets a new one."""
        data = {
            "upgrade": upgrade(wire.path("/ws"), token=wire.token),
            "upload": wire.get("/x", "Content-Length: 9", method="POST") + b"begin",
            "get": wire.get(),
        }[request_]

        def script(connection: Connection) -> None:
            if connection.instance.connections > 1:
                in_order(ok(b"mine"))(connection)
                return
            connection.request_head()
            connection.send(answer)
            if status is None and answer.startswith(b"HTTP/1.1 200 OK\r\nContent"):
                connection.finish()
            connection.rest()
            connection.instance.received.append(b"ended")

        wire.instance.play(script)
        with wire.client() as client:
            client.send(data)
            if status is None:
                with pytest.raises(ConnectionEnded):
                    client.response()
            else:
                assert status == client.response().status
            wire.instance.wait(lambda: wire.instance.received)
        assert b"mine" == wire.ask(wire.get()).body
        assert 2 == wire.instance.connections

    @pytest.mark.parametrize(
        "head",
        [
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n",
            b"HTTP/1.0 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1, max=1\r\n",
            b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=0\r\n",
        ],
        ids=["close", "among-others", "HTTP-1.0", "timeout=1", "max=0"],
    )
    def test_195_an_instance_that_wants_no_more(self, wire: Wire, head: bytes) -> None:
        """Its connection is not used again, and the client hears nothing of it."""
        wire.instance.play(in_order(head + b"Content-Length: 1\r\n\r\n1", ok(b"2")))
        with wire.client() as client:
            assert [b"1", b"2"] == [client.ask(wire.get()).body for _ in range(2)]
        assert 2 == wire.instance.connections

    @pytest.mark.parametrize(
        "head",
        [
            b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
        ],
        ids=["HTTP-1.0", "timeout=5"],
    )
    def test_195_an_instance_that_wants_more(self, wire: Wire, head: bytes) -> None:
        """Its connection is used again."""
        wire.instance.play(in_order(head + b"Content-Length: 1\r\n\r\n1", ok(b"2")))
        with wire.client() as client:
            assert [b"1", b"2"] == [client.ask(wire.get()).body for _ in range(2)]
        assert 1 == wire.instance.connections

    def test_195_an_idle_connection_is_given_up_before_the_instance_does(self, wire: Wire) -> None:
        """With two seconds promised, it is closed by this side after one."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(ok(b"", "Keep-Alive: timeout=2"))
            connection.rest()
            connection.instance.received.append(b"ended")

        wire.instance.play(script)
        assert 200 == wire.ask(wire.get()).status
        wire.instance.wait(lambda: wire.instance.received)


def test_197_downloads_that_are_broken_off(wire: Wire) -> None:
    """A thousand of them, as by a player that seeks, leave neither descriptors nor memory behind."""

    def script(connection: Connection) -> None:
        connection.request()
        connection.send(f"HTTP/1.1 206 Partial Content\r\nContent-Length: {64 * _MIB}\r\n\r\n".encode())
        block = bytes(_MIB // 4)
        while True:
            connection.send(block)

    wire.instance.play(script)
    pid = wire.proxy.worker_pid
    start = Start(wire.proxy.states)
    _break_off(wire, 200)
    warm = resident(pid)
    _break_off(wire, 1000)
    start.wait_until_back()  # but for pipes and connections that are kept, which it knows of
    assert resident(pid) - warm < 8 * _MIB


def _break_off(wire: Wire, count: int) -> None:
    for number in range(count):
        with wire.client() as client:
            client.send(wire.get("/video", f"Range: bytes={number}-"))
            client.through(b"\r\n\r\n")
            client.reset() if number % 2 else None
