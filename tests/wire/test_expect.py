"""100 Continue and the other interim responses (RFC 9110 10.1.1 and 15.2)."""

import pytest

from support.client import get
from support.instance import Connection, ok
from wire.conftest import Wire

_EXPECT = ("Content-Length: 5", "Expect: 100-continue")
_HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </x.css>\r\nX-Interim: 1\r\n\r\n"


class TestExpect:
    """RFC 9110 10.1.1."""

    @pytest.mark.parametrize(
        ("token", "number", "status"), [(None, 0, 401), ("no-such-token", 0, 401), ("mine", 1_000_000, 404)]
    )
    def test_65_without_access(self, wire: Wire, token: str | None, number: int, status: int) -> None:
        """The refusal comes first: no 100 asks for a body that nobody will read."""
        target = f"/jupyter/{wire.number + number}/x"
        data = get(target, *_EXPECT, method="POST", token=wire.token if token == "mine" else token)
        with wire.client() as client:
            response = client.ask(data)
            assert (status, b"close") == (response.status, response.one("connection"))
            assert client.closed()
        assert 0 == wire.instance.connections

    @pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
    def test_65_with_access_the_100_is_the_instances(self, wire: Wire, framing: str) -> None:
        """The expectation is passed on, and the body follows the instance's 100."""
        body = b"hello" if "Length" in framing else b"5\r\nhello\r\n0\r\n\r\n"

        def script(connection: Connection) -> None:
            assert b"100-Continue" == connection.request_head().one("expect")
            assert b"" == connection.buffer
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.instance.received.append(connection.exactly(len(body)))
            connection.send(ok())

        wire.instance.play(script)
        with wire.client() as client:
            assert client.ask(wire.get("/x", framing, "Expect: 100-Continue", method="POST")).status == 100
            client.send(body)
            assert client.response().status == 200
        assert [body] == wire.instance.received

    def test_65_a_client_that_does_not_wait(self, wire: Wire) -> None:
        """It may send its body at once; the answer is the same, with or without a 100."""
        for answer in (ok(), b"HTTP/1.1 100 Continue\r\n\r\n" + ok()):
            wire.instance.answer(answer)
            with wire.client() as client:
                response = client.ask(wire.get("/x", *_EXPECT, method="POST") + b"hello")
                assert 200 == (client.response() if response.status == 100 else response).status
        assert {b"hello"} == {request.body for request in wire.instance.requests}

    @pytest.mark.parametrize("status", [b"413 Content Too Large", b"401 Unauthorized", b"200 OK"])
    def test_66_an_answer_instead_of_a_100(self, wire: Wire, status: bytes) -> None:
        """The client gets it, the body is not sent, and the instance's connection serves nobody else."""
        answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno"

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(answer)
            connection.instance.received.append(connection.rest())

        wire.instance.play(script)
        with wire.client() as client:
            response = client.ask(wire.get("/x", *_EXPECT, method="POST"))
            assert (int(status[:3]), b"no", b"close") == (
                response.status,
                response.body,
                response.one("connection"),
            )
            assert client.closed()
        wire.instance.wait(lambda: wire.instance.received)
        assert [b""] == wire.instance.received
        wire.instance.answer(ok())
        assert wire.ask(wire.get()).status == 200
        assert 2 == wire.instance.connections

    def test_66_a_body_that_comes_after_all(self, wire: Wire) -> None:
        """What a client sends behind such an answer is dropped: it is no request, and no body of another."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
            connection.instance.received.append(connection.rest())

        wire.instance.play(script)
        smuggled = wire.get("/smuggled")
        with wire.client() as client:
            fields = (f"Content-Length: {len(smuggled)}", "Expect: 100-continue")
            assert client.ask(wire.get("/x", *fields, method="POST")).status == 413
            client.send_in_pieces(smuggled, 65536)
            assert client.closed()
        assert [wire.path().encode()] == [request.target for request in wire.instance.requests]

    def test_68_http_1_0(self, wire: Wire) -> None:
        """It knows no interim responses: the expectation is dropped, and so is what the instance sends."""
        wire.instance.answer(b"HTTP/1.1 100 Continue\r\n\r\n" + _HINT + ok())
        data = wire.get("/x", *_EXPECT, method="POST").replace(b"HTTP/1.1", b"HTTP/1.0", 1) + b"hello"
        response = wire.ask(data)
        assert (200, b"ok") == (response.status, response.body)
        seen = wire.instance.requests[0]
        assert (None, b"hello") == (seen.one("expect"), seen.body)

    @pytest.mark.parametrize(
        "fields",
        [["Expect: 200-ok"], ["Expect: 100-continue, x"], ["Expect: 100-continue", "Expect: x"], ["Expect:"]],
        ids=repr,
    )
    def test_65_other_expectations(self, wire: Wire, fields: list[str]) -> None:
        """417: they cannot be met by a proxy that does not know them."""
        assert wire.ask(wire.get("/x", *fields, "Content-Length: 5", method="POST")).status == 417
        assert 0 == wire.instance.connections


class TestInterim:
    """1xx responses, any number of which may come before the final one (RFC 9110 15.2).

    None passes but the 100 that a client waits for: nginx takes one for the answer to a HEAD, and gives the
    connection to the next user, who would then get what the instance sends later (`test_front_proxy`).
    """

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    @pytest.mark.parametrize("status", [100, 102, 103, 104, 199])
    def test_69_they_are_dropped(self, wire: Wire, status: int, method: str) -> None:
        """And their fields do not leak into the final response, which comes by itself."""
        fields = (
            b"Link: </x.css>\r\nSet-Cookie: access_token=evil\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
        )
        interim = b"HTTP/1.1 %d Whatever\r\n%b\r\n" % (status, fields)
        final = ok(b"" if method == "HEAD" else b"ok", "X-Final: 1")

        def script(connection: Connection) -> None:
            for _ in range(2):
                connection.request()
                connection.send(interim * 3 + final)

        wire.instance.play(script)
        with wire.client() as client:
            for _ in range(2):
                response = client.ask(wire.get(method=method))
                assert (200, b"1") == (response.status, response.one("x-final"))
                assert [] == response.all("link") + response.all("set-cookie") + response.all("connection")

    def test_69_only_the_100_that_is_waited_for_passes(self, wire: Wire) -> None:
        """Bare, whatever the instance has written into it; others beside it do not."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(
                _HINT + b"HTTP/1.1 100 Go on\r\nX-Interim: 1\r\nContent-Length: 5\r\n\r\n" + _HINT
            )
            connection.exactly(5)
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n" + _HINT + ok())

        wire.instance.play(script)
        with wire.client() as client:
            asked = client.ask(wire.get("/x", *_EXPECT, method="POST"))
            assert b"HTTP/1.1 100 Continue\r\n\r\n" == asked.head
            client.send(b"hello")
            assert 200 == client.response().status

    def test_69_nothing_but_hints(self, wire: Wire) -> None:
        """When the instance then closes, the answer is a 502."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(_HINT)
            connection.finish()

        wire.instance.play(script)
        assert 502 == wire.ask(wire.get()).status

    def test_69_endless_hints(self, wire: Wire) -> None:
        """Ten thousand of them are cut off: 502, and that connection ends."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(_HINT * 10_000)
            connection.rest()

        wire.instance.play(script)
        assert 502 == wire.ask(wire.get()).status
