"""Host and header fields, as a client may send them (RFC 9112 5, RFC 9110 5 and 7)."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.client import get, upgrade
from support.instance import ok
from support.proxy import RunningProxy, running_proxy
from support.refusal import refused
from support.visa_api import VisaApiServer
from visa_jupyter_proxy.worker.http.sections import REQUEST_SPECIAL
from wire.conftest import Wire, production

_HOST = b"Host: visa.test\r\n"
_NO_TOKEN_BYTES = [
    bytes([byte]) for byte in range(256) if byte < 0x21 or byte > 0x7E or byte in b'"(),/;<=>?@[\\]{}'
]
"""What stands in no name of a field (RFC 9110 5.6.2)."""

_IMITATED = [
    *sorted(name for name in REQUEST_SPECIAL if b"-" in name),
    b"x-forwarded-for",
    b"x-forwarded-new",
]


def _written(wire: Wire, *lines: bytes, host: bytes = _HOST) -> bytes:
    """Write a request of the user with these raw lines behind `Host`, each with its own line end."""
    head = f"GET {wire.path()} HTTP/1.1\r\n".encode() + host
    return head + b"".join(lines) + f"Cookie: access_token={wire.token}\r\n\r\n".encode()


class TestHost:
    """RFC 9112 3.2."""

    @pytest.mark.parametrize(
        "host", [b"", b"Host:\r\n", b"Host: \r\n", b"Host:\t\r\n"], ids=["none", "empty", "space", "tab"]
    )
    def test_17_none(self, wire: Wire, host: bytes) -> None:
        """HTTP/1.1 has one, and ours names somebody."""
        refused(wire, _written(wire, host=host))

    @pytest.mark.parametrize(
        "host",
        [
            b"Host: visa.test\r\nHost: visa.test\r\n",
            b"Host: visa.test\r\nHost: other.test\r\n",
            b"Host: visa.test\r\nhost:\r\n",
            b"Host: visa.test\r\nX: y\r\nHOST: other.test\r\n",
            b"Host: visa.test, other.test\r\n",
            b"Host: visa.test other.test\r\n",
        ],
        ids=repr,
    )
    def test_18_several(self, wire: Wire, host: bytes) -> None:
        """Which of them would count is anyone's guess."""
        refused(wire, _written(wire, host=host))

    @pytest.mark.parametrize(
        "name",
        [
            *("user@visa.test", "visa.test/x", "visa.test?x", "visa.test#x", "http://visa.test"),
            *("visa.test:80:80", "visa.test:x", "visa.test:-1", "[::1", "::1", "[visa.test]", "[]"),
            *("visa.test\\x", "v\xefsa.test"),
        ],
    )
    def test_18_what_is_no_host(self, wire: Wire, name: str) -> None:
        """A name or an address, and perhaps a port (RFC 9110 7.2)."""
        refused(wire, _written(wire, host=f"Host: {name}\r\n".encode("latin-1")))

    @pytest.mark.parametrize(
        "name", ["visa.test", "VISA.test:8088", "127.0.0.1:1", "[::1]:80", "a_b", "xn--9ca"]
    )
    def test_33_what_is_one(self, wire: Wire, name: str) -> None:
        """It reaches the instance as it came."""
        assert wire.ask(get(wire.path(), host=name, token=wire.token)).status == 200
        assert name.encode() == wire.instance.requests[0].one("host")


@pytest.fixture(scope="module")
def named_proxy(
    tmp_path_factory: pytest.TempPathFactory, api: VisaApiServer, instance_port: int
) -> Iterator[RunningProxy]:
    """Run a proxy that answers for one name."""
    directory, routes = tmp_path_factory.mktemp("named"), production(instance_port)
    with running_proxy(directory, api_url=api.url, routes=routes, SERVER_NAMES="visa.test") as running:
        yield running


class TestServerNames:
    """DNS rebinding: a name of the attacker's that resolves to us."""

    @pytest.fixture
    def named(self, wire: Wire, named_proxy: RunningProxy) -> Wire:
        """Put that proxy before the instance."""
        return replace(wire, proxy=named_proxy)

    @pytest.mark.parametrize(
        "host",
        ["attacker.example", "visa.test.attacker.example", "xvisa.test", "visa.test.", "10.0.0.1", "[::1]"],
    )
    def test_20_a_name_that_is_not_ours(self, named: Wire, host: str) -> None:
        """421 before any question to the API: HTTP, WebSocket, and the absolute form."""
        asked, contacted = len(named.api.requests), named.instance.connections
        for data in (
            get(named.path(), host=host, token=named.token),
            upgrade(named.path(), host=host, token=named.token),
            get(f"http://{host}{named.path()}", host=host, token=named.token),
        ):
            assert 421 == named.ask(data).status
        assert (asked, contacted) == (len(named.api.requests), named.instance.connections)

    def test_20_http_1_0_without_a_name(self, named: Wire) -> None:
        """What names nobody does not name us."""
        assert 421 == named.ask(f"GET {named.path()} HTTP/1.0\r\n\r\n".encode()).status

    @pytest.mark.parametrize("host", ["visa.test", "VISA.TEST:8088", "visa.test:1"])
    def test_20_a_name_of_ours(self, named: Wire, host: str) -> None:
        """Whatever the port is, and in any case."""
        assert 200 == named.ask(get(named.path(), host=host, token=named.token)).status

    def test_20_without_server_names(self, wire: Wire) -> None:
        """Nothing is checked."""
        assert 200 == wire.ask(get(wire.path(), host="attacker.example", token=wire.token)).status


class TestSyntax:
    """Lines that are no fields (RFC 9112 5)."""

    @pytest.mark.parametrize(
        "line",
        [
            *(
                b"Content-Length : 5",
                b"X : y",
                b"Authorization\t: Bearer T",
                b"X\x0b: y",
                b" X: y",
                b"\tX: y",
            ),
            *(b"X Y: z", b"Transfer-Encoding : chunked", b"Cookie : a=1"),
        ],
        ids=repr,
    )
    def test_21_white_space_before_the_colon(self, wire: Wire, line: bytes) -> None:
        """Some would drop the field, some would read it (RFC 9112 5.1)."""
        refused(wire, _written(wire, line + b"\r\n"))

    def test_21_a_host_with_a_space(self, wire: Wire) -> None:
        """The same for the field that must be there."""
        refused(wire, _written(wire, host=b"Host : visa.test\r\n"))

    @pytest.mark.parametrize(
        "line", [b"Foo", b"Content-Length 10", b"Transfer-Encoding", b"Foo bar baz"], ids=repr
    )
    def test_23_a_line_without_a_colon(self, wire: Wire, line: bytes) -> None:
        """It is no field."""
        refused(wire, _written(wire, line + b"\r\n"))

    @pytest.mark.parametrize("line", [b": x", b":", b" : x", b"\t:", b"::", b":\r\n:"], ids=repr)
    def test_24_an_empty_name(self, wire: Wire, line: bytes) -> None:
        """The request is refused; what stands behind that line is not merely dropped (CVE-2023-25725)."""
        bearer = f"Authorization: Bearer {wire.token}\r\n".encode()
        refused(wire, _written(wire, line + b"\r\n", bearer))

    @pytest.mark.parametrize("byte", _NO_TOKEN_BYTES, ids=repr)
    def test_24_a_name_that_is_no_token(self, wire: Wire, byte: bytes) -> None:
        """RFC 9110 5.6.2."""
        refused(wire, _written(wire, b"X" + byte + b"Y: z\r\n"))

    @pytest.mark.parametrize(
        "line",
        [
            *(
                b"X: a\x00b",
                b"X: a\rb",
                b"X: \rTransfer-Encoding: chunked",
                b"X: a\x0bb",
                b"X: a\x07b",
                b"X: \x7f",
            ),
            *(
                b"X: a\rTransfer-Encoding: chunked",
                b"X: a\r",
                b"X: \x00",
                b"X:\r",
                b"X\r: y",
                b"X: a\x1b[31m",
            ),
            *(b"X: a\r\r", b"\rX: a", b"Cookie: a=\x00"),
        ],
        ids=repr,
    )
    def test_26_controls_in_a_value(self, wire: Wire, line: bytes) -> None:
        """What ends a line for somebody ends the request here (CVE-2023-30589)."""
        refused(wire, _written(wire, line + b"\r\n"))

    def test_26_every_control(self, wire: Wire) -> None:
        """All of 0x00 to 0x1f but the tab, and 0x7f; the tab passes."""
        for byte in {*range(0x20), 0x7F} - {0x09}:
            refused(wire, _written(wire, b"X: a" + bytes([byte]) + b"b\r\n"))
        assert wire.ask(_written(wire, b"X: a\tb\r\n")).status == 200
        assert b"a\tb" == wire.instance.requests[0].one("x")

    @pytest.mark.parametrize("end", [b"\n", b"\r", b"\n\r", b"\r\r\n"], ids=repr)
    @pytest.mark.parametrize("place", ["all", "request line", "first field", "last field"])
    def test_27_other_line_ends(self, wire: Wire, end: bytes, place: str) -> None:
        """Lines end with CR LF, nothing else, anywhere (RFC 9112 2.2 would allow a bare LF)."""
        line, first, rest = _written(wire, b"X: y\r\n").split(b"\r\n", 2)
        data = {
            "all": b"\r\n".join((line, first, rest)).replace(b"\r\n", end),
            "request line": line + end + first + b"\r\n" + rest,
            "first field": line + b"\r\n" + first + end + rest,
            "last field": line + b"\r\n" + first + b"\r\n" + rest.replace(b"\r\n\r\n", end + b"\r\n"),
        }
        refused(wire, data[place])

    @pytest.mark.parametrize(
        "line", [b"X: a\r\n b", b"X: a\r\n\tb", b"X:\r\n b", b"X: a\r\n \r\n b"], ids=repr
    )
    def test_27_folded_lines(self, wire: Wire, line: bytes) -> None:
        """They are obsolete, and read in two ways (RFC 9112 5.2)."""
        refused(wire, _written(wire, line + b"\r\n"))

    @pytest.mark.parametrize("space", [b"\xa0", b"\x85", b"\xc2\xa0", b"\xe2\x80\x83"], ids=repr)
    def test_29_white_space_of_other_alphabets(self, wire: Wire, space: bytes) -> None:
        """Only space and tab surround a value: a coding, a length or a token with these is none."""
        refused(wire, _written(wire, b"Transfer-Encoding: " + space + b"chunked" + space + b"\r\n"))
        refused(wire, _written(wire, b"Content-Length: " + space + b"5\r\n"))
        refused(wire, _written(wire, host=b"Host: " + space + b"visa.test\r\n"))
        asked = len(wire.api.requests)
        token = wire.token.encode()
        for credential in (
            b"Authorization: Bearer " + token + space,
            b"Cookie: access_token=" + token + space,
        ):
            head = f"GET {wire.path()} HTTP/1.1\r\nHost: visa.test\r\n".encode()
            assert 401 == wire.ask(head + credential + b"\r\n\r\n").status
        assert (asked, 0) == (len(wire.api.requests), wire.instance.connections)


class TestNames:
    """Names that somebody behind us may read as another (CVE-2026-54763)."""

    @pytest.mark.parametrize("letter", [b"_", b"."])
    @pytest.mark.parametrize("name", _IMITATED)
    def test_30_names_that_imitate_ours(self, wire: Wire, name: bytes, letter: bytes) -> None:
        """WSGI and CGI read `_` as `-`, some `.` too: what would then be a field of ours is refused."""
        everywhere = name.replace(b"-", letter)
        for alias in (everywhere, everywhere.title(), name.replace(b"-", letter, 1)):
            refused(wire, _written(wire, alias + b": 5\r\n"))

    @pytest.mark.parametrize("name", [b"X_Custom", b"X.Custom", b"_", b".", b"Content_Type", b"X_Forwarded"])
    def test_30_other_names_pass(self, wire: Wire, name: bytes) -> None:
        """`_` and `.` are letters like others."""
        assert wire.ask(_written(wire, name + b": 5\r\n")).status == 200
        assert (name, b"5") in wire.instance.requests[0].fields

    @pytest.mark.parametrize("name", ["X-Auth-Token", "x_auth_token", "X.Auth.Token", "X_Auth-Token"])
    def test_30_names_of_set_headers(self, wire: Wire, name: str) -> None:
        """What a route sets replaces the client's, however that is written."""
        assert wire.ask(get(f"/visafs/{wire.number}/x", f"{name}: mine", token=wire.token)).status == 200
        seen = wire.instance.requests[0]
        assert b"mine" not in seen.head
        assert f"compute-secret-{wire.number}".encode() == seen.one("x-auth-token")


class TestOrder:
    """Fields are passed on as they came (RFC 9110 5.3)."""

    def test_32_fields_of_a_request(self, wire: Wire) -> None:
        """They keep spelling, order and multiplicity, and so do the lines of `Cookie`."""
        wire.ask(wire.get("/x", "X-A: 1", "x-b: 2", "X-A: 3", "Empty:", "Cookie: a=1", "Cookie: b=2"))
        seen = wire.instance.requests[0]
        fields = [field for field in seen.fields if field[0].lower() in (b"x-a", b"x-b", b"empty")]
        assert [(b"X-A", b"1"), (b"x-b", b"2"), (b"X-A", b"3"), (b"Empty", b"")] == fields
        assert [b"a=1", b"b=2"] == seen.all("cookie")

    def test_32_fields_of_a_response(self, wire: Wire) -> None:
        """Three `Set-Cookie` stay three: they cannot be joined."""
        cookies = ("Set-Cookie: a=1, b", "X-A: 1", "Set-Cookie: b=2; HttpOnly", "X-A: 2", "Set-Cookie: a=3")
        wire.instance.answer(ok(b"", *cookies))
        response = wire.ask(wire.get())
        assert [b"a=1, b", b"b=2; HttpOnly", b"a=3"] == response.all("set-cookie")
        assert [b"1", b"2"] == response.all("x-a")

    def test_33_spelling_and_empty_values(self, wire: Wire) -> None:
        """Names in any case, a tab before the value or nothing, and values of nothing."""
        data = _written(
            wire, b"empty:\r\n", b"Tabs:\t\tx\t \r\n", b"None:x\r\n", host=b"hoSt:\tvisa.test\r\n"
        )
        assert wire.ask(data).status == 200
        seen = wire.instance.requests[0]
        assert [b"visa.test", b"", b"x", b"x"] == [
            seen.one(name) for name in ("host", "empty", "tabs", "none")
        ]

    def test_33_values_beyond_ascii(self, wire: Wire) -> None:
        """`obs-text` is opaque, and passes byte for byte: no line end of Unicode is one (RFC 9110 5.5)."""
        line = b"X: \xe9\xa0\xff caf\xc3\xa9\x85Transfer-Encoding: chunked\xe2\x80\xa8\r\n"
        assert wire.ask(_written(wire, line)).status == 200
        assert line in wire.instance.requests[0].head


class TestConnectionFields:
    """What belongs to this connection only (RFC 9110 7.6.1 and 7.8)."""

    @pytest.mark.parametrize(
        "field",
        [
            *("TE: gzip", "TE: trailers", "Trailer: X-Sum", "Proxy-Authorization: Basic eDp5"),
            *("Proxy-Connection: keep-alive", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic"),
            *("Upgrade: h2c", "Connection: x"),
        ],
    )
    def test_240_without_being_named(self, wire: Wire, field: str) -> None:
        """They stay here although no `Connection` names them."""
        assert wire.ask(wire.get("/x", field)).status == 200
        assert [] == wire.instance.requests[0].all(field.partition(":")[0])

    def test_241_another_upgrade(self, wire: Wire) -> None:
        """It is ignored, as RFC 9110 7.8 allows, and the body arrives whole; the connection goes on."""
        fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
        bodies = {
            "Content-Length: 25": b"GET /smuggled HTTP/1.1\r\n\r",
            "Transfer-Encoding: chunked": b"5\r\nhello\r\n0\r\n\r\n",
        }
        with wire.client() as client:
            for framing, body in bodies.items():
                client.send(wire.get("/x", *fields, framing, method="POST") + body)
                assert client.response().status == 200
        first, second = wire.instance.requests
        assert (b"GET /smuggled HTTP/1.1\r\n\r", b"hello") == (first.body, second.body)
        assert not {b"upgrade", b"http2-settings"} & {
            name.lower() for name, _ in first.fields + second.fields
        }

    @pytest.mark.parametrize(
        "key",
        [
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "sec-websocket-key:",
        ],
    )
    def test_242_two_websocket_keys(self, wire: Wire, key: str) -> None:
        """Which of them is answered would be anyone's guess (RFC 6455 4.2.1)."""
        refused(wire, upgrade(wire.path(), key, token=wire.token))
