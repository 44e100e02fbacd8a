"""Requests through the real proxy: what the instance gets of them, as bytes."""

import pytest

from support.client import get
from wire.conftest import Wire


class TestRequests:
    """What the instance gets to see (RFC 9110 7, contract section 4)."""

    def test_the_target_passes_byte_for_byte(self, wire: Wire) -> None:
        """Nothing is decoded, merged or normalised, and the query is not touched."""
        rest = "/a//b///c%2F%20%41;p=1/@+~/http:/x?x=//y&z=%00&?"
        assert wire.ask(wire.get(rest)).status == 200
        assert wire.path(rest).encode() == wire.instance.requests[0].target

    def test_a_rewritten_target(self, wire: Wire) -> None:
        """The first rule that matches is applied, once; without the slash none matches."""
        for path in ("//api/files//x?y=1", ""):
            assert wire.ask(get(f"/visafs/{wire.number}{path}", token=wire.token)).status == 200
        targets = [request.target for request in wire.instance.requests]
        assert [
            b"//api/files//x?y=1".replace(b"//api", b"/" + b"/api"),
            f"/visafs/{wire.number}".encode(),
        ] == targets

    def test_fields_pass_in_order_and_number(self, wire: Wire) -> None:
        """End-to-end fields keep spelling, order and multiplicity (RFC 9110 5.3)."""
        wire.ask(wire.get("/x", "X-A: 1", "x-b: 2", "X-A: 3", "Empty:"))
        fields = [
            field
            for field in wire.instance.requests[0].fields
            if field[0].lower() in (b"x-a", b"x-b", b"empty")
        ]
        assert [(b"X-A", b"1"), (b"x-b", b"2"), (b"X-A", b"3"), (b"Empty", b"")] == fields

    def test_the_instance_never_sees_the_token(self, wire: Wire) -> None:
        """Neither the cookie nor a Bearer value goes on; every other byte of both fields does."""
        fields = (f"Cookie: a=1; access_token={wire.token}; b=2", f"Authorization: Bearer {wire.token}")
        assert wire.ask(get(wire.path(), *fields)).status == 200
        seen = wire.instance.requests[0]
        assert b"a=1; b=2" == seen.one("cookie")
        assert seen.one("authorization") is None
        assert wire.token.encode() not in seen.head

    def test_the_applications_own_authorization_passes(self, wire: Wire) -> None:
        """Only a Bearer value is ours; Jupyter's own `token` scheme goes on, and the cookie authorises."""
        assert wire.ask(wire.get("/x", "Authorization: token abc")).status == 200
        assert b"token abc" == wire.instance.requests[0].one("authorization")

    def test_hop_by_hop_fields_stay_here(self, wire: Wire) -> None:
        """Neither the listed ones nor those that `Connection` names go on; ours cannot be named away."""
        named = "Connection: X-Secret, Host, Cookie, X-Forwarded-For"
        fields = ("X-Secret: 1", "Keep-Alive: 5", "TE: trailers", "Proxy-Connection: close", "Cookie: a=1")
        assert wire.ask(wire.get("/x", named, *fields)).status == 200
        seen = wire.instance.requests[0]
        assert [] == [name for name in ("x-secret", "keep-alive", "te", "proxy-connection") if seen.all(name)]
        assert (b"visa.test", b"a=1") == (seen.one("host"), seen.one("cookie"))
        assert b"127.0.0.1" == seen.one("x-forwarded-for")

    def test_set_headers_replace_the_clients(self, wire: Wire) -> None:
        """A field that the route sets comes from the instance's data, whatever the client sent."""
        wire.ask(get(f"/visafs/{wire.number}/x", "X-Auth-Token: mine", token=wire.token))
        assert [f"compute-secret-{wire.number}".encode()] == wire.instance.requests[0].all("x-auth-token")

    @pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PATCH", "FOO"])
    def test_a_chunked_body_arrives_whole(self, wire: Wire, method: str) -> None:
        """Chunks are framed anew; the body is the same, trailers that may pass do (RFC 9112 7.1)."""
        head = wire.get("/x", "Transfer-Encoding: chunked", method=method)
        body = b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n"
        assert wire.ask(head + body).status == 200
        seen = wire.instance.requests[0]
        assert (method.encode(), b"hello!", [(b"X-Sum", b"1")]) == (seen.method, seen.body, seen.trailers)

    def test_a_request_cut_anywhere(self, wire: Wire) -> None:
        """However the bytes of a request are cut into segments, the instance gets the same."""
        data = wire.get("/x", "Content-Length: 5", method="POST") + b"hello"
        for cut in range(1, len(data), 7):
            with wire.client() as client:
                client.send(data[:cut])
                client.send(data[cut:])
                assert client.response().status == 200
        assert {b"hello"} == {request.body for request in wire.instance.requests}

    def test_pipelined_requests_are_answered_in_order(self, wire: Wire) -> None:
        """Three requests in one segment, the second without a token, get their answers in order."""
        with wire.client() as client:
            client.send(wire.get("/1") + get(wire.path("/2")) + wire.get("/3"))
            assert [200, 401, 200] == [client.response().status for _ in range(3)]
        assert [b"/1", b"/3"] == [request.target[-2:] for request in wire.instance.requests]

    def test_both_connections_are_kept_alive(self, wire: Wire) -> None:
        """Ten requests of one client use one connection to the instance."""
        with wire.client() as client:
            for _ in range(10):
                assert client.ask(wire.get()).status == 200
        assert 1 == wire.instance.connections

    def test_http_1_0(self, wire: Wire) -> None:
        """Without Host and keep-alive it is served and closed; a chunked response comes de-chunked."""
        wire.instance.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        with wire.client() as client:
            client.send(f"GET {wire.path()} HTTP/1.0\r\nCookie: access_token={wire.token}\r\n\r\n".encode())
            response = client.response()
            assert (b"ok", None, b"close") == (
                response.body,
                response.one("transfer-encoding"),
                response.one("connection"),
            )
