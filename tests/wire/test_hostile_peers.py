"""What no case says, and somebody on either side may try."""

import os
import signal
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.client import RawClient, Reader, get, upgrade
from support.instance import Connection, switching
from support.proxy import running_proxy
from support.streams import MIB, fill
from support.usage import resident
from support.visa_api import Answer, Hold
from wire.conftest import Wire, production


class TestAfterAnError:
    """A connection whose request has failed, and that was not closed, is as good as new."""

    @pytest.mark.parametrize("why", ["not-yours", "unreachable"])
    def test_a_request_with_a_body_that_came_before_the_answer(self, wire: Wire, why: str) -> None:
        """The body had to wait for an answer or a connection that never came; the next request has not."""
        number = wire.number if why == "unreachable" else 10**9
        failing = get(f"/jupyter/{number}/x", "Content-Length: 5", method="POST", token=wire.token) + b"hello"
        with wire.client() as client:
            if why == "unreachable":
                wire.instance.refuse()
            response = client.ask(failing)
            assert (502 if why == "unreachable" else 404) == response.status
            assert None is response.one("connection")
            if why == "unreachable":
                wire.instance.listen()
            assert 200 == client.ask(wire.get()).status


class TestLastWord:
    """An answer before the end of the request is the last one on its connection."""

    @pytest.mark.parametrize("body", [b"part of it", b"all of it " * 10], ids=["part", "all"])
    def test_62_a_refusal_says_so(self, wire: Wire, body: bytes) -> None:
        """Be the rest of the request in the same packet or not."""
        with wire.client() as client:
            client.send(get(wire.path(), "Content-Length: 100", method="POST") + body + wire.get())
            response = client.response()
            assert (401, b"close") == (response.status, response.one("connection"))
            assert client.closed()
        assert [] == wire.instance.requests

    @pytest.mark.slow
    def test_62_what_comes_behind_it_is_dropped_for_thirty_seconds(self, wire: Wire) -> None:
        """However much it is, so that the client can read the answer; then the connection ends."""
        before, began = resident(wire.proxy.worker_pid), time.monotonic()
        with wire.client() as client:
            client.send(get(wire.path(), "Content-Length: 9" + "9" * 15, method="POST"))
            assert 401 == client.response().status
            sent = _flood(client)
        assert (True, True) == (time.monotonic() - began > 28, sent > 50 * MIB)
        assert resident(wire.proxy.worker_pid) - before < 8 * MIB


def _flood(client: RawClient) -> int:
    """Send until the connection ends; give how much."""
    sent = 0
    try:
        while True:
            sent += client.sock.send(bytes(MIB))
            time.sleep(0.05)  # it would be forty gigabytes otherwise
    except ConnectionError:
        return sent


class Narrow(RawClient):
    """A client for whom a kernel keeps little: its segments and its window are small."""

    def __init__(self, port: int) -> None:
        sock = socket.socket()
        _narrow(sock)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", port))
        Reader.__init__(self, sock)


def _narrow(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 500)


class TestEarlyBytesOfATunnel:
    """More than a reader takes may be there when a tunnel begins: back-pressure holds from the start."""

    @pytest.mark.parametrize(("in_head", "behind"), [(0, 200_000), (64_000, 0), (64_000, 200_000)])
    def test_of_an_instance(self, wire: Wire, in_head: int, behind: int) -> None:
        """A client that does not read stops the instance, which may send what it likes around its 101."""
        stopped = threading.Event()

        def script(connection: Connection) -> None:
            fields = [f"X: {'a' * in_head}"] if in_head else []
            connection.send(switching(connection.request_head(), *fields) + bytes(behind))
            fill(connection.sock)
            stopped.set()
            connection.rest()

        wire.instance.play(script)
        with Narrow(wire.proxy.port) as client:
            client.send(upgrade(wire.path("/ws"), token=wire.token))
            assert stopped.wait(20)

    def test_of_a_client(self, wire: Wire) -> None:
        """An instance that does not read stops the client, which need not wait for the 101."""
        go, over = threading.Event(), threading.Event()

        def script(connection: Connection) -> None:
            request = connection.request_head()
            assert go.wait(20)
            connection.send(switching(request))
            assert over.wait(60)

        wire.instance.play(script)
        assert wire.instance.listener is not None
        _narrow(wire.instance.listener)
        try:
            with wire.client() as client:
                client.send(upgrade(wire.path("/ws"), token=wire.token))
                early = fill(client.sock)
                go.set()
                assert 101 == client.response().status
                assert early + fill(client.sock) < 50 * MIB
        finally:
            over.set()


def test_what_a_front_proxy_passes_on_is_not_kept(wire: Wire) -> None:
    """A browser's own X-Forwarded-For may be long, and another one each time."""
    before = resident(wire.proxy.worker_pid)
    with wire.client() as client:
        for number in range(1200):
            assert 404 == client.ask(get("/nowhere", f"X-Forwarded-For: {number}{'a' * 30_000}")).status
    assert resident(wire.proxy.worker_pid) - before < 20 * MIB


def test_a_trailer_that_imitates_what_the_route_sets(wire: Wire) -> None:
    """It is dropped, however it is spelt: the service's own secret is not the client's to say."""
    body = b"5\r\nhello\r\n0\r\nX-Auth-Token: forged\r\nx_auth.token: forged\r\nX-Sum: 1\r\n\r\n"
    chunked = "Transfer-Encoding: chunked"
    request = get(f"/visafs/{wire.number}/x", chunked, token=wire.token, method="POST") + body
    assert 200 == wire.ask(request).status
    assert [(b"X-Sum", b"1")] == wire.instance.requests[0].trailers


def test_a_client_that_asks_and_leaves(wire: Wire) -> None:
    """Its questions wait for each other, and leave others room for theirs, for all that wait are bounded."""
    answered, hold = len(wire.api.asked("instance")), Hold()
    wire.api.script("instance", *[Answer(hold=hold)] * 4)
    try:
        for number in range(2100):
            with wire.client() as client:
                forged = get(wire.path(), "X-Forwarded-For: 10.1.1.1", token=f"forged-{wire.number}-{number}")
                client.send(forged)
            if number == 3:
                wire.api.wait(lambda: answered + 4 == len(wire.api.asked("instance")))
        assert 200 == wire.ask(wire.get()).status
    finally:
        hold.release()


def test_an_instance_that_cannot_be_told_who_it_is_is_not_connected_to(wire: Wire) -> None:
    """Else each such request leaves a connection behind that nobody uses, for a second or two."""
    wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=wire.instance.host, computeId=None)
    for _ in range(3):
        assert 503 == wire.ask(get(f"/visafs/{wire.number}/x", token=wire.token)).status
    assert 0 == wire.instance.connections


def test_a_client_that_resets_just_when_its_websocket_opens(tmp_path: Path, wire: Wire) -> None:
    """It is counted out once: twice would let its address have more connections than it may."""
    go, sent = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        request = connection.request_head()
        assert go.wait(20)
        connection.send(switching(request))
        sent.set()
        connection.rest()

    wire.instance.play(script)
    routes = production(wire.instance.port)
    limit = {"MAX_CONNECTIONS_PER_ADDRESS": "2"}
    with running_proxy(tmp_path, api_url=wire.api.url, routes=routes, **limit) as proxy, ExitStack() as stack:
        stack.enter_context(RawClient(proxy.port))
        client = stack.enter_context(RawClient(proxy.port))
        client.send(upgrade(wire.path("/ws"), token=wire.token))
        wire.instance.wait(lambda: wire.instance.requests)
        # The proxy finds both at once: first the instance's 101, then the client's reset.
        os.kill(proxy.worker_pid, signal.SIGSTOP)
        go.set()
        assert sent.wait(20)
        client.reset()
        os.kill(proxy.worker_pid, signal.SIGCONT)
        proxy.wait(lambda: proxy.records("tunnel") and _is_admitted(stack, proxy.port))
        assert not _is_admitted(stack, proxy.port)


def _is_admitted(stack: ExitStack, port: int) -> bool:
    """Connect, and find out whether the proxy listens; the connection stays open then."""
    try:
        client = stack.enter_context(RawClient(port))
    except ConnectionError:
        return False  # the reset came before `connect` had returned
    client.send_in_pieces(get("/nowhere"), 1000)
    return client.more()
