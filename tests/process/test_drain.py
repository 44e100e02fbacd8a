"""SIGTERM while people work: whoever is served is served to the end, and browsers are told to come back."""

import os
import selectors
import signal
import threading
import time
from typing import Final

import pytest

from process.conftest import SERVICE_RESTART, Place, channel, is_told_to_come_back, request
from process.test_lifecycle import DOCKERS_PATIENCE_S
from support.client import RawClient, get
from support.instance import Connection, ok, switching
from support.proxy import RunningProxy
from support.sessions import rows

TUNNELS: Final = int(os.environ.get("DRAIN_TUNNELS", "40"))
"""2 000 were measured so: they take half a minute to be opened."""
REQUESTS: Final = 50
BODY: Final = bytes(100_000)


@pytest.fixture
def draining() -> threading.Event:
    """Make what tests set, and instances wait for: the worker has begun to drain."""
    return threading.Event()


def drain(place: Place, proxy: RunningProxy, draining: threading.Event) -> None:
    """Send SIGTERM; return when the worker drains, of which an idle connection is the first to know."""
    idle = place.client(proxy)
    idle.send(get("/nope"))
    assert idle.response().status == 404
    proxy.signal(signal.SIGTERM)
    assert idle.closed()
    draining.set()


def said_to_all(clients: list[RawClient]) -> list[bytes]:
    """Read all connections to their end, and close each when the close frame has come, as browsers do."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
        while selector.get_map():
            ready = selector.select(60)
            assert ready, "some are never closed"
            for key, _ in ready:
                client = key.data
                if not client.more():
                    selector.unregister(client.sock)
                elif client.buffer.endswith(SERVICE_RESTART):
                    client.finish()
    return [client.buffer for client in clients]


class TestTunnels:
    """A close frame of code 1012 (service restart), between two of the instance's frames."""

    def test_227_every_tunnel_is_told_and_every_request_answered(
        self, place: Place, draining: threading.Event
    ) -> None:
        """In time, with status 0; all sessions are in the journal, with the times at which they ended."""

        def late(connection: Connection) -> None:
            asked = connection.request_head()
            if asked.one("upgrade") is not None:
                connection.send(switching(asked))
                connection.sock.settimeout(600)  # as long as it takes to open the others
                connection.rest()
                return
            assert draining.wait(60)
            connection.send(ok(BODY))

        place.instance.play(late)
        proxy = place.start(DRAIN_S="30")
        tunnels = []
        for number in range(TUNNELS):
            tunnels.append(place.client(proxy))
            assert tunnels[-1].ask(channel(f"S{number}")).status == 101
        requests = [place.client(proxy) for _ in range(REQUESTS)]
        for client in requests:
            client.send(request())
        place.instance.wait(lambda: len(place.instance.requests) == TUNNELS + REQUESTS)
        began = time.time()
        drain(place, proxy, draining)
        for client in requests:
            response = client.response()
            assert (200, BODY, b"close") == (response.status, response.body, response.one("connection"))
            assert client.closed()
        assert {SERVICE_RESTART} == {*said_to_all(tunnels)}
        assert 0 == proxy.exit_status()
        over = time.time()
        assert over - began < 30
        ends = rows(
            place.directory / "data" / "journal.sqlite3", "SELECT reason, opened_at, closed_at FROM sessions"
        )
        assert [("service restart", True)] * TUNNELS == [
            (reason, began <= closed <= over) for reason, _, closed in ends
        ]
        assert {f"S{number}": False for number in range(TUNNELS)} == place.sessions()

    def test_227_a_frame_that_is_under_way_comes_first(self, place: Place, draining: threading.Event) -> None:
        """Whole, although the instance takes its time; nothing of it follows the close frame."""
        frame = b"\x82\x7e\x10\x00" + bytes(4096)

        def script(connection: Connection) -> None:
            connection.accept_websocket()
            connection.send(frame[:100])
            assert draining.wait(60)
            connection.send(frame[100:] + frame)
            connection.rest()

        proxy = place.start()
        place.instance.play(script)
        client = place.client(proxy)
        assert client.ask(channel("S")).status == 101
        assert frame[:100] == client.exactly(100)
        drain(place, proxy, draining)
        assert frame[100:] == client.exactly(len(frame) - 100)
        assert is_told_to_come_back(client)
        assert 0 == proxy.exit_status()

    def test_227_nobody_who_does_not_answer_delays_the_end(self, place: Place) -> None:
        """Neither a browser that says nothing, nor an instance in the middle of a frame; status 0 in time."""

        def script(connection: Connection) -> None:
            connection.accept_websocket()
            connection.send(b"\x82\x7e")
            connection.rest()

        proxy = place.start(DRAIN_S="8")
        silent = place.client(proxy)
        assert silent.ask(channel("S")).status == 101
        place.instance.play(script)
        cut = place.client(proxy)
        assert cut.ask(channel("T")).status == 101
        assert b"\x82\x7e" == cut.exactly(2)
        began = time.monotonic()
        assert 0 == proxy.stop()
        assert time.monotonic() - began < DOCKERS_PATIENCE_S
        assert SERVICE_RESTART == silent.rest()
        assert cut.closed()
        assert {"S": False, "T": False} == place.sessions()

    def test_227_who_may_come_back_is_left_to_the_next_process(self, place: Place) -> None:
        """The session stays open at VISA; the next process closes it, with the time at which it ended."""
        proxy = place.start(SESSION_LINGER_S="1")
        client = place.client(proxy)
        assert client.ask(channel("S")).status == 101
        place.api.wait(lambda: place.sessions() == {"S": True})
        began = time.time()
        proxy.signal(signal.SIGTERM)
        assert is_told_to_come_back(client)
        assert 0 == proxy.exit_status()
        over = time.time()
        assert {"S": True} == place.sessions()
        again = proxy.start_again()
        try:
            place.api.wait(lambda: place.sessions() == {"S": False})
        finally:
            again.kill()
        query = "SELECT reason, closed_at FROM sessions"
        ((reason, closed),) = rows(place.directory / "data" / "journal.sqlite3", query)
        assert "service restart" == reason
        assert began <= closed <= over

    def test_227_who_comes_back_has_the_same_session(self, place: Place) -> None:
        """Nothing is told: neither an end nor a begin."""
        proxy = place.start(SESSION_LINGER_S="5")
        client = place.client(proxy)
        assert client.ask(channel("S")).status == 101
        place.api.wait(lambda: place.sessions() == {"S": True})
        proxy.signal(signal.SIGTERM)
        assert is_told_to_come_back(client)
        assert 0 == proxy.exit_status()
        again = proxy.start_again()
        try:
            assert place.client(again).ask(channel("S")).status == 101
            again.wait(lambda: rows(place.directory / "data" / "journal.sqlite3", _LEFT) == [(1,)])
            assert ["open"] == [request.endpoint for request in place.api.requests if request.body]
        finally:
            again.kill()


_LEFT: Final = "SELECT count(*) FROM connections WHERE ended_at IS NOT NULL"
