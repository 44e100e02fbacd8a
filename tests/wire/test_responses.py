"""Responses through the real proxy, and the connections they come on, as bytes."""

import hashlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from itertools import pairwise

import pytest

from support.client import ConnectionEnded, Message, RawClient, get
from support.instance import Connection, ok
from wire.conftest import Wire

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def http_1_0(wire: Wire, *fields: str) -> bytes:
    """Write the user's request in HTTP/1.0."""
    return wire.get("/x", *fields).replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)


def wait_for_the_end(connection: Connection) -> None:
    """Wait in a script until the proxy ends the connection, and record how."""
    connection.rest()
    connection.instance.received.append(b"reset" if connection.was_reset else b"ended")


def head_and_rest(client: RawClient) -> tuple[Message, bytes]:
    """Take the head of a response, and all that comes behind it until the end."""
    return client.message(no_body=True), client.rest()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process for a moment: what is sent meanwhile arrives in one turn of its loop."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class TestWithoutBody:
    """Responses that end with their heads (RFC 9112 6.3)."""

    def test_174_head_204_and_304_have_no_body(self, wire: Wire) -> None:
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
        assert 1 == wire.instance.connections

    @pytest.mark.parametrize("late", [False, True], ids=["with-the-head", "behind-the-answer"])
    @pytest.mark.parametrize(
        ("method", "head"),
        [
            ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
            ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n"),
            ("PUT", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ],
        ids=["HEAD", "304", "204"],
    )
    def test_174_a_body_that_may_not_be_is_dropped(
        self, wire: Wire, method: str, head: bytes, *, late: bool
    ) -> None:
        """An instance that sends one all the same loses its connection; nobody sees a byte of it."""
        answered = threading.Event()

        def script(connection: Connection) -> None:
            if connection.request().method == b"POST":
                connection.send(ok(b"mine"))
                connection.rest()
                return
            connection.send(head if late else head + bytes(1234))
            if late:
                assert answered.wait(20)
                connection.send(bytes(1234))
            wait_for_the_end(connection)

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get(method=method))
            assert int(head[9:12]) == client.response(to_head=True).status
            answered.set()
            wire.instance.wait(lambda: wire.instance.received)
            assert b"mine" == client.ask(wire.get(method="POST")).body
        assert 2 == wire.instance.connections


class TestEndOfBody:
    """Where a body ends, and what cannot be taken for its end (RFC 9112 6.3 and 8)."""

    @pytest.mark.parametrize(
        "head",
        [
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n",
        ],
        ids=["plain", "close", "HTTP-1.0", "HTTP-1.0-keep-alive"],
    )
    def test_176_a_body_until_close_is_complete_with_the_end(self, wire: Wire, head: bytes) -> None:
        """It reaches HTTP/1.1 as chunks, its end being certain then, and HTTP/1.0 until the close."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(head + b"all there is")

        wire.instance.play(script)
        with wire.client() as client:
            for _ in range(2):
                response = client.ask(wire.get())
                assert (b"all there is", b"chunked") == (response.body, response.one("transfer-encoding"))
        with wire.client() as client:
            client.send(http_1_0(wire))
            response, body = head_and_rest(client)
            assert (b"all there is", False) == (body, client.was_reset)
            assert response.one("transfer-encoding") is None

    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    @pytest.mark.parametrize(
        ("head", "piece"),
        [
            (b"HTTP/1.1 200 OK\r\n\r\n", b"hello"),
            (_CHUNKED, b"5\r\nhello\r\n"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"hello"),
        ],
        ids=["until-close", "chunked", "length"],
    )
    def test_176_177_178_245_a_reset_is_no_end(
        self, wire: Wire, version: str, head: bytes, piece: bytes
    ) -> None:
        """The client sees an abort, and where nothing but the close would tell the end, a reset."""
        arrived = threading.Event()

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(head + piece)
            assert arrived.wait(20)
            connection.reset()

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get() if version == "1.1" else http_1_0(wire))
            response = client.message(no_body=True)
            client.through(b"hello")
            arrived.set()
            assert client.rest() in (b"", b"\r\n")  # the end of the chunk, never the last one
            framed = response.all("transfer-encoding") + response.all("content-length")
            assert framed or client.was_reset

    def test_177_a_body_shorter_than_its_length(self, wire: Wire) -> None:
        """All that came is delivered, then the connection ends: never a complete answer, never a wait."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(40_010))

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get())
            with pytest.raises(ConnectionEnded) as error:
                client.response()
            assert bytes(40_010) == error.value.args[0]
            assert not client.was_reset

    @pytest.mark.parametrize(
        "body",
        [b"5\r\nhello", b"5\r\nhello\r\n", b"5\r\nhello\r\n5\r\nhel", b"5\r\nhello\r\n0\r\n", b"5", b""],
        ids=["no-CRLF", "no-last-chunk", "in-a-chunk", "in-the-trailers", "in-a-size", "nothing"],
    )
    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    def test_178_chunks_that_stop(self, wire: Wire, body: bytes, version: str) -> None:
        """Without the last chunk nobody is told of an end, in either version (245)."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(_CHUNKED + body)

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get() if version == "1.1" else http_1_0(wire))
            if version == "1.0":
                client.rest()  # the reset may overtake what came before it
                assert client.was_reset
            else:
                _, rest = head_and_rest(client)
                assert b"\r\n0\r\n" not in b"\r\n" + rest

    @pytest.mark.parametrize(
        "body",
        [
            b"5\r\nhelloXX0\r\n\r\n",
            b"5\r\nhello\r\nG\r\n",
            b"-1\r\n",
            b"f" * 17 + b"\r\n",
            b"5;\x00\r\nhello",
        ],
        ids=["too-long", "no-size", "negative", "huge", "NUL"],
    )
    def test_178_chunks_that_are_none(self, wire: Wire, body: bytes) -> None:
        """A body that cannot be read is cut short, and its connection reset."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(_CHUNKED + body)
            wait_for_the_end(connection)

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get())
            _, rest = head_and_rest(client)
            assert b"\r\n0\r\n" not in b"\r\n" + rest
        wire.instance.wait(lambda: wire.instance.received)
        assert [b"reset"] == wire.instance.received


class TestSurplus:
    """Bytes that nobody asked for."""

    @pytest.mark.parametrize("surplus", [b"X", b"\r\n", ok(b"evil"), b"0\r\n\r\n"], ids=repr)
    def test_179_bytes_behind_a_response_are_dropped_with_the_connection(
        self, wire: Wire, surplus: bytes
    ) -> None:
        """The next request gets its own answer, on another connection."""
        wire.instance.answer(ok() + surplus)
        with wire.client() as client:
            assert [b"ok", b"ok"] == [client.ask(wire.get()).body for _ in range(2)]
            client.finish()
            assert client.closed()
        assert 2 == wire.instance.connections

    def test_179_bytes_on_an_idle_connection_end_it(self, wire: Wire) -> None:
        """A response that nobody asked for answers nobody's request."""
        answered = threading.Event()

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(ok(f"answer {connection.instance.connections}".encode()))
            assert answered.wait(20)
            connection.send(ok(b"evil"))
            wait_for_the_end(connection)

        wire.instance.play(script)
        assert b"answer 1" == wire.ask(wire.get()).body
        answered.set()
        wire.instance.wait(lambda: wire.instance.received)
        assert b"answer 2" == wire.ask(wire.get()).body

    @pytest.mark.parametrize("what", ["response", "end"])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_179_191_an_idle_connection_that_has_something_to_say(
        self, wire: Wire, method: str, what: str
    ) -> None:
        """It is not used any more, even when the proxy reads the next request before it hears of that."""
        go_on = threading.Event()

        def script(connection: Connection) -> None:
            request = connection.request()
            connection.send(ok(request.target[-1:]))
            if connection.instance.connections == 1:
                assert go_on.wait(20)
                connection.send(ok(b"evil")) if what == "response" else connection.finish()
                connection.instance.received.append(b"said")
            connection.rest()

        wire.instance.play(script)
        with wire.client() as client:
            assert b"1" == client.ask(wire.get("/1")).body
            with stopped(wire.proxy.worker_pid):
                client.send(wire.get("/2", "Content-Length: 0", method=method))
                go_on.set()
                wire.instance.wait(lambda: wire.instance.received)
            assert b"2" == client.response().body
        assert 2 == wire.instance.connections


class TestNoResponse:
    """What could be read in two ways, or in none, is not passed on (RFC 9112 6.3)."""

    @pytest.mark.parametrize(
        "response",
        [
            ok().replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
            *(
                b"HTTP/1.1 200 OK\r\nContent-Length: " + value + b"\r\n\r\nhello"
                for value in (
                    *(b"5\r\nContent-Length: 5", b"5\r\nContent-Length: 6", b"5, 5", b"+5", b"-1", b"0x5"),
                    *(b"5 5", b"5_0", b"5\x0b", b"\xa05", b"", b"9" * 20),
                )
            ),
            *(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + value + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                for value in (
                    *(b"chunked, chunked", b"gzip", b"gzip, chunked", b"identity", b"xchunked", b""),
                    *(b"chunked\r\nTransfer-Encoding: chunked", b"chunked\x0b", b'"chunked"', b"chunked;x"),
                )
            ),
            _CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
        ],
        ids=lambda response: repr(response[15:60]),
    )
    def test_180_ambiguous_framing(self, wire: Wire, response: bytes) -> None:
        """It is a 502, and that connection is ended."""
        self._is_502(wire, response)

    @pytest.mark.parametrize(
        "response",
        [
            b"garbage\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 99 Low\r\n\r\n",
            b"HTTP/1.1 2000 High\r\n\r\n",
            b"HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 999 High\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 20x OK\r\n\r\n",
            b"HTTP/1.1  200 OK\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\n\n",
            b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
            b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200 + b"\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        ],
        ids=lambda response: repr(response[:45]),
    )
    def test_180_bad_heads(self, wire: Wire, response: bytes) -> None:
        """So is what is no head at all, too large a one, or one that nobody asked for."""
        self._is_502(wire, response)

    def _is_502(self, wire: Wire, response: bytes) -> None:
        def script(connection: Connection) -> None:
            connection.request()
            connection.send(response)
            wait_for_the_end(connection)

        wire.instance.play(script)
        answer = wire.ask(wire.get())
        assert 502 == answer.status
        assert b"instance_invalid" in answer.body
        wire.instance.wait(lambda: wire.instance.received)

    @pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nX: y\r\n"], ids=repr)
    @pytest.mark.parametrize("how", ["closed", "reset"])
    def test_188_192_an_answer_that_stops_in_its_head(self, wire: Wire, part: bytes, how: str) -> None:
        """Whatever there was of it, the client gets a 502, and the instance is not asked again."""

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(part)
            connection.reset() if how == "reset" else None

        wire.instance.play(script)
        assert 502 == wire.ask(wire.get()).status
        assert 1 == len(wire.instance.requests)


class TestHeads:
    """What becomes of a good head."""

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (b"200 OK\x0bX", b"200 OK X"),
            (b"200 a\x00b\x7fc\x1bd", b"200 a b c d"),
            (b"200 O\xe9\tK", b"200 O\xe9\tK"),
            (b"200 ", b"200 "),
            (b"200", b"200 "),
            *((line, line) for line in (b"299 Fine", b"599 Own", b"418 I'm a teapot", b"200 OK")),
        ],
        ids=repr,
    )
    def test_182_reasons_are_cleaned_and_statuses_pass(
        self, wire: Wire, line: bytes, expected: bytes
    ) -> None:
        """Nothing that may not stand in a status line reaches the client; any status up to 599 does."""
        wire.instance.answer(b"HTTP/1.1 " + line + b"\r\nContent-Length: 2\r\n\r\nok")
        response = wire.ask(wire.get())
        assert (b"HTTP/1.1 " + expected, b"ok") == (response.start_line, response.body)

    def test_244_a_date_is_added_and_no_via(self, wire: Wire) -> None:
        """Unless the instance has sent a Date, which then is the only one (RFC 9110 6.6.1)."""
        theirs = "Thu, 01 Jan 2026 00:00:00 GMT"

        def script(connection: Connection) -> None:
            connection.request()
            connection.send(ok())
            connection.request()
            connection.send(ok(b"", f"date: {theirs}"))
            connection.request()
            connection.send(ok(b"", f"date: {theirs}", "Connection: date"))

        wire.instance.play(script)
        with wire.client() as client:
            ours, passed, named = [client.ask(wire.get()) for _ in range(3)]
        date = (ours.one("date") or b"").decode()
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)
        assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 60
        assert [theirs.encode()] == passed.all("date")
        assert [theirs.encode()] != named.all("date") != []  # it was said to be for us alone
        assert [] == ours.all("via") + wire.instance.requests[0].all("via")

    def test_95_the_instance_cannot_replace_the_token(self, wire: Wire) -> None:
        """A cookie that would be the token is dropped, also nameless; the others pass one by one."""
        cookies = ("access_token=evil; Path=/", "=access_token=evil", "a=1", "b=2; Path=/")
        wire.instance.answer(ok(b"", *(f"Set-Cookie: {cookie}" for cookie in cookies)))
        kept = [b"a=1", f"b=2; Path=/jupyter/{wire.number}".encode()]
        assert kept == wire.ask(wire.get()).all("set-cookie")

    def test_65_expect_100_continue(self, wire: Wire) -> None:
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


class TestEarlyAnswers:
    """A final response in the middle of an upload (RFC 9112 9.6)."""

    _TOO_MUCH = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n%b\r\ntoo much"

    @pytest.mark.parametrize("closes", [True, False], ids=["and-closes", "and-stays"])
    @pytest.mark.parametrize("field", [b"", b"Connection: close\r\n"], ids=["", "close"])
    def test_183_it_reaches_a_client_that_still_sends(
        self, wire: Wire, field: bytes, *, closes: bool
    ) -> None:
        """In full, also when the instance closes on what it has not read, which is a reset."""
        over = threading.Event()

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.send(self._TOO_MUCH % field)
            if not closes:
                assert over.wait(20)

        wire.instance.play(script)
        with wire.client() as client, self._uploading(wire, client):
            response = client.response()
            over.set()
        assert (413, b"too much", b"close") == (response.status, response.body, response.one("connection"))

    def test_185_the_upload_stops_and_the_connection_is_not_kept(self, wire: Wire) -> None:
        """An instance that reads no more of a gigabyte loses its connection as soon as it has answered."""
        answered = threading.Event()

        def script(connection: Connection) -> None:
            if connection.request_head().method == b"GET":
                connection.send(ok())
                return
            connection.send(self._TOO_MUCH % b"")
            assert answered.wait(20)
            connection.instance.received.append(b"%d" % len(connection.rest()))
            assert connection.was_reset

        wire.instance.play(script)
        with wire.client() as client, self._uploading(wire, client):
            assert 413 == client.response().status
            answered.set()
            wire.instance.wait(lambda: wire.instance.received)
        assert int(wire.instance.received[0]) < 2**25
        assert 200 == wire.ask(wire.get()).status
        assert 2 == wire.instance.connections

    @contextmanager
    def _uploading(self, wire: Wire, client: RawClient) -> Iterator[None]:
        """Send a gigabyte meanwhile, or as much of it as the proxy takes."""
        client.send(wire.get("/x", f"Content-Length: {2**30}", method="POST"))
        sender = threading.Thread(target=client.send_in_pieces, args=(bytes(2**24), 2**16))
        sender.start()
        try:
            yield
        finally:
            client.sock.shutdown(socket.SHUT_RDWR)
            sender.join(20)
            assert not sender.is_alive()


class TestHttp10:
    """Clients of HTTP/1.0."""

    def test_186_chunks_are_taken_off(self, wire: Wire) -> None:
        """The body ends with the connection, also for a client that asks for keep-alive."""
        wire.instance.answer(_CHUNKED + b"2\r\nok\r\n3;x\r\nend\r\n0\r\nX-Sum: 1\r\n\r\n")
        for fields in ([], ["Connection: keep-alive"]):
            with wire.client() as client:
                client.send(http_1_0(wire, *fields))
                response, body = head_and_rest(client)
                assert (b"okend", False, [], [b"close"]) == (
                    body,
                    client.was_reset,
                    response.all("transfer-encoding"),
                    response.all("connection"),
                )

    def test_186_237_it_is_kept_alive_only_if_asked(self, wire: Wire) -> None:
        """With a length it can be, and is told so."""
        with wire.client() as client:
            for _ in range(2):
                response = client.ask(http_1_0(wire, "Connection: keep-alive"))
                assert (b"ok", b"keep-alive") == (response.body, response.one("connection"))
            assert b"close" == client.ask(http_1_0(wire)).one("connection")
            assert client.closed()


class TestAborts:
    """How this side gives up."""

    @pytest.mark.parametrize("how", ["end", "reset", "bad-chunk"])
    @pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
    def test_245_an_upload_cut_short_is_reset_at_the_instance(
        self, wire: Wire, framing: str, how: str
    ) -> None:
        """It sees neither the end of the request nor of its own connection's other half, but a reset."""

        def script(connection: Connection) -> None:
            connection.request_head()
            connection.through(b"hello")
            arrived.set()
            wait_for_the_end(connection)

        arrived = threading.Event()
        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get("/x", framing, method="PUT"))
            client.send(b"hello" if framing.startswith("Content") else b"5\r\nhello\r\n")
            assert arrived.wait(20)
            if how == "reset" or (how == "bad-chunk" and framing.startswith("Content")):
                client.reset()
            elif how == "end":
                client.finish()
            else:
                client.send(b"G\r\n")
                assert 400 == client.response().status
            wire.instance.wait(lambda: wire.instance.received)
        assert [b"reset"] == wire.instance.received


class TestBodies:
    """Bodies of any size stream through."""

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

    @pytest.mark.parametrize("size", [1, 7])
    def test_a_response_cut_anywhere(self, wire: Wire, size: int) -> None:
        """However the bytes of a response are cut into segments, the client gets the same."""
        data = _CHUNKED + b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"
        bounds = [*range(0, len(data), size), len(data)]

        def script(connection: Connection) -> None:
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.request()
            for begin, end in pairwise(bounds):
                connection.send(data[begin:end])
            connection.rest()

        wire.instance.play(script)
        response = wire.ask(wire.get())
        assert (b"hello!", [(b"X-Sum", b"1")]) == (response.body, response.trailers)


def _status_and(message: Message, field: str) -> tuple[int, list[bytes]]:
    return message.status, message.all(field)
