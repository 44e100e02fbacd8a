"""Responses through the real proxy, and the connections they come on, as bytes."""

import hashlib
import socket
import threading

import pytest

from support.client import ConnectionEnded, Message, get
from support.instance import Connection, ok
from wire.conftest import Wire


class TestResponses:
    """What the client gets to see."""

    def test_head_204_and_304_have_no_body(self, wire: Wire) -> None:
        """The length that a HEAD is told is passed on, and no body is waited for."""
        heads = {
            b"HEAD": b"200 OK\r\nContent-Length: 1234",
            b"PUT": b"204 No Content",
            b"GET": b"304 Not Modified",
        }

        def script(connection: Connection) -> None:
            while True:
                connection.send(b"HTTP/1.1 " + heads[connection.request().method] + b"\r\n\r\n")

        wire.instance.play(script)
        with wire.client() as client:
            head = client.ask(wire.get(method="HEAD"))
            assert (200, b"1234") == (head.status, head.one("content-length"))
            assert [204, 304] == [client.ask(wire.get(method=method)).status for method in ("PUT", "GET")]

    def test_a_body_until_close_is_framed(self, wire: Wire) -> None:
        """A body that ends with the connection reaches HTTP/1.1 as chunks: its end is then certain."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(b"HTTP/1.1 200 OK\r\n\r\nall there is")

        wire.instance.play(script)
        with wire.client() as client:
            response = client.ask(wire.get())
            assert (b"all there is", b"chunked") == (response.body, response.one("transfer-encoding"))

    def test_interim_responses_pass(self, wire: Wire) -> None:
        """A 103 goes to the client, and its fields do not leak into the final response."""
        wire.instance.answer(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok())
        with wire.client() as client:
            assert (103, [b"</x>"]) == _status_and(client.ask(wire.get()), "link")
            assert (200, []) == _status_and(client.response(), "link")

    def test_the_instance_cannot_replace_the_token(self, wire: Wire) -> None:
        """A cookie that would be the token is dropped, also nameless; the others pass one by one."""
        cookies = ("access_token=evil; Path=/", "=access_token=evil", "a=1", "b=2; Path=/")
        wire.instance.answer(ok(b"", *(f"Set-Cookie: {cookie}" for cookie in cookies)))
        kept = [b"a=1", f"b=2; Path=/jupyter/{wire.number}".encode()]
        assert kept == wire.ask(wire.get()).all("set-cookie")

    def test_expect_100_continue(self, wire: Wire) -> None:
        """The 100 is the instance's; a refused request gets none."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.instance.received.append(connection.exactly(5))
            connection.send(ok())

        wire.instance.play(script)
        fields = ("Content-Length: 5", "Expect: 100-continue")
        with wire.client() as client:
            assert client.ask(wire.get("/x", *fields, method="POST")).status == 100
            client.send(b"hello")
            assert client.response().status == 200
        assert [b"hello"] == wire.instance.received
        assert wire.ask(get(wire.path(), *fields, method="POST")).status == 401

    def test_an_early_answer_reaches_a_client_that_still_sends(self, wire: Wire) -> None:
        """A 413 in the middle of an upload is read in full; the upload stops (RFC 9112 9.6)."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much")

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get("/x", f"Content-Length: {2**40}", method="POST"))
            sender = threading.Thread(target=client.send_in_pieces, args=(bytes(2**24), 65536))
            sender.start()
            response = client.response()
            assert (413, b"too much") == (response.status, response.body)
            client.sock.shutdown(socket.SHUT_RDWR)
            sender.join(20)
            assert not sender.is_alive()

    @pytest.mark.parametrize(
        "response",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"garbage\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            b"",
        ],
    )
    def test_what_is_no_response_is_502(self, wire: Wire, response: bytes) -> None:
        """An instance that answers nonsense, or nothing, gets its connection ended; the client gets a 502."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(response)
            connection.finish()
            connection.rest()

        wire.instance.play(script)
        assert wire.ask(wire.get()).status == 502

    def test_a_truncated_body_is_not_completed(self, wire: Wire) -> None:
        """What came is delivered, then the connection ends: by length, by chunks, and until close."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(40_010))

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get())
            with pytest.raises(ConnectionEnded) as ended:
                client.response()
            assert 40_010 == len(ended.value.args[0])

    def test_surplus_bytes_poison_nobody(self, wire: Wire) -> None:
        """Bytes behind a response are dropped with the connection; the next request gets its own answer."""
        wire.instance.answer(ok() + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        with wire.client() as client:
            assert [b"ok", b"ok"] == [client.ask(wire.get()).body for _ in range(2)]
        assert 2 == wire.instance.connections


class TestBodies:
    """Bodies of any size stream through, in bounded memory."""

    def test_a_large_body_each_way(self, wire: Wire) -> None:
        """Thirty megabytes up and down arrive as they were sent."""
        content = hashlib.sha256(b"x").digest() * 2**20

        def script(connection: Connection) -> None:
            connection.send(ok(connection.request().body))

        wire.instance.play(script)
        with wire.client() as client:
            data = wire.get("/x", f"Content-Length: {len(content)}", method="PUT") + content
            sender = threading.Thread(target=client.send, args=(data,))
            sender.start()
            assert content == client.response().body
            sender.join(20)


class TestConnections:
    """The connections to an instance are kept, and never trusted (cases 191 to 195)."""

    def test_a_stale_connection_is_tried_again(self, wire: Wire) -> None:
        """A GET on a kept connection that turns out dead is sent once more, on a new one."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(ok())
            connection.request()  # the second request dies here
            connection.reset() if connection.instance.connections == 1 else connection.send(ok(b"again"))

        wire.instance.play(script)
        with wire.client() as client:
            assert client.ask(wire.get("/1")).body == b"ok"
            assert client.ask(wire.get("/2")).body == b"ok"
        assert [b"/1", b"/2", b"/2"] == [request.target[-2:] for request in wire.instance.requests]

    def test_a_post_is_not_sent_twice(self, wire: Wire) -> None:
        """A POST whose connection dies is a 502: it may have been done."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(ok())
            connection.request()
            connection.reset()

        wire.instance.play(script)
        with wire.client() as client:
            assert client.ask(wire.get("/1")).status == 200
            assert client.ask(wire.get("/2", "Content-Length: 1", method="POST") + b"x").status == 502
        assert 2 == len(wire.instance.requests)

    def test_a_refused_connection(self, wire: Wire) -> None:
        """An instance that refuses is a 502 that names no address; the API is asked again next time."""
        wire.instance.refuse()
        response = wire.ask(wire.get())
        assert (502, True) == (response.status, b"instance_unreachable" in response.body)
        assert wire.instance.host.encode() not in response.head + response.body
        asked = len(wire.api.asked("instance"))
        wire.ask(wire.get())
        assert asked + 1 == len(wire.api.asked("instance"))

    def test_an_instance_that_is_not_up_yet(self, wire: Wire) -> None:
        """Refused while it starts is a 503; an instance without an address too."""
        wire.instance.refuse()
        owner = f"user-{wire.number}"
        wire.api.instance(wire.number, owner=owner, ip=wire.instance.host, state="STARTING")
        assert wire.ask(wire.get()).status == 503
        wire.api.instance(wire.number, owner=owner, ip=None, state="BUILDING")
        wire.instance.wait(lambda: wire.ask(wire.get()).status == 503)

    def test_the_state_is_a_hint(self, wire: Wire) -> None:
        """An instance in no up state that answers is served (contract section 2)."""
        wire.api.instance(wire.number, owner=f"user-{wire.number}", ip=wire.instance.host, state="UNKNOWN")
        assert wire.ask(wire.get()).status == 200


def _status_and(message: Message, field: str) -> tuple[int, list[bytes]]:
    return message.status, message.all(field)
