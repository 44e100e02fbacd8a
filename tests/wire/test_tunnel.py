"""After the 101: bytes both ways, whoever is slow, finished or gone (scripts of one and both ends)."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from support.client import RawClient, upgrade
from support.instance import Connection, echo, ok, switching
from support.streams import MIB, fill, give, in_background, take
from wire.conftest import Wire


def tunnel(wire: Wire, rest: str = "/ws") -> RawClient:
    """Open a WebSocket."""
    client = wire.client()
    assert client.ask(upgrade(wire.path(rest), token=wire.token)).status == 101
    return client


def ended(wire: Wire, rest: str = "/ws") -> Callable[[], list[object]]:
    """Make the condition that the proxy has recorded the end of a tunnel."""
    return lambda: [r for r in wire.proxy.records("tunnel") if r["path"] == wire.path(rest)]


@pytest.fixture
def ends(wire: Wire) -> Iterator[tuple[RawClient, Connection]]:
    """Open a tunnel whose two ends the test holds itself."""
    opened: list[Connection] = []
    over = threading.Event()

    def script(connection: Connection) -> None:
        connection.accept_websocket()
        opened.append(connection)
        assert over.wait(60)

    wire.instance.play(script)
    with tunnel(wire) as client:
        wire.instance.wait(lambda: opened)
        try:
            yield client, opened[0]
        finally:
            over.set()


def test_162_large_messages_both_ways(wire: Wire) -> None:
    """Ten megabytes of echo come back as they were."""
    wire.instance.play(echo)
    content = bytes(range(256)) * 40_960
    with tunnel(wire) as client:
        sender = threading.Thread(target=client.send, args=(content,))
        sender.start()
        assert content == client.exactly(len(content))
        sender.join(20)


class TestHalfClose:
    """FIN on one side closes that direction, and nothing more."""

    def test_164_the_instance_has_finished(self, wire: Wire, ends: tuple[RawClient, Connection]) -> None:
        """The client may still send a megabyte; then both are closed."""
        client, instance = ends
        instance.finish()
        assert client.closed()
        sender = in_background(give, client, MIB)
        assert (MIB, False) == (take(instance), instance.was_reset)
        sender.join(20)
        wire.proxy.wait(ended(wire))

    def test_164_the_client_has_finished(self, wire: Wire, ends: tuple[RawClient, Connection]) -> None:
        """The instance may still send a megabyte; then both are closed."""
        client, instance = ends
        client.finish()
        assert (0, False) == (take(instance), instance.was_reset)
        sender = in_background(give, instance, MIB)
        assert (MIB, False) == (take(client), client.was_reset)
        sender.join(20)
        wire.proxy.wait(ended(wire))

    @pytest.mark.parametrize("who", ["client", "instance"])
    def test_164_full_buffers_before_the_end(self, ends: tuple[RawClient, Connection], who: str) -> None:
        """What is queued when the FIN comes is delivered before the FIN."""
        client, instance = ends
        giver, taker = (client, instance) if who == "client" else (instance, client)
        sent = fill(giver.sock)
        giver.sock.shutdown(socket.SHUT_WR)
        assert (sent, False) == (take(taker), taker.was_reset)
        taker.sock.shutdown(socket.SHUT_WR)
        assert (0, False) == (take(giver), giver.was_reset)

    @pytest.mark.parametrize("who", ["client", "instance"])
    def test_164_a_reset_after_the_half_close(
        self, wire: Wire, ends: tuple[RawClient, Connection], who: str
    ) -> None:
        """It ends the other side too, at once, although nothing is read from there any more."""
        client, instance = ends
        goer, stayer = (client, instance) if who == "client" else (instance, client)
        goer.sock.shutdown(socket.SHUT_WR)
        assert (0, False) == (take(stayer), stayer.was_reset)
        goer.reset()
        wire.proxy.wait(ended(wire))


class TestReset:
    """A reset is passed on as a reset, also when its side is not being read."""

    @pytest.mark.parametrize("who", ["client", "instance"])
    def test_165_of_an_idle_tunnel(self, wire: Wire, ends: tuple[RawClient, Connection], who: str) -> None:
        """Nobody sends anything, and the other side is reset all the same."""
        client, instance = ends
        goer, stayer = (client, instance) if who == "client" else (instance, client)
        goer.reset()
        assert (0, True) == (take(stayer), stayer.was_reset)
        wire.proxy.wait(ended(wire))

    @pytest.mark.parametrize("who", ["client", "instance"])
    def test_165_171_of_a_side_that_is_not_read(
        self, wire: Wire, ends: tuple[RawClient, Connection], who: str
    ) -> None:
        """One side has filled all buffers to the other, then resets: noticed before anybody reads."""
        client, instance = ends
        goer, stayer = (client, instance) if who == "client" else (instance, client)
        sent = fill(goer.sock)
        goer.reset()
        wire.proxy.wait(ended(wire))
        assert take(stayer) < sent
        assert stayer.was_reset

    @pytest.mark.parametrize("who", ["client", "instance"])
    def test_165_of_the_side_that_does_not_read(
        self, wire: Wire, ends: tuple[RawClient, Connection], who: str
    ) -> None:
        """Who has not taken what the other sent resets: the sender is reset while it is blocked."""
        client, instance = ends
        goer, stayer = (client, instance) if who == "client" else (instance, client)
        fill(stayer.sock)
        goer.reset()
        wire.proxy.wait(ended(wire))
        assert (0, True) == (take(stayer), stayer.was_reset)

    def test_165_the_end_behind_five_megabytes(self, ends: tuple[RawClient, Connection]) -> None:
        """A FIN is no reset: a slow client gets every byte that was sent before it."""
        client, instance = ends
        size = 5 * MIB
        sender = in_background(give, instance, size)
        taken = 0
        while taken < size:
            taken += take(client, 100_000) if size - taken > 100_000 else take(client, size - taken)
        assert client.closed()
        assert not client.was_reset
        sender.join(20)


class TestOthers:
    """One tunnel is not another's concern."""

    def test_167_a_flood_beside_others(self, wire: Wire) -> None:
        """While one tunnel floods, every echo of fifty others and every request is answered."""
        over = threading.Event()
        wire.instance.play(lambda connection: _flood_or_echo(connection, over))
        with ExitStack() as stack:
            flood = Flood(stack.enter_context(tunnel(wire, "/flood")))
            others = [stack.enter_context(tunnel(wire, f"/{n}")) for n in range(50)]
            taker = in_background(flood.take)
            try:
                for number in range(5):
                    before = flood.taken
                    _all_echo(others, b"round %d" % number)
                    assert wire.ask(wire.get()).status == 200
                    flood.wait_for_more(wire, before)
            finally:
                over.set()
                taker.join(20)


class Flood:
    """A tunnel whose instance never stops sending."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.taken = 0

    def take(self) -> None:
        """Read until the end."""
        while got := len(self.client.sock.recv(MIB)):
            self.taken += got

    def wait_for_more(self, wire: Wire, than: int) -> None:
        """Wait until it has gone on."""
        wire.instance.wait(lambda: self.taken > than)


def _all_echo(clients: list[RawClient], words: bytes) -> None:
    for client in clients:
        client.send(words)
    for client in clients:
        assert words == client.exactly(len(words))


def _flood_or_echo(connection: Connection, over: threading.Event) -> None:
    request = connection.request_head()
    if request.one("upgrade") is None:
        connection.send(ok())
        return
    connection.send(switching(request))
    if request.target.endswith(b"/flood"):
        block = bytes(2**16)
        while not over.is_set():
            connection.send(block)
        return
    connection.echo()
