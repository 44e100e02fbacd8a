"""WebSocket handshakes and tunnels through the real proxy."""

import threading

import pytest

from support.client import RawClient, get, upgrade
from support.instance import Connection, ok, switching
from wire.conftest import Wire

CHANNELS = "/api/kernels/0b3f4f3c-dd4e-4b1b-9e2c-55c2fbbd6b8b/channels"


def _echo(connection: Connection) -> None:
    """Answer plain requests, then echo what comes through the WebSocket."""
    while (request := connection.request_head()).one("upgrade") is None:
        connection.send(ok())
    connection.send(switching(request, "Sec-WebSocket-Protocol: v1"))
    while connection.more():
        connection.send(connection.buffer)
        connection.buffer = b""


class TestHandshake:
    """From the request to the 101, or to an answer that says why not."""

    def test_bytes_that_come_early_both_ways(self, wire: Wire) -> None:
        """A frame behind the request waits for the 101; one behind the 101 is delivered."""
        before = threading.Event()

        def script(connection: Connection) -> None:
            request = connection.request_head()
            connection.sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.more()  # nothing of the tunnel may come before the 101 (case 149)
            connection.sock.settimeout(20)
            before.set()
            connection.send(switching(request) + b"first from instance")
            connection.instance.received.append(connection.exactly(17))
            connection.rest()

        wire.instance.play(script)
        with wire.client() as client:
            client.send(upgrade(wire.path("/ws"), token=wire.token) + b"first from client")
            assert before.wait(20)
            assert client.response().status == 101
            assert b"first from instance" == client.exactly(19)
            wire.instance.wait(lambda: wire.instance.received)
        assert [b"first from client"] == wire.instance.received

    def test_the_handshake_passes_end_to_end(self, wire: Wire) -> None:
        """Sub-protocol, key and accept value are the two ends' own; Origin and Host stay."""
        wire.instance.play(_echo)
        with wire.client() as client:
            request = upgrade(
                wire.path(), "Origin: https://visa.test", "Sec-WebSocket-Protocol: v1", token=wire.token
            )
            response = client.ask(request)
            assert (101, b"v1") == (response.status, response.one("sec-websocket-protocol"))
            assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == response.one("sec-websocket-accept")
        seen = wire.instance.requests[0]
        assert (b"https://visa.test", b"visa.test") == (seen.one("origin"), seen.one("host"))
        assert (b"Upgrade", b"websocket") == (seen.one("connection"), seen.one("upgrade"))

    def test_the_route_of_a_websocket(self, wire: Wire) -> None:
        """A route without `ws` serves it as plain HTTP: the upgrade is ignored."""
        assert wire.ask(upgrade(f"/visafs/{wire.number}/x", token=wire.token)).status == 200
        assert wire.instance.requests[0].one("upgrade") is None

    @pytest.mark.parametrize("protocol", ["h2c", "foo"])
    def test_another_protocol_is_ignored(self, wire: Wire, protocol: str) -> None:
        """An upgrade that is no WebSocket is plain HTTP, and its body arrives whole (RFC 9110 7.8)."""
        fields = ("Connection: Upgrade", f"Upgrade: {protocol}", "Content-Length: 5")
        assert wire.ask(wire.get("/x", *fields, method="POST") + b"hello").status == 200
        assert (None, b"hello") == (wire.instance.requests[0].one("upgrade"), wire.instance.requests[0].body)

    @pytest.mark.parametrize(
        ("field", "status"),
        [
            ("Sec-WebSocket-Version: 8", 426),
            ("Sec-WebSocket-Key: short", 400),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400),
            ("Content-Length: 5", 400),
        ],
    )
    def test_a_bad_handshake(self, wire: Wire, field: str, status: int) -> None:
        """Another version, a bad or second key, a body: refused before anybody is asked."""
        assert status == wire.ask(upgrade(wire.path(), field, token=wire.token)).status
        assert [] == wire.instance.requests

    def test_a_refusal_of_the_instance_is_relayed(self, wire: Wire) -> None:
        """Its status and body come through, and the connection is closed: frames may be on their way."""
        wire.instance.answer(
            b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
        )
        with wire.client() as client:
            response = client.ask(upgrade(wire.path(CHANNELS) + "?session_id=s", token=wire.token))
            assert (403, b"no", b"close") == (response.status, response.body, response.one("connection"))
            assert client.closed()
        assert [] == [
            request for request in wire.api.asked("open") if request.path.find(f"/{wire.number}/") > 0
        ]

    def test_an_instance_that_closes_instead(self, wire: Wire) -> None:
        """A real HTTP answer, also when the instance closes without one."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.reset()

        wire.instance.play(script)
        assert wire.ask(upgrade(wire.path(), token=wire.token)).status == 502

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n",
            (
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
            ),
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ],
    )
    def test_a_wrong_101(self, wire: Wire, answer: bytes) -> None:
        """A 101 that is not the answer to this very request is a 502."""
        wire.instance.answer(answer)
        assert wire.ask(upgrade(wire.path(), token=wire.token)).status == 502

    @pytest.mark.parametrize(
        ("origin", "status"),
        [
            ("https://visa.test", 101),
            ("https://VISA.test:443", 101),
            ("http://visa.test", 101),
            ("https://evil.test", 403),
            ("null", 403),
            ("https://visa.test.evil.com", 403),
            ("https://evilvisa.test", 403),
            ("https://visa.test@evil.test", 403),
        ],
    )
    def test_pages_of_other_sites(self, wire: Wire, origin: str, status: int) -> None:
        """With the cookie, only this site's own pages may open a WebSocket (RFC 6455 10.2)."""
        wire.instance.play(_echo)
        asked = len(wire.api.requests)
        assert status == wire.ask(upgrade(wire.path(), f"Origin: {origin}", token=wire.token)).status
        if status == 403:
            assert (asked, []) == (len(wire.api.requests), wire.instance.requests)


class TestTunnel:
    """After the 101: bytes."""

    def test_large_messages_both_ways(self, wire: Wire) -> None:
        """Ten megabytes of echo come back as they were."""
        wire.instance.play(_echo)
        content = bytes(range(256)) * 40_960
        with wire.client() as client:
            assert client.ask(upgrade(wire.path(), token=wire.token)).status == 101
            sender = threading.Thread(target=client.send, args=(content,))
            sender.start()
            assert content == client.exactly(len(content))
            sender.join(20)

    @pytest.mark.parametrize("who", ["client", "instance"])
    def test_half_close(self, wire: Wire, who: str) -> None:
        """After one side's FIN the other may still send; then both are closed (case 164)."""
        content = bytes(2**20)

        def script(connection: Connection) -> None:
            connection.accept_websocket()
            if who == "instance":
                connection.finish()
                connection.instance.received.append(connection.rest())
            else:
                connection.rest()
                connection.send(content)

        wire.instance.play(script)
        with wire.client() as client:
            assert client.ask(upgrade(wire.path(), token=wire.token)).status == 101
            if who == "client":
                client.finish()
                assert content == client.rest()
            else:
                assert client.closed()
                client.send(content)
                client.finish()
                wire.instance.wait(lambda: wire.instance.received)
                assert [content] == wire.instance.received

    def test_a_reset_is_passed_on(self, wire: Wire) -> None:
        """A client's reset ends the instance's connection as one."""
        ended = threading.Event()

        def script(connection: Connection) -> None:
            connection.accept_websocket()
            with pytest.raises(ConnectionResetError):
                connection.sock.recv(1)
            ended.set()

        wire.instance.play(script)
        client = wire.client()
        assert client.ask(upgrade(wire.path(), token=wire.token)).status == 101
        client.reset()
        assert ended.wait(20)


class TestNotebookSessions:
    """What VISA is told (contract sections 2 and 4)."""

    def _sessions(self, wire: Wire) -> list[tuple[str, str, bool]]:
        rows = [row for row in wire.api.notebooks if row.key[0] == wire.number]
        return [(row.key[1], row.key[2], row.active) for row in rows]

    def test_a_kernel_channel_is_a_session(self, wire: Wire) -> None:
        """Open with the user's token when the 101 has come, close without one when the socket has gone."""
        wire.instance.play(_echo)
        with wire.client() as client:
            target = wire.path(CHANNELS) + "?session_id=A&x=1"
            assert client.ask(upgrade(target, token=wire.token)).status == 101
            wire.api.wait(lambda: self._sessions(wire))
            assert [(CHANNELS.split("/")[3], "A", True)] == self._sessions(wire)
        wire.api.wait(lambda: not self._sessions(wire)[0][2])
        ours = [
            r for r in wire.api.requests if r.endpoint in ("open", "close") and f"/{wire.number}/" in r.path
        ]
        assert [("open", wire.token), ("close", None)] == [(r.endpoint, r.token) for r in ours]

    def test_two_connections_of_one_session(self, wire: Wire) -> None:
        """A reconnected socket is the same session: close is told when the last has ended."""
        wire.instance.play(_echo)
        target = wire.path(CHANNELS) + "?session_id=B"
        with wire.client() as second:
            with wire.client() as first:
                for client in (first, second):
                    assert client.ask(upgrade(target, token=wire.token)).status == 101
                wire.api.wait(lambda: self._sessions(wire))
            name = wire.path(CHANNELS)
            wire.proxy.wait(lambda: [r for r in wire.proxy.records("tunnel") if r["path"] == name])
            assert [True] == [active for _, _, active in self._sessions(wire)]
        wire.api.wait(lambda: [False] == [active for _, _, active in self._sessions(wire)])

    @pytest.mark.parametrize(
        "rest",
        [
            "/terminals/websocket/1",
            "/api/kernels/x/other?session_id=A",
            "/lsp/ws/python",
            "/api/collaboration/room/1",
        ],
    )
    def test_other_sockets_are_none(self, wire: Wire, rest: str) -> None:
        """Terminals, language servers and the like are tunnels, and no notebook sessions."""
        wire.instance.play(_echo)
        with wire.client() as client:
            assert client.ask(upgrade(wire.path(rest), token=wire.token)).status == 101
        with wire.client() as client:  # a session that comes later is told; so nothing waits any more
            target = wire.path(CHANNELS) + "?session_id=C"
            assert client.ask(upgrade(target, token=wire.token)).status == 101
            wire.api.wait(lambda: self._sessions(wire))
        assert ["C"] == [session for _, session, _ in self._sessions(wire)]

    def test_the_websocket_waits_for_no_report(self, wire: Wire) -> None:
        """While the API is away the 101 comes all the same; the report follows when it is back."""
        wire.instance.play(_echo)
        assert wire.ask(wire.get("/so-that-there-is-a-grant")).status == 200
        wire.api.down()
        try:
            client = wire.client()
            target = wire.path(CHANNELS) + "?session_id=D"
            assert client.ask(upgrade(target, token=wire.token)).status == 101
        finally:
            wire.api.up()
        with client:
            wire.api.wait(lambda: self._sessions(wire))


def test_a_client_that_resets_anywhere(wire: Wire) -> None:
    """A reset at any byte of a request or an upgrade leaves the proxy serving."""
    wire.instance.play(_echo)
    for data in (wire.get("/x", "Content-Length: 9", method="POST"), upgrade(wire.path(), token=wire.token)):
        for cut in range(1, len(data) + 1, 11):
            client = RawClient(wire.proxy.port)
            client.send(data[:cut])
            client.reset()
    assert wire.ask(get("/nope")).status == 404
