"""Where a request ends: bodies, pipelining, and requests that never end (RFC 9112 6, 7 and 9)."""

import socket
import threading
import time
from pathlib import Path

import pytest

from support.client import Message, get
from support.instance import Connection, Script, ok
from support.refusal import refused
from visa_jupyter_proxy.worker.downstream import LINGER_S
from wire.conftest import Wire

_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: visa.test\r\n\r\n"


def _post(wire: Wire, *fields: str, method: str = "POST") -> bytes:
    return wire.get("/x", *fields, method=method)


def _record(seen: bytearray, over: threading.Event) -> Script:
    """Make a script that only takes bytes, until the proxy has ended the connection."""

    def script(connection: Connection) -> None:
        while connection.more():
            seen.extend(connection.buffer)
            connection.buffer = b""
        over.set()

    return script


class TestContentLength:
    """RFC 9112 6.2 and 6.3."""

    @pytest.mark.parametrize(
        "fields",
        [
            ["Content-Length: 5", "Content-Length: 6"],
            ["Content-Length: 6", "X: y", "content-length: 5"],
            ["Content-Length: 5, 6"],
            ["Content-Length: 5", "Content-Length:"],
        ],
        ids=repr,
    )
    def test_35_several_lengths(self, wire: Wire, fields: list[str]) -> None:
        """One of them is a lie."""
        refused(wire, _post(wire, *fields) + b"hello!")

    @pytest.mark.parametrize(
        "fields",
        [["Content-Length: 5", "Content-Length: 5"], ["Content-Length: 5, 5"], ["Content-Length: 5,"]],
        ids=repr,
    )
    def test_36_equal_lengths(self, wire: Wire, fields: list[str]) -> None:
        """They could be collapsed; nobody needs them."""
        refused(wire, _post(wire, *fields) + b"hello")

    @pytest.mark.parametrize("length", ["010", "0000000010", "10"])
    def test_38_leading_zeros(self, wire: Wire, length: str) -> None:
        """A length is decimal, and the instance is told so without zeros."""
        with wire.client() as client:
            client.send(_post(wire, f"Content-Length: {length}") + b"0123456789" + wire.get("/next"))
            assert [200, 200] == [client.response().status for _ in range(2)]
        seen = wire.instance.requests[0]
        assert (b"0123456789", b"10") == (seen.body, seen.one("content-length"))

    @pytest.mark.parametrize("digits", [19, 20, 100, 5000])
    def test_39_lengths_of_many_digits(self, wire: Wire, digits: int) -> None:
        """Refused at once, however long the number is; also with zeros in front."""
        refused(wire, _post(wire, "Content-Length: " + "9" * digits))
        refused(wire, _post(wire, "Content-Length: " + "5".zfill(digits)) + b"hello")

    @pytest.mark.parametrize(
        "length",
        [
            "+5",
            "-5",
            "-0",
            "0x5",
            "5_0",
            "5 5",
            "5;",
            "5.0",
            "5e0",
            "",
            "five",
            '"5"',
            "\u00b2",
            "5\x005",
            "5\t5",
        ],
        ids=repr,
    )
    def test_35_what_is_no_length(self, wire: Wire, length: str) -> None:
        """Digits, and nothing else (RFC 9110 8.6): what Python's `int` takes besides is none."""
        refused(wire, _post(wire, f"Content-Length: {length}") + b"hello")

    @pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH"])
    def test_54_any_method_may_have_a_body(self, wire: Wire, method: str) -> None:
        """It is framed through; the length never stays without its body."""
        with wire.client() as client:
            client.send(_post(wire, "Content-Length: 10", method=method) + b"0123456789")
            assert client.response(to_head=method == "HEAD").status == 200
            assert client.ask(wire.get("/next")).status == 200
        first, second = wire.instance.requests
        assert (b"0123456789", b"10") == (first.body, first.one("content-length"))
        assert wire.path("/next").encode() == second.target

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_54_a_length_of_nothing(self, wire: Wire, method: str) -> None:
        """`Content-Length: 0` is passed on, and no body is waited for."""
        assert wire.ask(_post(wire, "Content-Length: 0", method=method)).status == 200
        assert b"0" == wire.instance.requests[0].one("content-length")


class TestTransferEncoding:
    """RFC 9112 6.1."""

    @pytest.mark.parametrize("coding", ["gzip, chunked", "identity, chunked", "x,chunked"])
    def test_41_other_codings(self, wire: Wire, coding: str) -> None:
        """Where such a body ends is known, but not what it means: 501, as RFC 9112 6.1 says."""
        refused(wire, _post(wire, f"Transfer-Encoding: {coding}") + b"0\r\n\r\n", 501)

    @pytest.mark.parametrize(
        "coding",
        [
            *("gzip", "identity", "chunked, gzip", "chunked, chunked", "chunked,", "", "x", "chunked;q=1"),
            *('"chunked"', "chunked chunked"),
        ],
        ids=repr,
    )
    def test_41_chunked_is_not_the_last_coding(self, wire: Wire, coding: str) -> None:
        """Then nobody can say where the body ends: 400 (RFC 9112 6.3)."""
        refused(wire, _post(wire, f"Transfer-Encoding: {coding}") + b"0\r\n\r\n")

    @pytest.mark.parametrize(
        "field", ["TrAnSFer-EnCODinG: cHuNkeD", "transfer-encoding:chunked", "Transfer-Encoding:\tCHUNKED  "]
    )
    def test_42_any_spelling(self, wire: Wire, field: str) -> None:
        """Names and codings have no case; the body is the same."""
        assert wire.ask(_post(wire, field) + b"5\r\nhello\r\n0\r\n\r\n").status == 200
        seen = wire.instance.requests[0]
        assert (b"hello", b"chunked", None) == (
            seen.body,
            seen.one("transfer-encoding"),
            seen.one("content-length"),
        )

    @pytest.mark.parametrize("method", ["DELETE", "OPTIONS", "GET", "PATCH", "HEAD", "POST", "FOO"])
    def test_53_any_method_may_have_a_chunked_body(self, wire: Wire, method: str) -> None:
        """The instance sees one request with the same body, whatever is in it; trailers that may pass do."""
        head = _post(wire, "Transfer-Encoding: chunked", method=method)
        body = b"%x;ext=1\r\n%b\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(_SMUGGLED), _SMUGGLED)
        with wire.client() as client:
            client.send(head + body)
            assert client.response(to_head=method == "HEAD").status == 200
            assert client.ask(wire.get("/next")).status == 200
        first, second = wire.instance.requests
        assert (method.encode(), _SMUGGLED + b"!") == (first.method, first.body)
        assert [(b"X-Sum", b"1")] == first.trailers
        assert wire.path("/next").encode() == second.target


class TestChunks:
    """RFC 9112 7.1."""

    @pytest.mark.parametrize("early", [True, False], ids=["with the head", "behind the head"])
    @pytest.mark.parametrize(
        "chunk",
        [
            *(
                b"0x5",
                b"+5",
                b"-5",
                b"5_0",
                b" 5",
                b"5 ",
                b"\t5",
                b"5\t",
                b"",
                b"G",
                b"5 5",
                b"5,",
                b"0x0",
                b"-0",
            ),
            *(b"0" * 16 + b"5", b"ffffffffffffffff", b"fffffffffffffffff", b"7fffffffffffffff", b"1" * 17),
            *(b"\xb2", b"\xd9\xa5", b"5\x00", b"5\x0b", b"5\xa0"),
        ],
        ids=repr,
    )
    def test_45_bad_chunk_sizes(self, wire: Wire, chunk: bytes, early: bool) -> None:
        """400, and what the instance has of the request ends without a last chunk."""
        self._refused(wire, chunk + b"\r\nhello\r\n0\r\n\r\n", early=early)

    @pytest.mark.parametrize("early", [True, False], ids=["with the head", "behind the head"])
    @pytest.mark.parametrize(
        "chunk",
        [
            b"2\r\r;a\r\n02\r\n41\r\n0\r\n\r\nGET /bad HTTP/1.1\r\n\r\n",
            b"41;a=b\r\rXXX\r\n\r\n0\r\n\r\n",
            b"5;\x00x\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5;a\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5;a\x0bb\r\nhello\r\n0\r\n\r\n",
            b"5 a\r\nhello\r\n0\r\n\r\n",
            b"5;\r\nhello\r\n0\r\n\r\n",
            b"5;a=\r\nhello\r\n0\r\n\r\n",
            b'5;a="b\r\nhello\r\n0\r\n\r\n',
            b"5;a b\r\nhello\r\n0\r\n\r\n",
        ],
        ids=repr,
    )
    def test_47_bad_extensions(self, wire: Wire, chunk: bytes, early: bool) -> None:
        """Whoever takes another line end for one, or a quote for open, would see other chunks."""
        self._refused(wire, chunk, early=early)

    @pytest.mark.parametrize("early", [True, False], ids=["with the head", "behind the head"])
    @pytest.mark.parametrize(
        "chunk",
        [
            b"5\r\nhelloXX0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"0\r\nX:POST / HTTP/1.1\r\nno field\r\n\r\n",
            b"0\r\n X: y\r\n\r\n",
            b"0\r\nX : y\r\n\r\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\nX: \x00\r\n\r\n",
            b"0\n\r\n",
            b"0\r\n\n",
        ],
        ids=repr,
    )
    def test_48_bad_ends_of_chunks(self, wire: Wire, chunk: bytes, early: bool) -> None:
        """CR LF ends the data, each trailer, and the body (GHSA-vqfr-h8mv-ghfj)."""
        self._refused(wire, chunk, early=early)

    @pytest.mark.parametrize("size", [b"5", b"05", b"0000000000000005"])
    def test_45_good_chunk_sizes(self, wire: Wire, size: bytes) -> None:
        """Leading zeros do not make them octal."""
        body = b"0010\r\n0123456789abcdef\r\n" + size + b"\r\nhello\r\n000\r\n\r\n"
        with wire.client() as client:
            client.send(_post(wire, "Transfer-Encoding: chunked") + body + wire.get("/next"))
            assert [200, 200] == [client.response().status for _ in range(2)]
        assert b"0123456789abcdefhello" == wire.instance.requests[0].body

    def test_50_one_large_extension(self, wire: Wire) -> None:
        """64 KiB of it are refused, also when they come bit by bit and never end."""
        self._refused(wire, b"5;a=" + b"x" * 65536 + b"\r\nhello\r\n0\r\n\r\n", early=False)
        self._refused(wire, b"5;" + b"x" * 65536, early=False)

    def test_50_many_small_extensions(self, wire: Wire) -> None:
        """A hundred thousand chunks with one each: the budget ends it, memory stays (CVE-2023-39326)."""
        before = _resident(wire)
        seen = self._refused(wire, b"1;a=b\r\nx\r\n" * 100_000, early=False)
        assert len(seen) < 64 * 1024, "most of it was passed on"
        assert _resident(wire) - before < 8 * 2**20

    def test_50_many_chunks(self, wire: Wire) -> None:
        """A hundred thousand chunks without extensions are a body like any other."""
        data = _post(wire, "Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
        assert wire.ask(data).status == 200
        assert b"x" * 100_000 == wire.instance.requests[0].body

    @pytest.mark.parametrize("line", [b"X:" + b" " * 4000 + b"\0", b"X:" + b" a" * 2000 + b"\0", b" " * 4000])
    def test_51_trailers_are_cheap_to_refuse(self, wire: Wire, line: bytes) -> None:
        """However they are made up, looking at them takes no longer than their bytes."""
        self._refused(wire, b"0\r\n" + line + b"\r\n\r\n", early=False)

    def test_51_trailers_never_become_fields(self, wire: Wire) -> None:
        """Those of framing, routing and identity are dropped; the next request is not touched either."""
        evil = (
            "Content-Length: 5",
            "Authorization: Bearer E",
            "Host: b",
            "X-Forwarded-For: 1",
            "Cookie: a=1",
        )
        more = ("Transfer-Encoding: chunked", "X_Forwarded_For: 1", "Content_Length: 5", "X-Sum: 1")
        trailers = "\r\n".join([*evil, *more, "", ""]).encode()
        with wire.client() as client:
            client.send(_post(wire, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n" + trailers)
            assert client.response().status == 200
            assert client.ask(wire.get("/next")).status == 200
        first, second = wire.instance.requests
        assert (b"hello", [(b"X-Sum", b"1")]) == (first.body, first.trailers)
        for seen in (first, second):
            assert b"visa.test" == seen.one("host")
            assert (None, b"127.0.0.1") == (seen.one("authorization"), seen.one("x-forwarded-for"))
            assert seen.one("content-length") is None

    @staticmethod
    def _refused(wire: Wire, body: bytes, *, early: bool) -> bytes:
        """Send a bad body; give what the instance got of the request, which must not be complete."""
        seen, over = bytearray(), threading.Event()
        wire.instance.play(_record(seen, over))
        contacted = wire.instance.connections
        with wire.client() as client:
            client.send(_post(wire, "Transfer-Encoding: chunked") + (body if early else b"3\r\nfoo\r\n"))
            if not early:
                wire.instance.wait(lambda: seen.endswith(b"3\r\nfoo\r\n"))
                client.send_in_pieces(body, 65536)
            assert client.response().status in (400, 431)
            assert client.closed()
        if wire.instance.connections > contacted:
            assert over.wait(20), "the instance still waits"
        assert b"\r\n0\r\n" not in seen
        return bytes(seen)


class TestPipelining:
    """RFC 9112 9.3.2."""

    def test_56_answers_come_in_order(self, wire: Wire) -> None:
        """Three requests in one segment: a slow one, one without a token, and one more."""
        may_answer = threading.Event()

        def script(connection: Connection) -> None:
            while True:
                target = connection.request().target
                assert may_answer.wait(20)
                connection.send(ok(target))

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get("/slow") + get(wire.path("/2")) + wire.get("/3"))
            wire.instance.wait(lambda: wire.instance.requests)
            may_answer.set()
            responses = [client.response() for _ in range(3)]
        assert [200, 401, 200] == [response.status for response in responses]
        assert [wire.path("/slow").encode(), wire.path("/3").encode()] == [
            responses[0].body,
            responses[2].body,
        ]
        assert 2 == len(wire.instance.requests)

    def test_56_many_requests(self, wire: Wire) -> None:
        """Two hundred at once, with and without bodies, are answered one by one."""
        posts = [
            _post(wire, "Content-Length: 5").replace(b"/x ", b"/%d " % n, 1) + b"hello" for n in range(100)
        ]
        chunked = b"5\r\nhello\r\n0\r\n\r\n"
        for n in range(100):
            head = _post(wire, "Transfer-Encoding: chunked")
            posts.append(head.replace(b"/x ", b"/%d " % (100 + n), 1) + chunked)
        with wire.client() as client:
            client.send(b"".join(posts))
            assert [200] * 200 == [client.response().status for _ in posts]
        assert [wire.path(f"/{n}").encode() for n in range(200)] == [r.target for r in wire.instance.requests]
        assert {b"hello"} == {request.body for request in wire.instance.requests}

    @pytest.mark.parametrize("when", ["at once", "meanwhile"])
    def test_57_nothing_follows_a_close(self, wire: Wire, when: str) -> None:
        """What comes behind `Connection: close` is no request: a whole answer, and the end.

        The client's window is small: were the connection closed with bytes of the client unread, the
        kernel would reset it, and drop what the client has not got yet (RFC 9112 9.6).
        """
        content = bytes(2**24)
        may_answer = threading.Event()

        def script(connection: Connection) -> None:
            connection.request()
            assert may_answer.wait(20)
            connection.send(ok(content))
            connection.rest()

        wire.instance.play(script)
        behind = (b"Invalid\r\n\r\n" + wire.get("/behind")) * 1000
        with wire.client() as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
            client.send(wire.get("/x", "Connection: close") + (behind if when == "at once" else b""))
            wire.instance.wait(lambda: wire.instance.requests)
            client.send(behind)
            may_answer.set()
            response = client.response()
            assert (200, content, b"close") == (response.status, response.body, response.one("connection"))
            assert client.closed()
        assert 1 == len(wire.instance.requests)

    @pytest.mark.parametrize(
        "ending", ["Connection: close", "Connection: x, close", "Connection: x\r\nConnection: CLOSE"]
    )
    def test_57_a_close_in_any_place(self, wire: Wire, ending: str) -> None:
        """It is found in every `Connection` field, in any case."""
        with wire.client() as client:
            client.send(wire.get("/x", ending) + wire.get("/behind"))
            assert client.response().status == 200
            assert client.closed()
        assert 1 == len(wire.instance.requests)

    def test_62_the_body_of_a_refused_request(self, wire: Wire) -> None:
        """It is never read as a request, whether it comes with the head or behind it."""
        body = get(wire.path("/smuggled"), token=wire.token)
        for fields in ([f"Content-Length: {len(body)}"], ["Transfer-Encoding: chunked"]):
            head = get(wire.path(), *fields, method="POST")
            sent = body if "Content" in fields[0] else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            for pieces in ([head + sent + wire.get("/real")], [head, sent + wire.get("/real")]):
                with wire.client() as client:
                    client.send(pieces[0])
                    first = client.response()
                    client.send_in_pieces(b"".join(pieces[1:]), 65536)
                    assert 401 == first.status
                    rest = client.rest()
                assert rest.count(b"HTTP/1.1 ") <= 1, "the body was answered"
        assert not {wire.path("/smuggled").encode()} & {request.target for request in wire.instance.requests}

    def test_62_a_real_request_behind_a_refused_one(self, wire: Wire) -> None:
        """Without a body the connection goes on."""
        with wire.client() as client:
            assert 401 == client.ask(get(wire.path(), "Content-Length: 0", method="POST")).status
            assert 200 == client.ask(wire.get("/real")).status

    def test_56_both_connections_are_kept_alive(self, wire: Wire) -> None:
        """Ten requests of one client use one connection to the instance."""
        with wire.client() as client:
            for _ in range(10):
                assert client.ask(wire.get()).status == 200
        assert 1 == wire.instance.connections


class TestEnds:
    """Messages that are not completed (RFC 9112 8)."""

    @pytest.mark.parametrize(
        ("framing", "body"),
        [
            ("Content-Length: 10", b"hello"),
            ("Content-Length: 10", b""),
            ("Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
            ("Transfer-Encoding: chunked", b"5\r\nhel"),
            ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n"),
            ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nX: y\r\n"),
            ("Transfer-Encoding: chunked", b""),
        ],
        ids=repr,
    )
    def test_59_a_body_that_is_cut_short(self, wire: Wire, framing: str, body: bytes) -> None:
        """After FIN no more can come: the request is aborted at the instance, never completed."""
        seen, over = bytearray(), threading.Event()
        wire.instance.play(_record(seen, over))
        payload = b"hel" if b"hel" in body else b""
        with wire.client() as client:
            client.send(_post(wire, framing) + body)
            wire.instance.wait(lambda: b"\r\n\r\n" in seen and payload in seen)
            client.finish()
            assert client.rest()[:12] == b"HTTP/1.1 400"
        assert over.wait(20), "the instance still waits"
        assert b"\r\n0\r\n" not in seen

    def test_45_62_a_bad_body_behind_an_early_refusal(self, wire: Wire) -> None:
        """In the same read as the head it belongs to: one answer, and nothing after it."""
        data = b"POST /nope HTTP/1.1\r\nHost: visa.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        with wire.client() as client:
            assert client.ask(data).status == 404
            assert client.closed()
        assert "write_eof" not in wire.proxy.log.read_text()

    @pytest.mark.parametrize("part", [1, 10, 40, -3, -1])
    def test_59_a_head_that_is_cut_short(self, wire: Wire, part: int) -> None:
        """It is no request: nobody behind us hears of it."""
        asked = len(wire.api.requests)
        with wire.client() as client:
            client.send(wire.get()[:part])
            client.finish()
            assert client.rest()[:12] in (b"", b"HTTP/1.1 400")
        assert (asked, 0) == (len(wire.api.requests), wire.instance.connections)

    @pytest.mark.parametrize("framing", ["length", "chunked", "until close"])
    def test_60_a_client_that_has_nothing_more_to_say(self, wire: Wire, framing: str) -> None:
        """After its FIN it still gets the whole response, and then the end (RFC 9112 9.6)."""
        heads = {
            "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
            "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "until close": b"HTTP/1.1 200 OK\r\n\r\n",
        }
        may_answer, may_end = threading.Event(), threading.Event()

        def script(connection: Connection) -> None:
            connection.request()
            assert may_answer.wait(20)
            pieces = (
                (b"5\r\nhello\r\n", b"5\r\nworld\r\n0\r\n\r\n")
                if framing == "chunked"
                else (b"hello", b"world")
            )
            connection.send(heads[framing] + pieces[0])
            assert may_end.wait(20)
            connection.send(pieces[1])
            if framing != "until close":
                connection.rest()

        wire.instance.play(script)
        with wire.client() as client:
            client.send(wire.get())
            client.finish()
            wire.instance.wait(lambda: wire.instance.requests)
            may_answer.set()
            client.through(b"hello")
            may_end.set()
            assert b"world" in client.rest()

    @pytest.mark.slow
    def test_60_243_silence_behind_the_end(self, wire: Wire) -> None:
        """Half a minute without progress, before a response or in the middle of one, ends both sides.

        A client that has sent FIN may be gone: nothing but silence would ever tell. No setting shortens this.
        """
        ended: dict[bytes, float] = {}

        def script(connection: Connection) -> None:
            target = connection.request().target
            if target.endswith(b"/events"):
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            connection.sock.settimeout(3 * LINGER_S)
            connection.rest()
            ended[target] = time.monotonic()

        wire.instance.play(script)
        with wire.client() as waiting, wire.client() as listening:
            waiting.send(wire.get("/nothing"))
            listening.send(wire.get("/events"))
            listening.through(b"data: 1")
            began = time.monotonic()
            for client in (waiting, listening):
                client.finish()
                client.sock.settimeout(3 * LINGER_S)
            assert waiting.closed()
            assert b"\r\n0\r\n" not in listening.rest()
        wire.instance.wait(lambda: len(ended) == 2)
        # Deadlines are looked at once a second.
        assert all(at - began > LINGER_S - 2 for at in ended.values())

    def test_60_pipelined_requests_before_the_end(self, wire: Wire) -> None:
        """A complete request behind the first is answered too, or the connection ends; never half of it."""
        with wire.client() as client:
            client.send(wire.get("/1") + wire.get("/2"))
            client.finish()
            assert client.response().status == 200
            assert client.rest().count(b"HTTP/1.1 ") <= 1

    def test_60_both_halves_closed(self, wire: Wire) -> None:
        """A client that says nothing and ends is ended."""
        with wire.client() as client:
            client.finish()
            assert client.closed()


class TestSegments:
    """TCP knows no messages: however bytes are cut, they mean the same."""

    @pytest.fixture
    def requests(self, wire: Wire) -> dict[str, bytes]:
        """Write valid requests of every kind."""
        absolute = get(f"http://visa.test{wire.path()}", token=wire.token)
        trailers = b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"
        return {
            "GET": wire.get(),
            "length": _post(wire, "Content-Length: 5") + b"hello",
            "chunks": _post(wire, "Transfer-Encoding: chunked") + trailers,
            "absolute form": absolute,
            "empty lines": b"\r\n\r\n" + wire.get(),
            "HTTP/1.0": wire.get("/x", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        }

    @pytest.mark.parametrize("kind", ["GET", "length", "chunks", "absolute form", "empty lines", "HTTP/1.0"])
    def test_63_cut_in_two_at_every_byte(self, wire: Wire, requests: dict[str, bytes], kind: str) -> None:
        """The instance gets the same each time, and so does the client."""
        data = requests[kind]
        with wire.client() as client:
            expected = _shown(client.ask(data))
            for cut in range(1, len(data)):
                client.send(data[:cut])
                client.send(data[cut:])
                assert expected == _shown(client.response()), cut
        assert 1 == len({_without_id(request.head) + request.body for request in wire.instance.requests})
        assert len(data) == len(wire.instance.requests)

    @pytest.mark.parametrize("kind", ["GET", "length", "chunks", "absolute form", "empty lines", "HTTP/1.0"])
    def test_63_byte_by_byte(self, wire: Wire, requests: dict[str, bytes], kind: str) -> None:
        """One byte in each segment."""
        data = requests[kind]
        with wire.client() as client:
            expected = _shown(client.ask(data))
            client.send_in_pieces(data, 1)
            assert expected == _shown(client.response())
        first, second = wire.instance.requests
        assert _without_id(first.head) + first.body == _without_id(second.head) + second.body
        assert first.trailers == second.trailers


def _shown(response: Message) -> tuple[int, bytes, bytes | None]:
    return response.status, response.body, response.one("connection")


def _without_id(head: bytes) -> bytes:
    """Drop the field that is new for each request."""
    return b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"X-Request-Id"))


def _resident(wire: Wire) -> int:
    """Give the worker's memory, in bytes."""
    for line in Path(f"/proc/{wire.proxy.worker_pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")
