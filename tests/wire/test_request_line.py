"""The request line and the target, as a client may send them (RFC 9112 3)."""

import random

import pytest

from support.client import get
from support.refusal import refused
from wire.conftest import Wire


def _written(wire: Wire, line: bytes, *fields: bytes) -> bytes:
    """Write a request whose line has `TARGET` where the target belongs; it would be let in."""
    named = line.replace(b"TARGET", wire.path().encode())
    cookie = f"Cookie: access_token={wire.token}".encode()
    return b"\r\n".join([named, b"Host: visa.test", cookie, *fields, b"", b""])


class TestVersions:
    """HTTP/1.1 and HTTP/1.0, written exactly so (RFC 9112 2.3)."""

    def test_1_236_http_0_9(self, wire: Wire) -> None:
        """A line without a version is no request, and its answer could not be framed."""
        refused(wire, f"GET {wire.path()}\r\n\r\n".encode())

    @pytest.mark.parametrize(
        "version",
        [
            *(b"HTTP/1.32", b"HTTP/01.1", b"http/1.1", b"HTTP/1", b"HTTP/ 1.1", b"HTTP/4294967297.1"),
            *(b"HTTP/1.", b"HTTP/1.1.1", b"HTTP/1.1\x0b", b"HTTP/1.x", b"HTTP/-1.1", b"HTTP /1.1", b"HTTP"),
            *(b"RTSP/1.0", b"ICE/1.0", b"HTTPS/1.1", b"XHTTP/1.1"),
        ],
        ids=repr,
    )
    def test_2_236_what_is_no_version(self, wire: Wire, version: bytes) -> None:
        """Versions are matched byte by byte; another protocol is none."""
        refused(wire, _written(wire, b"GET TARGET " + version))

    @pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/9.9", b"HTTP/3.0", b"HTTP/0.9", b"HTTP/0.0"])
    def test_2_236_versions_that_are_not_spoken(self, wire: Wire, version: bytes) -> None:
        """505 says so, in HTTP/1.1."""
        response = refused(wire, _written(wire, b"GET TARGET " + version), 505)
        assert response.start_line.startswith(b"HTTP/1.1 505 ")

    def test_237_http_1_0_without_host(self, wire: Wire) -> None:
        """It is served, and closed, as HTTP/1.0 expects (RFC 9112 3.2, 9.3); chunks are undone for it."""
        wire.instance.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        with wire.client() as client:
            client.send(f"GET {wire.path()} HTTP/1.0\r\nCookie: access_token={wire.token}\r\n\r\n".encode())
            response = client.response()
            assert (b"ok", b"close") == (response.body, response.one("connection"))
            assert response.one("transfer-encoding") is None
        assert wire.instance.host.encode() == wire.instance.requests[0].one("host")

    @pytest.mark.parametrize("asked", [True, False])
    def test_237_http_1_0_is_kept_alive_when_asked(self, wire: Wire, asked: bool) -> None:
        """With `keep-alive` asked, the connection serves another request; else it ends."""
        data = _written(wire, b"GET TARGET HTTP/1.0", *([b"Connection: keep-alive"] if asked else []))
        with wire.client() as client:
            first = client.ask(data)
            assert (200, b"keep-alive" if asked else b"close") == (first.status, first.one("connection"))
            assert (client.ask(data).status == 200) if asked else client.closed()


class TestWhatIsNoHttp:
    """Other protocols on this port."""

    @pytest.mark.parametrize(
        ("noise", "statuses"),
        [
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505,)),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)), (400,)),
            (random.Random(3).randbytes(1024), (400,)),
            (b"\0" * 1024, (400,)),
            (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", (400,)),
            (b"\r\n\r\n\0", (400,)),
        ],
        ids=[
            "HTTP/2",
            "TLS ClientHello",
            "1 KiB of noise",
            "1 KiB of zeros",
            "SSH",
            "empty lines, then zero",
        ],
    )
    def test_3_other_protocols(self, wire: Wire, noise: bytes, statuses: tuple[int, ...]) -> None:
        """They are answered at once, not at a deadline, with one line in the log."""
        logged = len(wire.proxy.records("request"))
        refused(wire, noise, *statuses)
        assert wire.ask(wire.get("/after")).status == 200
        wire.proxy.wait(lambda: len(wire.proxy.records("request")) >= logged + 2)
        statuses_logged = [record["status"] for record in wire.proxy.records("request")[logged:]]
        assert [*statuses, 200] == statuses_logged


class TestMethods:
    """RFC 9110 9."""

    @pytest.mark.parametrize(
        ("line", "status"),
        [(b"CONNECT 10.0.0.12:8888 HTTP/1.1", 400), (b"CONNECT TARGET HTTP/1.1", 405)],
        ids=["authority", "path"],
    )
    def test_5_connect(self, wire: Wire, line: bytes, status: int) -> None:
        """Nothing is connected to, whatever form the target has."""
        refused(wire, _written(wire, line), status)

    def test_6_trace(self, wire: Wire) -> None:
        """It would echo the credentials: 405, and none of them in the answer."""
        bearer = f"Authorization: Bearer {wire.token}".encode()
        response = refused(wire, _written(wire, b"TRACE TARGET HTTP/1.1", bearer), 405)
        assert wire.token.encode() not in response.head + response.body

    @pytest.mark.parametrize("method", [b"FOO", b"PROPFIND", b"M-SEARCH", b"x" * 32, b"get"], ids=repr)
    @pytest.mark.parametrize("body", [b"", b"GET /smuggled HTTP/1.1\r\n\r\n"], ids=["no body", "body"])
    def test_239_unknown_methods(self, wire: Wire, method: bytes, body: bytes) -> None:
        """WebDAV and others exist: they are forwarded as they are, framed like any request."""
        length = [b"Content-Length: %d" % len(body)] if body else []
        with wire.client() as client:
            client.send(_written(wire, method + b" TARGET HTTP/1.1", *length) + body)
            assert client.response().status == 200
            assert client.ask(wire.get()).status == 200
        first, second = wire.instance.requests
        assert (method, body, b"GET") == (first.method, first.body, second.method)

    def test_239_a_method_that_is_too_long(self, wire: Wire) -> None:
        """No method has more than 32 letters."""
        refused(wire, _written(wire, b"X" * 33 + b" TARGET HTTP/1.1"), 501)

    @pytest.mark.parametrize("method", [b"G(T", b"GE\xc3\x89T", b"G@T", b'"GET"', b"GET,", b"GET/"], ids=repr)
    def test_239_what_is_no_method(self, wire: Wire, method: bytes) -> None:
        """A method is a token (RFC 9110 9.1)."""
        refused(wire, _written(wire, method + b" TARGET HTTP/1.1"))


class TestTargets:
    """Origin form, or an absolute form that says the same (RFC 9112 3.2)."""

    @pytest.mark.parametrize(
        "line",
        [
            b"GET jupyter/12/x HTTP/1.1",
            b"GET admin HTTP/1.1",
            b"GET visa.test:80 HTTP/1.1",
            b"GET  HTTP/1.1",
            b"GET HTTP/1.1",
            b"GET * HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"GET ? HTTP/1.1",
            b"GET ftp://visa.test/x HTTP/1.1",
            b"GET http:/visa.test/x HTTP/1.1",
            b"GET http:///jupyter/12/x HTTP/1.1",
            b"GET TARGET#fragment HTTP/1.1",
        ],
        ids=repr,
    )
    def test_8_targets_that_are_none(self, wire: Wire, line: bytes) -> None:
        """Neither a path nor an absolute URL."""
        refused(wire, _written(wire, line))

    @pytest.mark.parametrize("scheme", [b"http", b"https", b"HTTP"])
    def test_9_238_the_absolute_form(self, wire: Wire, scheme: bytes) -> None:
        """It has the same result as the origin form, which is what the instance gets."""
        response = wire.ask(_written(wire, b"GET " + scheme + b"://visa.testTARGET HTTP/1.1"))
        assert 200 == response.status
        seen = wire.instance.requests[0]
        assert (wire.path().encode(), b"visa.test") == (seen.target, seen.one("host"))

    def test_11_the_target_on_the_wire_decides(self, wire: Wire) -> None:
        """An absolute URL of another's instance is another's instance, whatever else the request says."""
        other = wire.number + 1_000_000
        wire.api.instance(other, owner="somebody-else", ip=wire.instance.host)
        for target in (f"/jupyter/{other}/x", f"http://visa.test/jupyter/{other}/x"):
            referer = f"Referer: http://visa.test{wire.path()}"
            assert 404 == wire.ask(get(target, referer, token=wire.token)).status
        assert f"/api/jupyter/instances/{other}" == wire.api.asked("instance")[-1].path
        assert 0 == wire.instance.connections

    @pytest.mark.parametrize(
        ("line", "status"),
        [
            (b"GET http://visa.test@10.0.0.13TARGET HTTP/1.1", 400),
            (b"GET http://10.0.0.13TARGET HTTP/1.1", 400),
            (b"GET http://visa.test\\@10.0.0.13TARGET HTTP/1.1", 400),
            (b"GET //10.0.0.13TARGET HTTP/1.1", 404),
            (b"GET /\\10.0.0.13TARGET HTTP/1.1", 404),
            (b"GET /\\10.0.0.13/x HTTP/1.1", 404),
            (b"GET //visa.testTARGET HTTP/1.1", 404),
        ],
        ids=repr,
    )
    def test_12_targets_with_a_host_in_them(self, wire: Wire, line: bytes, status: int) -> None:
        """None of them leads anywhere."""
        asked = len(wire.api.requests)
        assert status == wire.ask(_written(wire, line)).status
        assert (asked, 0) == (len(wire.api.requests), wire.instance.connections)

    @pytest.mark.parametrize(
        "authority",
        [b"other.test", b"visa.test:81", b"a@visa.test", b"visa.test.", b"visa.tes", b"xvisa.test"],
    )
    def test_238_another_authority_than_the_host(self, wire: Wire, authority: bytes) -> None:
        """Two names in one request are an attempt at something."""
        refused(wire, _written(wire, b"GET http://" + authority + b"TARGET HTTP/1.1"))

    @pytest.mark.parametrize(
        "byte", [b" ", b"\t", b"\0", b"\x7f", b"\x0b", b"\x0c", b"\x1b", b"\r", b"\n"], ids=repr
    )
    def test_14_bytes_that_stand_in_no_target(self, wire: Wire, byte: bytes) -> None:
        """RFC 3986 wants them encoded; in the path and in the query."""
        refused(wire, _written(wire, b"GET TARGET/a" + byte + b"b HTTP/1.1"))
        refused(wire, _written(wire, b"GET TARGET?a" + byte + b"b HTTP/1.1"))

    def test_14_bytes_beyond_ascii(self, wire: Wire) -> None:
        """Each of 0x80 to 0xff."""
        for byte in range(0x80, 0x100):
            refused(wire, _written(wire, b"GET TARGET/a" + bytes([byte]) + b"b HTTP/1.1"))

    @pytest.mark.parametrize(
        "line",
        [
            b"GET /\nHTTP/1.1",
            b"GET TARGET\nHTTP/1.1",
            b"GET\tTARGET\tHTTP/1.1",
            b"GET TARGET\tHTTP/1.1",
            b"GET\tTARGET HTTP/1.1",
            b"GET  TARGET HTTP/1.1",
            b"GET TARGET  HTTP/1.1",
            b" GET TARGET HTTP/1.1",
            b"GET TARGET HTTP/1.1 ",
            b"GET\x0bTARGET HTTP/1.1",
            b"GET\xa0TARGET HTTP/1.1",
            b"GET TARGET HTTP/1.1\r",
        ],
        ids=repr,
    )
    def test_15_236_what_separates_the_parts(self, wire: Wire, line: bytes) -> None:
        """Exactly one space, twice (RFC 9112 3)."""
        refused(wire, _written(wire, line))
