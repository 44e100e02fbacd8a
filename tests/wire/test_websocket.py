"""WebSocket handshakes through the real proxy: from the request to the 101, or to an answer instead."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from support.client import RawClient, get, upgrade
from support.instance import Connection, echo, ok, switching
from support.proxy import RunningProxy, running_proxy
from support.visa_api import VisaApiServer
from wire.conftest import Wire, production

CHANNELS = "/api/kernels/0b3f4f3c-dd4e-4b1b-9e2c-55c2fbbd6b8b/channels"
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What belongs to `KEY` (RFC 6455 1.3)."""

SWITCH = b"Upgrade: websocket\r\nConnection: upgrade\r\n"


def _switch_and_wait(connection: Connection, fields: list[str]) -> None:
    """Send the right 101 with these fields, and wait for the end."""
    connection.send(switching(connection.request(), *fields))
    connection.rest()


def words(value: object) -> str | None:
    """Name a list of fields in a test's id."""
    return "; ".join(value) if isinstance(value, list) else None


def reported(wire: Wire) -> list[str]:
    """Give the sessions that VISA knows of this instance; one more shows that none is on its way."""
    with wire.client() as client:
        target = wire.path(CHANNELS) + "?session_id=last"
        assert client.ask(upgrade(target, token=wire.token)).status == 101
        rows = wire.api.notebooks
        wire.api.wait(lambda: (wire.number, "last") in [(row.key[0], row.key[2]) for row in rows])
    return [row.key[2] for row in rows if row.key[0] == wire.number and row.key[2] != "last"]


@pytest.fixture(scope="module")
def impatient(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int
) -> Iterator[RunningProxy]:
    """Run a proxy that waits a second at most, trusts nobody here, and allows one more origin."""
    with running_proxy(
        tmp_path_factory.mktemp("impatient"),
        api_url=api.url,
        routes=production(instance_port),
        CONNECT_TIMEOUT_S="1",
        RESPONSE_TIMEOUT_S="1",
        TRUSTED_PROXIES="10.0.0.0/8",
        ALLOWED_ORIGINS="https://portal.test",
    ) as running:
        yield running


@pytest.fixture
def strict(wire: Wire, impatient: RunningProxy) -> Wire:
    """Reach the same instance through that proxy."""
    wire.proxy = impatient
    return wire


class TestRefusal:
    """What is refused before the instance is asked gets a real HTTP answer."""

    @pytest.mark.parametrize(
        ("case", "status", "asked"),
        [("no token", 401, 0), ("another's instance", 404, 1), ("no route", 404, 0), ("bad token", 401, 1)],
    )
    def test_143_who_may_not_gets_an_http_answer(
        self, wire: Wire, case: str, status: int, asked: int
    ) -> None:
        """Status, Content-Length, then the end; the API is asked only about a token, the instance never."""
        data = {
            "no token": upgrade(wire.path("/ws")),
            "another's instance": upgrade(wire.path("/ws"), token="token-of-a-stranger"),
            "no route": upgrade("/nope", token=wire.token),
            "bad token": upgrade(wire.path("/ws"), token="forged"),
        }[case]
        wire.api.user("token-of-a-stranger", "stranger")
        with wire.client() as client:
            response = client.ask(data)
            assert (status, b"close") == (response.status, response.one("connection"))
            assert b"%d" % len(response.body) == response.one("content-length")
            assert client.closed()
        questions = [r for r in wire.api.asked("instance") if r.path.endswith(f"/{wire.number}")]
        assert (asked, 0) == (len(questions), wire.instance.connections)

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            (["Sec-WebSocket-Version: 13"], 400),
            (["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key:"], 400),
            (["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"], 400),
            (["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSB0b28gbG9uZw=="], 400),
            (["Sec-WebSocket-Version: 13", KEY, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="], 400),
            (["Sec-WebSocket-Version: 13", KEY, KEY], 400),
            (["Sec-WebSocket-Version: 13", KEY, "Content-Length: 5"], 400),
            (["Sec-WebSocket-Version: 13", KEY, "Transfer-Encoding: chunked"], 400),
            ([KEY, "Sec-WebSocket-Version: 8"], 426),
            ([KEY, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"], 426),
            ([KEY, "Sec-WebSocket-Version: 8, 13"], 426),
            ([KEY], 426),
        ],
        ids=words,
    )
    def test_147_242_a_bad_handshake(self, wire: Wire, fields: list[str], status: int) -> None:
        """No, a bad or a second key, another version, a body: refused before anybody is asked."""
        data = get(wire.path(), "Connection: Upgrade", "Upgrade: websocket", *fields, token=wire.token)
        with wire.client() as client:
            response = client.ask(data)
            assert status == response.status
            assert ([b"13"] if status == 426 else []) == response.all("sec-websocket-version")
            assert client.closed()
        assert 0 == wire.instance.connections
        assert [] == [r for r in wire.api.requests if r.path.endswith(f"/{wire.number}")]


class TestOrigin:
    """With the cookie, only this site's own pages may open a WebSocket (RFC 6455 10.2)."""

    @pytest.mark.parametrize(
        ("origin", "proto", "status"),
        [
            ("https://visa.test", None, 101),
            ("https://VISA.test:443", None, 101),
            ("https://visa.test", "https", 101),
            ("http://visa.test", None, 101),
            ("http://visa.test", "https", 403),
            ("https://visa.test", "http", 403),
            ("https://evil.test", None, 403),
            ("null", None, 403),
            ("", None, 403),
            ("https://visa.test.evil.com", None, 403),
            ("https://evilvisa.test", None, 403),
            ("https://visa.test@evil.test", None, 403),
            ("https://visa.test/", None, 403),
            ("ftp://visa.test", None, 403),
            ("chrome-extension://visa.test", None, 403),
            ("wss://visa.test", None, 403),
            ("https://visa.test\r\nOrigin: https://evil.test", None, 403),
        ],
    )
    def test_159_160_pages_of_other_sites(
        self, wire: Wire, origin: str, proto: str | None, status: int
    ) -> None:
        """Names are compared, schemes too when the front proxy told one; otherwise nobody is asked."""
        wire.instance.play(echo)
        fields = [f"Origin: {origin}", *([f"X-Forwarded-Proto: {proto}"] if proto else [])]
        assert status == wire.ask(upgrade(wire.path(), *fields, token=wire.token)).status
        if status == 403:
            assert 0 == wire.instance.connections
            assert [] == [r for r in wire.api.requests if r.path.endswith(f"/{wire.number}")]

    @pytest.mark.parametrize(("port", "status"), [(8443, 101), (443, 403), (8444, 403)])
    def test_159_a_port_in_host_is_compared(self, wire: Wire, port: int, status: int) -> None:
        """Another service of the same machine is another site."""
        wire.instance.play(echo)
        data = upgrade(
            wire.path(), f"Origin: https://visa.test:{port}", token=wire.token, host="visa.test:8443"
        )
        assert status == wire.ask(data).status

    @pytest.mark.parametrize(
        ("fields", "cookie", "status"),
        [
            (["Origin: https://portal.test"], True, 101),
            (["Origin: https://PORTAL.test:443"], True, 101),
            (["Origin: http://portal.test"], True, 403),
            (["Origin: https://portal.test:8443"], True, 403),
            (["Origin: https://evil.test", "Authorization: Bearer {}"], False, 101),
            (["Authorization: Bearer {}"], False, 101),
            ([], True, 101),
        ],
    )
    def test_160_allowed_origins_and_none(
        self, strict: Wire, fields: list[str], status: int, *, cookie: bool
    ) -> None:
        """`ALLOWED_ORIGINS` may; who has no Origin is no browser; no page can send a Bearer value."""
        strict.instance.play(echo)
        data = upgrade(
            strict.path(),
            *(field.format(strict.token) for field in fields),
            token=strict.token if cookie else None,
        )
        assert status == strict.ask(data).status

    def test_160_origin_and_host_are_the_browsers(self, wire: Wire) -> None:
        """Both reach the instance byte for byte: it compares them itself."""
        wire.instance.play(echo)
        data = upgrade(wire.path(), "Origin: https://VISA.test:443", token=wire.token, host="Visa.Test")
        assert wire.ask(data).status == 101
        seen = wire.instance.requests[0]
        assert (b"https://VISA.test:443", b"Visa.Test") == (seen.one("origin"), seen.one("host"))


class TestUpgrade:
    """What counts as a WebSocket, and what is plain HTTP (RFC 9110 7.8)."""

    def test_144_a_route_without_websockets(self, wire: Wire) -> None:
        """It serves the request as plain HTTP, without an upgrade; then it closes: frames may follow."""
        with wire.client() as client:
            response = client.ask(upgrade(f"/visafs/{wire.number}/x", token=wire.token))
            assert (200, b"ok", b"close") == (response.status, response.body, response.one("connection"))
            assert client.closed()
        seen = wire.instance.requests[0]
        assert ([], []) == (seen.all("upgrade"), seen.all("connection"))

    @pytest.mark.parametrize(
        "fields",
        [
            ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
            ["Connection: Upgrade", "Upgrade: foo"],
            ["Connection: upgrade", "Upgrade: TLS/1.2, HTTP/3"],
            ["Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY],  # not in Connection
            ["Connection: Upgrade", "Upgrade: websocket/13"],
        ],
        ids=words,
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_144_241_another_protocol_is_ignored(self, wire: Wire, fields: list[str], method: str) -> None:
        """A normal exchange: the body arrives whole, nothing of the upgrade does, the connection goes on."""
        body = b"hello" if method == "POST" else b""
        with wire.client() as client:
            more = ["Content-Length: 5"] if body else []
            client.send(wire.get("/x", *fields, *more, method=method) + body)
            assert client.response().status == 200
            assert client.ask(wire.get("/next")).status == 200
        seen = wire.instance.requests[0]
        assert body == seen.body
        assert ([], [], []) == tuple(seen.all(n) for n in ("upgrade", "connection", "http2-settings"))

    @pytest.mark.parametrize("how", ["POST", "HTTP/1.0"])
    def test_144_a_websocket_that_can_be_none(self, wire: Wire, how: str) -> None:
        """Only a GET of HTTP/1.1 becomes one (RFC 6455 4.1); anything else is answered as plain HTTP."""
        data = upgrade(wire.path(), token=wire.token)
        old, new = (b"GET ", b"POST ") if how == "POST" else (b"HTTP/1.1", b"HTTP/1.0")
        assert wire.ask(data.replace(old, new, 1)).status == 200
        assert [] == wire.instance.requests[0].all("upgrade")

    @pytest.mark.parametrize(
        "fields",
        [
            ["Connection: keep-alive, Upgrade", "Upgrade: websocket"],
            ["connection: UPGRADE", "upgrade: WebSocket"],
            ["Connection: keep-alive", "Connection: Upgrade", "Upgrade: websocket"],
            ["Connection:\tupgrade ,", "Upgrade: h2c, websocket"],
        ],
        ids=words,
    )
    def test_146_spellings_of_a_websocket(self, wire: Wire, fields: list[str]) -> None:
        """Firefox, proxies and libraries write it in their own ways; the instance sees one."""
        wire.instance.play(echo)
        data = get(wire.path(), *fields, "Sec-WebSocket-Version: 13", KEY, token=wire.token)
        with wire.client() as client:
            assert client.ask(data).status == 101
            client.send(b"hello")
            assert b"hello" == client.exactly(5)
        seen = wire.instance.requests[0]
        assert ([b"Upgrade"], [b"websocket"]) == (seen.all("connection"), seen.all("upgrade"))


class TestFields:
    """What of the two heads passes."""

    def test_161_the_same_hygiene_as_for_http(self, strict: Wire) -> None:
        """The token stays here; what an untrusted peer says of itself, and what `Connection` names, too."""
        strict.instance.play(echo)
        data = get(
            strict.path(),
            "Connection: Upgrade, X-Secret, Host, Sec-Extra",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            KEY,
            "X-Secret: 1",
            "Sec-Extra: 1",
            "X-Forwarded-For: 6.6.6.6",
            "X-Forwarded-Host: evil.test",
            "X-Forwarded-Proto: gopher",
            "X-Real-IP: 6.6.6.6",
            "Forwarded: for=6.6.6.6",
            "TE: trailers",
            "Keep-Alive: timeout=5",
            "Proxy-Authorization: Basic eDp5",
            "Authorization: token for-jupyter",
            f"Cookie: a=1; access_token={strict.token}; b=2",
        )
        assert strict.ask(data).status == 101
        seen = strict.instance.requests[0]
        gone = ("x-secret", "sec-extra", "forwarded", "te", "keep-alive", "proxy-authorization")
        assert [[]] * len(gone) == [seen.all(name) for name in gone]
        assert [b"127.0.0.1"] * 2 == [seen.one("x-forwarded-for"), seen.one("x-real-ip")]
        assert (b"http", b"visa.test") == (seen.one("x-forwarded-proto"), seen.one("x-forwarded-host"))
        assert (b"visa.test", b"a=1; b=2") == (seen.one("host"), seen.one("cookie"))
        assert b"token for-jupyter" == seen.one("authorization")
        assert strict.token.encode() not in seen.head

    def test_160_161_the_handshake_passes_end_to_end(self, wire: Wire) -> None:
        """Sub-protocols, extensions, key and accept value are the two ends' own."""
        wire.instance.play(echo)
        own = {
            "sec-websocket-protocol": b"v0, v1",
            "sec-websocket-extensions": b"permessage-deflate; client_max_window_bits",
        }
        fields = [f"{name}: {value.decode()}" for name, value in own.items()]
        response = wire.ask(upgrade(wire.path(), *fields, token=wire.token))
        assert (101, b"v1") == (response.status, response.one("sec-websocket-protocol"))
        assert ACCEPT == response.one("sec-websocket-accept")
        seen = wire.instance.requests[0]
        assert [*own.values(), KEY.partition(": ")[2].encode(), b"13"] == [
            seen.one(name) for name in [*own, "sec-websocket-key", "sec-websocket-version"]
        ]

    def test_153_fields_of_the_101(self, wire: Wire) -> None:
        """Hop-by-hop fields stay here, cookies follow the rules of HTTP, the rest passes."""

        def script(connection: Connection) -> None:
            request = connection.request_head()
            head = switching(
                request,
                "Keep-Alive: timeout=5",
                "Proxy-Authenticate: Basic",
                "X-Up: 1",
                "X-Other: 2",
                "Set-Cookie: a=1; Path=/; Domain=visa.test",
                f"Set-Cookie: b=2; Path={wire.path('')}/tree",
                "Set-Cookie: access_token=evil; Path=/",
                "Set-Cookie: =access_token=evil; Path=/",
            )
            connection.send(head.replace(b"Connection: Upgrade", b"Connection: upgrade, X-Up"))
            connection.rest()

        wire.instance.play(script)
        response = wire.ask(upgrade(wire.path(), token=wire.token))
        assert (101, b"2") == (response.status, response.one("x-other"))
        gone = ("keep-alive", "proxy-authenticate", "x-up", "content-length", "transfer-encoding")
        assert [[]] * len(gone) == [response.all(name) for name in gone]
        assert ([b"Upgrade"], [b"websocket"]) == (response.all("connection"), response.all("upgrade"))
        prefix = wire.path("").encode()
        assert [b"a=1; Path=" + prefix, b"b=2; Path=" + prefix + b"/tree"] == response.all("set-cookie")

    @pytest.mark.parametrize("websocket", [True, False])
    def test_153_alternative_services(self, wire: Wire, *, websocket: bool) -> None:
        """An instance must not send the browser elsewhere for this whole site (RFC 7838 2)."""
        field = 'Alt-Svc: h2="evil.test:443"'

        def script(connection: Connection) -> None:
            request = connection.request()  # an answer before it would be one that nobody asked for
            connection.send(switching(request, field) if websocket else ok(b"ok", field))

        wire.instance.play(script)
        data = upgrade(wire.path(), token=wire.token) if websocket else wire.get()
        response = wire.ask(data)
        assert (101 if websocket else 200, []) == (response.status, response.all("alt-svc"))


class TestAnswer:
    """What the instance says instead of, or with, its 101."""

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (
                b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n2\r\nno\r\n0\r\n\r\n",
                b"no",
            ),
            (b"HTTP/1.1 302 Found\r\nLocation: elsewhere\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n", b""),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello", b"hello"),
            (b"HTTP/1.1 200 OK\r\nX-A: 1\r\nConnection: close\r\n\r\nuntil the end", b"until the end"),
            (b"HTTP/1.1 426 Upgrade Required\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno", b"no"),
            (
                b"HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: 1\r\n"
                b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\nContent-Length: 2\r\n\r\nno",
                b"no",
            ),
        ],
        ids=["404 chunked", "302", "200", "200 until close", "426", "200 that says it upgrades"],
    )
    def test_150_151_149_a_refusal_of_the_instance(self, wire: Wire, answer: bytes, expected: bytes) -> None:
        """It is relayed whole and is no tunnel: what the client has sent behind its request goes nowhere."""

        def script(connection: Connection) -> None:
            if not connection.instance.requests:
                connection.request_head()
                connection.send(answer)
                if expected == b"until the end":
                    connection.finish()
            echo(connection)  # on this connection or on another: what comes next is the next request

        wire.instance.play(script)
        with wire.client() as client:
            client.send(upgrade(wire.path(CHANNELS) + "?session_id=s", token=wire.token))
            client.send(b"GET /smuggled HTTP/1.1\r\nHost: visa.test\r\n\r\n")
            response = client.response()
            assert answer.startswith(b"HTTP/1.1 %d" % response.status)
            assert (expected, b"1", b"close") == (
                response.body,
                response.one("x-a"),
                response.one("connection"),
            )
            assert [] == response.all("upgrade")
            assert client.closed()
        assert [] == reported(wire)
        assert [b"s", b"last"] == [request.target.partition(b"=")[2] for request in wire.instance.requests]

    @pytest.mark.parametrize("asked", ["websocket", "plain GET", "h2c"])
    @pytest.mark.parametrize(
        "answer",
        [
            b"Upgrade: foo\r\nConnection: upgrade\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n",
            b"Upgrade: websocket, foo\r\nConnection: upgrade\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n",
            b"Upgrade: websocket\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n",
            SWITCH,
            SWITCH + b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n",
            SWITCH + b"Sec-WebSocket-Accept: " + ACCEPT.lower() + b"\r\n",
            b"",
        ],
        ids=["foo", "two protocols", "no Connection", "no accept", "other accept", "lower case", "nothing"],
    )
    def test_152_a_101_that_is_no_answer_to_this_request(self, wire: Wire, answer: bytes, asked: str) -> None:
        """502, and that connection is destroyed: nothing that follows reaches anybody."""
        ends: list[bool] = []

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(b"HTTP/1.1 101 Switching Protocols\r\n" + answer + b"\r\n" + ok(b"poison"))
            connection.rest()
            ends.append(connection.was_reset)

        wire.instance.play(script)
        data = {
            "websocket": upgrade(wire.path(), token=wire.token),
            "plain GET": wire.get(),
            "h2c": wire.get("/x", "Connection: Upgrade", "Upgrade: h2c"),
        }[asked]
        assert wire.ask(data).status == 502
        wire.instance.wait(lambda: ends)
        assert [True] == ends
        wire.instance.answer(ok(b"clean"))
        assert b"clean" == wire.ask(wire.get()).body

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            ([], ["Sec-WebSocket-Protocol: v1"]),
            (["Sec-WebSocket-Protocol: v0"], ["Sec-WebSocket-Protocol: v1"]),
            (["Sec-WebSocket-Protocol: v1"], ["Sec-WebSocket-Protocol: V1"]),
            (["Sec-WebSocket-Protocol: v0, v1"], ["Sec-WebSocket-Protocol: v0, v1"]),
            (
                ["Sec-WebSocket-Protocol: v0, v1"],
                ["Sec-WebSocket-Protocol: v0", "Sec-WebSocket-Protocol: v1"],
            ),
            (["Sec-WebSocket-Protocol: v0, v1"], ["Sec-WebSocket-Protocol:"]),
            ([], ["Sec-WebSocket-Extensions: permessage-deflate"]),
            (["Sec-WebSocket-Extensions: x-other; a=1"], ["Sec-WebSocket-Extensions: permessage-deflate"]),
            (
                ["Sec-WebSocket-Extensions: permessage-deflate"],
                ["Sec-WebSocket-Extensions: permessage-deflate, x-other"],
            ),
            (
                ["Sec-WebSocket-Extensions: permessage-deflate"],
                ["Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Extensions: x-other"],
            ),
        ],
        ids=words,
    )
    def test_152_a_101_that_chooses_what_was_not_offered(
        self, wire: Wire, offered: list[str], chosen: list[str]
    ) -> None:
        """A browser would give up such a WebSocket (RFC 6455 4.1), so there is no tunnel and no session."""
        wire.instance.play(lambda connection: _switch_and_wait(connection, chosen))
        response = wire.ask(upgrade(wire.path(), *offered, token=wire.token))
        assert (502, True) == (response.status, b"instance_invalid" in response.body)

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [
            (["Sec-WebSocket-Protocol: v0", "Sec-WebSocket-Protocol: v1"], ["Sec-WebSocket-Protocol: v1"]),
            (["Sec-WebSocket-Protocol: v0,v1"], []),
            (
                ["Sec-WebSocket-Extensions: x-other, permessage-deflate; client_max_window_bits"],
                ["Sec-WebSocket-Extensions: Permessage-Deflate;server_no_context_takeover"],
            ),
        ],
        ids=words,
    )
    def test_152_a_101_that_chooses_what_was_offered(
        self, wire: Wire, offered: list[str], chosen: list[str]
    ) -> None:
        """In any of several fields, with parameters of its own, or nothing of it."""
        wire.instance.play(lambda connection: _switch_and_wait(connection, chosen))
        response = wire.ask(upgrade(wire.path(), *offered, token=wire.token))
        sent = {name.lower(): value for name, value in response.fields}
        names = {name for name in sent if name.startswith(b"sec-websocket-")}
        told = {
            name.lower().encode(): value.encode()
            for name, _, value in (one.partition(": ") for one in chosen)
        }
        assert (101, {b"sec-websocket-accept", *told}) == (response.status, names)
        assert told == {name: sent[name] for name in told}

    def test_152_a_101_of_http_1_0(self, wire: Wire) -> None:
        """That version has no upgrades (RFC 9110 7.8): 502."""

        def script(connection: Connection) -> None:
            connection.send(switching(connection.request()).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
            connection.rest()

        wire.instance.play(script)
        response = wire.ask(upgrade(wire.path(), token=wire.token))
        assert (502, True) == (response.status, b"instance_invalid" in response.body)

    def test_152_a_right_101_to_a_plain_request(self, wire: Wire) -> None:
        """It is a 502 too: nobody has asked for a tunnel."""
        wire.instance.answer(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
        )
        assert wire.ask(wire.get("/x", KEY, "Sec-WebSocket-Version: 13")).status == 502


class TestFailure:
    """An instance that gives no answer to the upgrade."""

    def test_156_it_refuses_connections(self, wire: Wire) -> None:
        """502, as HTTP."""
        wire.instance.refuse()
        assert wire.ask(upgrade(wire.path(), token=wire.token)).status == 502

    @pytest.mark.parametrize("how", ["FIN", "reset", "FIN in the head"])
    def test_156_it_closes_instead(self, wire: Wire, how: str) -> None:
        """502, as HTTP, at once."""

        def script(connection: Connection) -> None:
            connection.request_head()
            if how == "reset":
                connection.reset()
            elif how == "FIN in the head":
                connection.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")

        wire.instance.play(script)
        with wire.client() as client:
            response = client.ask(upgrade(wire.path(), token=wire.token))
            assert (502, b"close") == (response.status, response.one("connection"))
            assert client.closed()

    def test_156_it_accepts_and_is_silent(self, strict: Wire) -> None:
        """504 at the time limit of a response."""
        strict.instance.play(_read_all)
        assert strict.ask(upgrade(strict.path(), token=strict.token)).status == 504

    def test_156_it_does_not_accept(self, strict: Wire, instance_port: int) -> None:
        """504 at the time limit of a connection."""
        host = "127.79.0.1"
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            # Linux drops the handshakes that find the queue of a listener full.
            full.bind((host, instance_port))
            full.listen(0)
            for sock in (first, second):
                sock.setblocking(False)
                sock.connect_ex((host, instance_port))
            strict.api.instance(strict.number, owner=f"user-{strict.number}", ip=host)
            assert strict.ask(upgrade(strict.path(), token=strict.token)).status == 504


class TestOrder:
    """What comes early, late, or twice."""

    def test_149_155_bytes_that_come_early_both_ways(self, wire: Wire) -> None:
        """A frame behind the request waits for the 101; one behind the 101 is delivered."""
        before = threading.Event()

        def script(connection: Connection) -> None:
            request = connection.request_head()
            connection.sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.more()  # nothing of the tunnel may come before the 101
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

    def test_149_a_request_behind_the_upgrade_is_the_tunnels(self, wire: Wire) -> None:
        """Whatever follows the head is bytes of the tunnel, however much it looks like a request."""
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: visa.test\r\n\r\n"
        wire.instance.play(echo)
        with wire.client() as client:
            client.send(upgrade(wire.path("/ws"), token=wire.token) + smuggled)
            assert client.response().status == 101
            assert smuggled == client.exactly(len(smuggled))
        assert 1 == len(wire.instance.requests)

    def test_149_what_comes_early_is_bounded(self, wire: Wire) -> None:
        """Before the 101 the client is read no further than a buffer; afterwards all of it arrives."""
        content = bytes(range(256)) * 2**17
        go_on = threading.Event()

        def script(connection: Connection) -> None:
            request = connection.request_head()
            assert go_on.wait(20)
            connection.send(switching(request))
            received = b"".join(iter(lambda: connection.sock.recv(2**20), b""))
            connection.instance.received.append(received)

        wire.instance.play(script)
        with wire.client() as client:
            client.send(upgrade(wire.path("/ws"), token=wire.token))
            sent = _send_until_it_blocks(client, content)
            assert sent < len(content) // 2  # what two kernels and one buffer hold
            go_on.set()
            client.send(content[sent:])
            client.finish()
            wire.instance.wait(lambda: wire.instance.received)
        assert [hash(content)] == [hash(seen) for seen in wire.instance.received]

    @pytest.mark.parametrize("cut", [1, 7, 100])
    def test_155_the_101_in_pieces(self, wire: Wire, cut: int) -> None:
        """However the 101 and the first frame are cut, both arrive."""

        def script(connection: Connection) -> None:
            data = switching(connection.request_head()) + b"first"
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(data), cut):
                connection.send(data[start : start + cut])
            connection.send(connection.exactly(6))

        wire.instance.play(script)
        with wire.client() as client:
            client.send_in_pieces(upgrade(wire.path("/ws"), token=wire.token), cut)
            assert client.response().status == 101
            assert b"first" == client.exactly(5)
            client.send(b"second")
            assert b"second" == client.exactly(6)

    def test_158_a_slow_request_and_an_upgrade_in_one_packet(self, wire: Wire) -> None:
        """Answered in order; the tunnel carries what the two ends send, and nothing else."""
        answer = threading.Event()

        def script(connection: Connection) -> None:
            request = connection.request_head()
            if request.one("upgrade") is None:
                assert answer.wait(20)
                connection.send(ok(b"slow"))
                request = connection.request_head()
            connection.send(switching(request))
            connection.send(connection.exactly(5))
            connection.instance.received.append(connection.rest())

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get("/slow") + upgrade(wire.path("/ws"), token=wire.token) + b"hello")
            wire.instance.wait(lambda: wire.instance.requests)
            assert 1 == len(wire.instance.requests)
            answer.set()
            assert b"slow" == client.response().body
            assert client.response().status == 101
            assert b"hello" == client.exactly(5)
            client.finish()
            assert client.closed()
        wire.instance.wait(lambda: wire.instance.received)
        assert [b""] == wire.instance.received

    @pytest.mark.parametrize("accepts", [True, False])
    def test_158_two_upgrades_in_one_packet(self, wire: Wire, *, accepts: bool) -> None:
        """The second is bytes of the first one's tunnel; without a tunnel it is nothing."""
        first, second = (upgrade(wire.path(rest), token=wire.token) for rest in ("/a", "/b"))

        def script(connection: Connection) -> None:
            request = connection.request_head()
            connection.send(switching(request) if accepts else ok(b"no", "Connection: close"))
            if accepts:
                connection.instance.received.append(connection.exactly(len(second)))
                connection.finish()
            connection.instance.received.append(connection.rest())

        wire.instance.play(script)
        with wire.client() as client:
            client.send(first + second)
            response = client.response()
            assert (101 if accepts else 200) == response.status
            client.finish()
            assert client.closed()
        wire.instance.wait(lambda: b"" in wire.instance.received)
        assert ([second, b""] if accepts else [b""]) == wire.instance.received
        assert [b"/a"] == [request.target[-2:] for request in wire.instance.requests]


def test_158_a_client_that_resets_anywhere(wire: Wire) -> None:
    """A reset at any byte of a request or an upgrade leaves the proxy serving."""
    wire.instance.play(echo)
    for data in (wire.get("/x", "Content-Length: 9", method="POST"), upgrade(wire.path(), token=wire.token)):
        for cut in range(1, len(data) + 1, 11):
            client = RawClient(wire.proxy.port)
            client.send(data[:cut])
            client.reset()
    assert wire.ask(get("/nope")).status == 404


def _send_until_it_blocks(client: RawClient, content: bytes) -> int:
    """Send until nothing goes out for half a second; give how much has."""
    sent = 0
    client.sock.settimeout(0.5)
    with suppress(TimeoutError):  # which is what is waited for
        while sent < len(content):
            sent += client.sock.send(content[sent : sent + 2**16])
    client.sock.settimeout(20)
    return sent


def _read_all(connection: Connection) -> None:
    connection.request_head()
    connection.rest()
