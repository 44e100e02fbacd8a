"""Exchanges as conversations: what arrives on one side, and what must be sent on the other."""

import base64
import hashlib
import math
from collections.abc import Callable

import pytest

from support.conversation import FILES, Conversation, conversation, granted
from visa_jupyter_proxy.errors import (
    InstanceInvalid,
    InstanceTimeout,
    InstanceUnreachable,
    NoToken,
    ProxyError,
    RequestTimeout,
    VisaTimeout,
)
from visa_jupyter_proxy.worker.exchange import Closing, Phase

_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPT = base64.b64encode(
    hashlib.sha1(_KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
).decode()
_UPGRADE = (
    "Host: visa",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {_KEY.decode()}",
)


def _get(talk: Conversation, *fields: str, method: str = "GET", version: str = "1.1") -> None:
    """Let a plain request arrive, and go on to the instance; what it got is not looked at."""
    talk.client(f"{method} /jupyter/7/x HTTP/{version}", "Host: visa", *fields, "", "")
    talk.connected()
    _forget_the_request(talk)


def _forget_the_request(talk: Conversation) -> None:
    assert talk.wire is not None
    assert talk.wire.sent
    talk.wire.sent.clear()


def _upgrade(talk: Conversation, target: str = "/jupyter/7/api/kernels/k/channels") -> None:
    talk.client(f"GET {target} HTTP/1.1", *_UPGRADE, "", "")
    talk.connected()
    _forget_the_request(talk)


def _ends_with(error: type[ProxyError], talk: Conversation) -> None:
    """Say that the exchange has ended for this reason, and the instance's connection with it."""
    assert talk.is_over
    assert isinstance(talk.exchange.error, error)
    assert not talk.upstream.is_usable


class TestRequests:
    """What the instance gets of a request."""

    def test_a_get_goes_out_when_there_is_a_connection_and_the_answer_comes_back(self) -> None:
        """The plain case: both connections are free for the next request afterwards."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/lab?x=%20 HTTP/1.1", "Host: visa", "Accept: */*", "", "")
            talk.connected()
            talk.upstream_gets("GET /jupyter/7/lab?x=%20 HTTP/1.1", "accept: */*", "host: visa", "", "")
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 5", "X-A: 1", "", "hello")
            talk.client_gets("HTTP/1.1 200 OK", "content-length: 5", "x-a: 1", "", "hello")
            assert talk.kept
            assert (200, None, 5) == (talk.exchange.status, talk.exchange.error, talk.exchange.bytes_down)

    def test_what_the_proxy_vouches_for_stands_in_both_heads(self) -> None:
        """Who the client is goes up, the id of the request goes both ways, and a date is added (244)."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/ HTTP/1.1", "Host: visa:81", "X-Forwarded-For: 6.6.6.6", "", "")
            talk.connected()
            talk.upstream_gets(
                "GET /jupyter/7/ HTTP/1.1",
                "host: visa:81",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: visa:81",
                "x-forwarded-proto: http",
                "x-real-ip: 192.0.2.7",
                "x-request-id: request-1",
                "",
                "",
            )
            talk.instance("HTTP/1.1 204 No Content", "", "")
            talk.client_gets(
                "HTTP/1.1 204 No Content",
                "date: Thu, 01 Jan 2026 00:00:00 GMT",
                "x-request-id: request-1",
                "",
                "",
            )

    def test_a_body_that_arrives_before_the_upstream_is_held_and_then_sent_first(self) -> None:
        """What comes early is kept, and the client is paused meanwhile: memory is bounded by one read."""
        with conversation() as talk:
            talk.client("POST /jupyter/7/api HTTP/1.1", "Host: visa", "Content-Length: 10", "", "hello")
            assert {"client"} == talk.paused
            talk.connected()
            talk.upstream_gets(
                "POST /jupyter/7/api HTTP/1.1", "content-length: 10", "host: visa", "", "hello"
            )
            assert set() == talk.paused
            talk.client(b"world")
            talk.upstream_gets(b"world")
            assert 10 == talk.exchange.bytes_up

    def test_a_request_without_a_body_pauses_nobody(self) -> None:
        """There is nothing to hold."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/ HTTP/1.1", "Host: visa", "", "")
            assert set() == talk.paused

    def test_a_chunked_body_is_encoded_anew_held_or_not(self) -> None:
        """Neither sizes nor extensions of the client reach the instance."""
        with conversation() as talk:
            talk.client(
                "PUT /jupyter/7/x HTTP/1.1",
                "Host: visa",
                "Transfer-Encoding: Chunked",
                "",
                "3;x=y\r\nabc\r\n",
            )
            talk.connected()
            talk.upstream_gets(
                "PUT /jupyter/7/x HTTP/1.1", "host: visa", "transfer-encoding: chunked", "", "3\r\nabc\r\n"
            )
            talk.client(b"002\r\nde\r\n1\r\nf\r\n0\r\n")
            talk.upstream_gets(b"3\r\ndef\r\n")
            before = talk.exchange.request_is_complete
            talk.client(b"X-Sum: 1\r\nContent-Length: 5\r\nX_Forwarded_For: 1\r\n\r\n")
            talk.upstream_gets(b"0\r\nX-Sum: 1\r\n\r\n")
            assert (False, True) == (before, talk.exchange.request_is_complete)

    def test_a_whole_chunked_body_that_was_held_is_ended_too(self) -> None:
        """The end that came early is sent behind the body that came early."""
        with conversation() as talk:
            talk.client(
                "PUT /jupyter/7/x HTTP/1.1",
                "Host: visa",
                "Transfer-Encoding: chunked",
                "",
                "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
            )
            talk.connected()
            talk.upstream_gets(
                "PUT /jupyter/7/x HTTP/1.1",
                "host: visa",
                "transfer-encoding: chunked",
                "",
                "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
            )

    @pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PATCH", "FOO"])
    def test_53_239_any_method_may_have_a_body(self, method: str) -> None:
        """A body that looks like a request stays a body (RFC 9110 9.3.1)."""
        smuggled = "GET /jupyter/7/smuggled HTTP/1.1\r\n\r\n"
        with conversation() as talk:
            talk.client(
                f"{method} /jupyter/7/x HTTP/1.1",
                "Host: visa",
                "Transfer-Encoding: chunked",
                "",
                f"{len(smuggled):x}\r\n{smuggled}\r\n0\r\n\r\n",
            )
            talk.connected()
            talk.upstream_gets(
                f"{method} /jupyter/7/x HTTP/1.1",
                "host: visa",
                "transfer-encoding: chunked",
                "",
                f"{len(smuggled):x}\r\n{smuggled}\r\n0\r\n\r\n",
            )

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_54_a_get_with_a_length_keeps_its_body(self, method: str) -> None:
        """Never a length without the bytes."""
        with conversation() as talk:
            talk.client(f"{method} /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 3", "", "abc")
            talk.connected()
            talk.upstream_gets(
                f"{method} /jupyter/7/x HTTP/1.1", "content-length: 3", "host: visa", "", "abc"
            )

    def test_241_another_upgrade_is_ignored_and_its_body_arrives_whole(self) -> None:
        """`Upgrade: h2c` is an offer, which nobody has to take (RFC 9110 7.8)."""
        with conversation() as talk:
            talk.client(
                "POST /jupyter/7/x HTTP/1.1",
                "Host: visa",
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAA",
                "Content-Length: 3",
                "",
                "abc",
            )
            talk.connected()
            talk.upstream_gets("POST /jupyter/7/x HTTP/1.1", "content-length: 3", "host: visa", "", "abc")

    def test_an_upgrade_on_a_route_without_ws_goes_on_as_plain_http(self) -> None:
        """The route decides; a 101 to it is then one that nobody asked for (144, 152)."""
        with conversation(FILES) as talk:
            talk.client("GET /visafs/7/x HTTP/1.1", *_UPGRADE, "", "")
            talk.connected()
            talk.upstream_gets(
                "GET /x HTTP/1.1",
                "host: visa",
                f"sec-websocket-key: {_KEY.decode()}",
                "sec-websocket-version: 13",
                "",
                "",
            )
            talk.instance("HTTP/1.1 101 X", "Connection: Upgrade", "Upgrade: websocket", "", "")
            _ends_with(InstanceInvalid, talk)
            assert 502 == talk.exchange.status
            talk._to_client.clear()


class TestResponses:
    """How a response is framed for the client (RFC 9112 6)."""

    def test_a_chunked_response_is_encoded_anew_with_its_trailers(self) -> None:
        """The chunks of one read come in one piece; forbidden trailers are dropped (51)."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "1;x\r\na\r\n1\r\nb\r\n")
            talk.client_gets("HTTP/1.1 200 OK", "transfer-encoding: chunked", "", "2\r\nab\r\n")
            talk.instance(b"0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n")
            talk.client_gets(b"0\r\nX-Sum: 1\r\n\r\n")
            assert talk.kept

    def test_176_a_body_that_ends_with_the_connection_is_chunked_for_the_client(self) -> None:
        """So that its end can be told from an abort."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 200 OK", "", "some")
            talk.client_gets("HTTP/1.1 200 OK", "transfer-encoding: chunked", "", "4\r\nsome\r\n")
            talk.instance_closes()
            talk.client_gets(b"0\r\n\r\n")
            assert Closing.KEEP is talk.closing
            assert not talk.upstream_is_kept

    def test_186_an_http_1_0_client_gets_no_chunks(self) -> None:
        """The end of the connection is the end of the body; nothing is kept alive unasked."""
        with conversation() as talk:
            _get(talk, version="1.0")
            talk.instance("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "2\r\nab\r\n")
            talk.client_gets("HTTP/1.1 200 OK", "connection: close", "", "ab")
            talk.instance(b"0\r\nX: 1\r\n\r\n")
            assert Closing.CLOSE is talk.closing
            assert talk.upstream_is_kept

    def test_186_an_http_1_0_client_that_asks_for_keep_alive_cannot_have_it_without_a_length(self) -> None:
        """The body ends with the connection whatever was asked for."""
        with conversation() as talk:
            _get(talk, "Connection: keep-alive", version="1.0")
            talk.instance("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "0\r\n\r\n")
            talk.client_gets("HTTP/1.1 200 OK", "connection: close", "", "")
            assert Closing.CLOSE is talk.closing

    def test_237_an_http_1_0_client_is_kept_alive_when_it_asks(self) -> None:
        """And told so, as RFC 9112 9.3 wants it."""
        with conversation() as talk:
            _get(talk, "Connection: keep-alive", version="1.0")
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 2", "", "ab")
            talk.client_gets("HTTP/1.1 200 OK", "connection: keep-alive", "content-length: 2", "", "ab")
            assert talk.kept

    def test_86_a_client_that_closes_is_told_so(self) -> None:
        """Whatever the instance says."""
        with conversation() as talk:
            _get(talk, "Connection: close")
            talk.instance("HTTP/1.1 200 OK", "Connection: keep-alive", "Content-Length: 0", "", "")
            talk.client_gets("HTTP/1.1 200 OK", "connection: close", "content-length: 0", "", "")
            assert Closing.CLOSE is talk.closing
            assert talk.upstream_is_kept

    @pytest.mark.parametrize(
        "head",
        [("HTTP/1.1 200 OK", "Connection: close"), ("HTTP/1.0 200 OK", "X-A: 1")],
        ids=["close", "1.0"],
    )
    def test_195_an_instance_that_closes_is_no_matter_of_the_client(self, head: tuple[str, str]) -> None:
        """Its connection is not used again, the client's is."""
        with conversation() as talk:
            _get(talk)
            talk.instance(*head, "Content-Length: 0", "", "")
            talk._to_client.clear()
            assert Closing.KEEP is talk.closing
            assert not talk.upstream_is_kept

    @pytest.mark.parametrize(
        ("limits", "idle_s"),
        [
            ("timeout=5", 4),
            ("timeout=5, max=100", 4),
            ("max=1, timeout = 3", 2),
            ("Timeout=3600", 60),
            ("timeout=x", 60),
            ("timeout=1", 0),
            ("timeout=0", 0),
            ("timeout=5, max=0", 0),
        ],
    )
    def test_195_an_instance_says_how_long_it_keeps_a_connection(self, limits: str, idle_s: int) -> None:
        """A second less is used, at most ours; a connection without a future is not kept."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/ HTTP/1.1", "Host: visa", "", "")
            talk.connected()
            _forget_the_request(talk)
            talk.instance("HTTP/1.1 200 OK", f"Keep-Alive: {limits}", "Content-Length: 0", "", "")
            talk.client_gets("HTTP/1.1 200 OK", "content-length: 0", "", "")
            assert (idle_s > 0) == talk.upstream_is_kept
            if idle_s:
                assert talk.now + idle_s == talk.upstream.deadline
                talk.now += idle_s
                assert talk.pool.idle(talk.upstream.address, repeatable=True) is None

    def test_195_an_instance_says_how_many_requests_it_takes(self) -> None:
        """After one more, the connection is not kept unless the instance says so anew."""
        with conversation() as talk:
            for limits in (("Keep-Alive: max=1",), ()):
                talk.client("GET /jupyter/7/ HTTP/1.1", "Host: visa", "", "")
                talk.connected() if limits else talk.connected_to_an_idle_one()
                _forget_the_request(talk)
                talk.instance("HTTP/1.1 200 OK", *limits, "Content-Length: 0", "", "")
                talk.client_gets("HTTP/1.1 200 OK", "content-length: 0", "", "")
                assert bool(limits) == talk.upstream.is_usable

    def test_174_the_answer_to_head_has_a_length_and_no_body(self) -> None:
        """It ends with its head; surplus bytes are dropped, and the connection with them."""
        with conversation() as talk:
            _get(talk, method="HEAD")
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 1234", "", "surplus")
            talk.client_gets("HTTP/1.1 200 OK", "content-length: 1234", "", "")
            assert Closing.KEEP is talk.closing
            assert not talk.upstream_is_kept

    @pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_no_content_ends_with_the_head(self, method: str, status: str) -> None:
        """RFC 9112 6.3: no body, whatever the fields say; 204 has no length either (RFC 9110 8.6)."""
        with conversation() as talk:
            _get(talk, method=method)
            talk.instance(f"HTTP/1.1 {status}", "ETag: 1", "", "")
            talk.client_gets(f"HTTP/1.1 {status}", "etag: 1", "", "")
            assert talk.kept

    def test_a_304_may_tell_the_length_of_what_was_not_sent(self) -> None:
        """RFC 9110 8.6; a 204 may not, so the field is dropped there unless the client is asked to wait."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 304 Not Modified", "Content-Length: 7", "", "")
            talk.client_gets("HTTP/1.1 304 Not Modified", "content-length: 7", "", "")
            _get(talk)
            talk.instance("HTTP/1.1 204 No Content", "Content-Length: 0", "", "")
            talk.client_gets("HTTP/1.1 204 No Content", "", "")
            assert talk.kept

    def test_head_without_a_length_is_not_said_to_be_chunked(self) -> None:
        """There is nothing to frame."""
        with conversation() as talk:
            _get(talk, method="HEAD")
            talk.instance("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "")
            talk.client_gets("HTTP/1.1 200 OK", "", "")
            assert talk.kept

    def test_69_interim_responses_are_dropped(self) -> None:
        """And leave nothing behind: a front proxy might take one for the answer."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 103 Early Hints", "Link: </x>", "Connection: X-Hop", "X-Hop: 1", "", "")
            talk.instance("HTTP/1.1 100 Continue", "", "")
            talk.client_gets(b"")
            assert not talk.is_over
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 0", "", "")
            talk.client_gets("HTTP/1.1 200 OK", "content-length: 0", "", "")
            assert talk.kept

    def test_68_an_http_1_0_client_sees_no_interim_response(self) -> None:
        """RFC 9110 15.2; nor does the instance see an expectation (10.1.1)."""
        with conversation() as talk:
            talk.client(
                "POST /jupyter/7/x HTTP/1.0", "Expect: 100-continue", "Host: v", "Content-Length: 1", "", "a"
            )
            talk.connected()
            talk.upstream_gets("POST /jupyter/7/x HTTP/1.1", "content-length: 1", "host: v", "", "a")
            talk.instance("HTTP/1.1 100 Continue", "", "")
            talk.client_gets(b"")
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 0", "", "")
            talk.client_gets("HTTP/1.1 200 OK", "connection: close", "content-length: 0", "", "")

    def test_69_only_interim_responses_and_then_the_end(self) -> None:
        """502: there was no answer."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 103 Early Hints", "", "")
            talk.client_gets(b"")
            talk.instance_closes()
            assert 502 == talk.exchange.status
            talk._to_client.clear()

    def test_69_too_many_interim_responses(self) -> None:
        """They are bounded; 502 then."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000, "", "")
            _ends_with(InstanceInvalid, talk)
            assert 502 == talk.exchange.status
            assert len(talk._to_client) < 2000
            talk._to_client.clear()

    @pytest.mark.parametrize(
        "head",
        [
            ("HTTP/1.1 200 OK", "Content-Length: 1", "Transfer-Encoding: chunked"),
            ("HTTP/1.1 200 OK", "Content-Length: 1", "Content-Length: 1"),
            ("HTTP/1.1 200 OK", "Content-Length: -1"),
            ("HTTP/1.1 200 OK", "Transfer-Encoding: br"),
            ("HTTP/1.1 200 OK", "Transfer-Encoding: chunked, chunked"),
            ("HTTP/1.1 99 OK",),
            ("HTTP/2 200 OK",),
            ("SSH-2.0-OpenSSH_9.2",),
        ],
        ids=str,
    )
    def test_180_a_head_that_could_be_read_in_two_ways_is_none(self, head: tuple[str, ...]) -> None:
        """502, and the connection is not used again."""
        with conversation() as talk:
            _get(talk)
            talk.instance(*head, "", "a")
            assert 502 == talk.exchange.status
            assert Closing.KEEP is talk.closing
            _ends_with(InstanceInvalid, talk)
            assert b"instance_invalid" in talk._to_client
            talk._to_client.clear()

    def test_179_surplus_bytes_are_dropped_with_the_connection(self) -> None:
        """They must not become the answer to somebody else's request."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 2", "", "abHTTP/1.1 200 Evil\r\n\r\n")
            talk.client_gets("HTTP/1.1 200 OK", "content-length: 2", "", "ab")
            assert Closing.KEEP is talk.closing
            assert not talk.upstream_is_kept

    def test_179_bytes_on_an_idle_connection_end_it(self) -> None:
        """Nobody asked for them."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 204 No Content", "", "")
            talk.client_gets("HTTP/1.1 204 No Content", "", "")
            assert talk.kept
            talk.instance(b"HTTP/1.1 200 Evil\r\n\r\n")
            assert not talk.upstream.is_usable


class TestTwoRequests:
    """One request after the other on the same connections."""

    def test_the_next_request_goes_over_the_connection_that_was_kept(self) -> None:
        """In the order in which they came, each with its own answer."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 1", "", "a")
            talk.client_gets("HTTP/1.1 200 OK", "content-length: 1", "", "a")
            talk.client("POST /jupyter/7/b HTTP/1.1", "Host: visa", "Content-Length: 1", "", "b")
            talk.connected_to_an_idle_one()
            talk.upstream_gets("POST /jupyter/7/b HTTP/1.1", "content-length: 1", "host: visa", "", "b")
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 1", "", "b")
            talk.client_gets("HTTP/1.1 200 OK", "content-length: 1", "", "b")
            assert talk.kept

    def test_a_pipelined_request_waits_for_its_turn(self) -> None:
        """It is not even parsed before the answer to the one in front of it is complete."""
        with conversation() as talk:
            talk.client(
                "GET /jupyter/7/a HTTP/1.1",
                "Host: visa",
                "",
                "GET /jupyter/7/b HTTP/1.1",
                "Host: visa",
                "",
                "",
            )
            talk.connected()
            talk.upstream_gets("GET /jupyter/7/a HTTP/1.1", "host: visa", "", "")
            talk.instance("HTTP/1.1 204 No Content", "", "")
            talk.client_gets("HTTP/1.1 204 No Content", "", "")
            talk.client(b"")
            talk.connected_to_an_idle_one()
            talk.upstream_gets("GET /jupyter/7/b HTTP/1.1", "host: visa", "", "")


class TestBackPressure:
    """Whoever fills a buffer pauses the one who feeds it."""

    def test_a_client_that_does_not_read_pauses_the_instance(self) -> None:
        """And sets it going again."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 10", "", "hello")
            talk.client_stops_reading()
            assert {"instance"} == talk.paused
            talk.client_reads_again()
            assert set() == talk.paused
            talk.client_gets("HTTP/1.1 200 OK", "content-length: 10", "", "hello")

    @pytest.mark.parametrize("full", [False, True])
    def test_80_an_instance_that_sends_very_many_chunks_lets_others_have_a_turn(self, *, full: bool) -> None:
        """The rest is taken in the next turn; then it is read again, unless the client is full by then."""
        with conversation() as talk:
            later: list[Callable[[], None]] = []
            talk.pool.soon = later.append
            _get(talk)
            talk.instance("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "1\r\nx\r\n" * 1000)
            assert set() == talk.paused
            talk.instance("1\r\nx\r\n" * 1001)
            assert {"instance"} == talk.paused
            if full:
                talk.client_stops_reading()
            later.pop()()
            assert ({"instance"} if full else set()) == talk.paused
            if full:
                talk.client_reads_again()
            body = ("3e8\r\n" + "x" * 1000 + "\r\n") * 2 + "1\r\nx\r\n"
            talk.client_gets("HTTP/1.1 200 OK", "transfer-encoding: chunked", "", body)

    def test_80_what_an_instance_sent_before_it_broke_off_is_taken(self) -> None:
        """All of it, although others had no turn yet; the client drained, and it was not read on for that."""
        with conversation() as talk:
            later: list[Callable[[], None]] = []
            talk.pool.soon = later.append
            _get(talk)
            chunks = "1\r\nx\r\n" * 2500 + "0\r\n\r\n"
            talk.instance("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", chunks)
            talk.client_stops_reading()
            talk.client_reads_again()
            assert {"instance"} == talk.paused
            while later:
                later.pop(0)()
            body = ("3e8\r\n" + "x" * 1000 + "\r\n") * 2 + "1f4\r\n" + "x" * 500 + "\r\n0\r\n\r\n"
            talk.client_gets("HTTP/1.1 200 OK", "transfer-encoding: chunked", "", body)
            assert set() == talk.paused

    def test_an_instance_that_does_not_read_pauses_the_client(self) -> None:
        """And sets it going again."""
        with conversation() as talk:
            talk.client("PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 9", "", "abc")
            talk.connected()
            _forget_the_request(talk)
            talk.instance_stops_reading()
            assert {"client"} == talk.paused
            talk.instance_reads_again()
            assert set() == talk.paused

    def test_a_client_that_is_full_already_pauses_the_next_instance_at_once(self) -> None:
        """Answers to what came before may still be on their way."""
        with conversation() as talk:
            talk.client_stops_reading()
            _get(talk)
            assert {"instance"} == talk.paused
            talk.client_reads_again()
            assert set() == talk.paused

    def test_a_connection_goes_back_to_the_pool_unpaused(self) -> None:
        """What the last client of it did concerns nobody else."""
        with conversation() as talk:
            _get(talk)
            talk.client_stops_reading()
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 0", "", "")
            talk.client_gets("HTTP/1.1 200 OK", "content-length: 0", "", "")
            assert talk.upstream_is_kept
            assert set() == talk.paused

    def test_an_answer_from_an_instance_that_has_not_read_all_leaves_nobody_paused(self) -> None:
        """The body has been sent, but not taken: the client goes on, that connection is of no use."""
        with conversation() as talk:
            talk.client("PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 3", "", "")
            talk.connected()
            _forget_the_request(talk)
            talk.client(b"abc")
            talk.upstream_gets(b"abc")
            talk.instance_stops_reading()
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 0", "", "")
            talk.client_gets("HTTP/1.1 200 OK", "content-length: 0", "", "")
            assert Closing.KEEP is talk.closing
            assert set() == talk.paused
            assert not talk.upstream_is_kept


class TestEarlyAnswers:
    """A final response before the request has been sent."""

    def test_183_the_answer_goes_on_and_then_the_client_is_not_read_any_more(self) -> None:
        """The rest of the body is nobody's; the instance's connection is not used again."""
        with conversation() as talk:
            talk.client("PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 9", "", "abc")
            talk.connected()
            _forget_the_request(talk)
            talk.instance("HTTP/1.1 413 Content Too Large", "Content-Length: 2", "", "no")
            talk.client_gets(
                "HTTP/1.1 413 Content Too Large", "connection: close", "content-length: 2", "", "no"
            )
            assert Closing.CLOSE is talk.closing
            assert not talk.upstream.is_usable
            talk.client(b"defghi")
            assert 3 == talk.exchange.bytes_up

    def test_183_an_answer_is_read_though_a_write_has_failed(self) -> None:
        """An instance that answers and closes resets what still comes; its answer arrived before that."""
        with conversation() as talk:
            talk.client("PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 9", "", "abc")
            talk.connected()
            _forget_the_request(talk)
            talk.a_write_to_the_instance_fails(
                "HTTP/1.1 413 Content Too Large", "Content-Length: 2", "", "nosurplus"
            )
            talk.client_gets(
                "HTTP/1.1 413 Content Too Large", "connection: close", "content-length: 2", "", "no"
            )
            assert (Closing.CLOSE, None) == (talk.closing, talk.exchange.error)

    def test_183_half_an_answer_is_none(self) -> None:
        """What is missing will not come any more."""
        with conversation() as talk:
            talk.client("PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 9", "", "abc")
            talk.connected()
            _forget_the_request(talk)
            talk.a_write_to_the_instance_fails(
                "HTTP/1.1 413 Content Too Large", "Content-Length: 5", "", "no"
            )
            talk.client_gets(
                "HTTP/1.1 413 Content Too Large", "connection: close", "content-length: 5", "", "no"
            )
            assert isinstance(talk.exchange.error, InstanceInvalid)
            assert Closing.CLOSE is talk.closing

    def test_an_answer_that_is_not_over_leaves_the_request_on_its_way(self) -> None:
        """Both bodies flow at once, and to their ends; it is the last answer (RFC 9112 9.6)."""
        with conversation() as talk:
            talk.client("PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 6", "", "abc")
            talk.connected()
            _forget_the_request(talk)
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 6", "", "123")
            talk.client(b"def")
            talk.upstream_gets(b"def")
            talk.instance(b"456")
            talk.client_gets("HTTP/1.1 200 OK", "connection: close", "content-length: 6", "", "123456")
            assert (Closing.CLOSE, True) == (talk.closing, talk.upstream_is_kept)

    def test_66_an_expectation_that_is_refused_ends_the_connection(self) -> None:
        """The client may, or may not, send the body that nobody wants (RFC 9110 10.1.1)."""
        with conversation() as talk:
            talk.client(
                "PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Expect: 100-continue", "Content-Length: 3", "", ""
            )
            talk.connected()
            talk.upstream_gets(
                "PUT /jupyter/7/x HTTP/1.1", "content-length: 3", "expect: 100-continue", "host: visa", "", ""
            )
            talk.instance("HTTP/1.1 401 Unauthorized", "Content-Length: 0", "", "")
            talk.client_gets("HTTP/1.1 401 Unauthorized", "connection: close", "content-length: 0", "", "")
            assert Closing.CLOSE is talk.closing
            assert not talk.upstream.is_usable

    def test_an_expectation_that_is_met_goes_on_as_usual(self) -> None:
        """100, body, answer."""
        with conversation() as talk:
            talk.client(
                "PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Expect: 100-continue", "Content-Length: 3", "", ""
            )
            talk.connected()
            _forget_the_request(talk)
            talk.instance("HTTP/1.1 100 Continue", "", "")
            talk.client_gets("HTTP/1.1 100 Continue", "", "")
            talk.client(b"abc")
            talk.upstream_gets(b"abc")
            talk.instance("HTTP/1.1 201 Created", "Content-Length: 0", "", "")
            talk.client_gets("HTTP/1.1 201 Created", "content-length: 0", "", "")
            assert talk.kept


_SWITCH = (
    "HTTP/1.1 101 Switching Protocols",
    "Connection: Upgrade",
    "Upgrade: websocket",
    f"Sec-WebSocket-Accept: {_ACCEPT}",
    "",
    "",
)


class TestWebSockets:
    """The switch to a tunnel, and what is none (RFC 6455 4)."""

    def test_155_a_valid_101_becomes_a_tunnel_with_what_came_behind_it(self) -> None:
        """The hop-by-hop fields are ours, the others the instance's; a VISA token is never set (153)."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/ws HTTP/1.1", *_UPGRADE, "", b"early frame")
            talk.connected()
            talk.upstream_gets(
                "GET /jupyter/7/ws HTTP/1.1",
                "connection: Upgrade",
                "host: visa",
                f"sec-websocket-key: {_KEY.decode()}",
                "sec-websocket-version: 13",
                "upgrade: websocket",
                "",
                "",
            )
            talk.instance(
                "HTTP/1.1 101 Switching Protocols",
                "Connection: upgrade, X-Up",
                "X-Up: 1",
                "Keep-Alive: timeout=5",
                "Proxy-Authenticate: Basic",
                "Upgrade: WebSocket",
                f"Sec-WebSocket-Accept: {_ACCEPT}",
                "Set-Cookie: a=1",
                "Set-Cookie: access_token=evil",
                "Set-Cookie: b=2",
                "",
                "frame",
            )
            talk.client_gets(
                "HTTP/1.1 101 Switching Protocols",
                "connection: Upgrade",
                f"sec-websocket-accept: {_ACCEPT}",
                "set-cookie: a=1",
                "set-cookie: b=2",
                "upgrade: websocket",
                "",
                "",
            )
            assert b"frame" == talk.tunnel_early
            assert b"early frame" == talk._reader.leftover
            assert talk.exchange.is_tunnel
            assert (101, None) == (talk.exchange.status, talk.exchange.error)
            assert talk.exchange.stamps[Phase.TUNNEL] is not None

    @pytest.mark.parametrize(
        "fields",
        [
            ("Connection: Upgrade", "Upgrade: websocket"),
            ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Accept: AAAA"),
            ("Connection: Upgrade", "Upgrade: foo", f"Sec-WebSocket-Accept: {_ACCEPT}"),
            ("Connection: Upgrade", "Upgrade: websocket, foo", f"Sec-WebSocket-Accept: {_ACCEPT}"),
            ("Connection: close", "Upgrade: websocket", f"Sec-WebSocket-Accept: {_ACCEPT}"),
            ("Connection: Upgrade", f"Sec-WebSocket-Accept: {_ACCEPT}"),
            ("Connection: Upgrade", "Upgrade: websocket", *[f"Sec-WebSocket-Accept: {_ACCEPT}"] * 2),
        ],
        ids=str,
    )
    def test_152_a_101_that_is_no_valid_answer_is_a_502(self, fields: tuple[str, ...]) -> None:
        """Nothing of it reaches the client, and the connection is destroyed."""
        with conversation() as talk:
            _upgrade(talk)
            talk.instance("HTTP/1.1 101 Switching Protocols", *fields, "", "evil")
            _ends_with(InstanceInvalid, talk)
            assert (502, Closing.CLOSE, None) == (talk.exchange.status, talk.closing, talk.tunnel_early)
            assert b"evil" not in talk._to_client
            talk._to_client.clear()

    def test_152_a_101_to_a_plain_request_is_a_502(self) -> None:
        """Nobody asked for it."""
        with conversation() as talk:
            _get(talk)
            talk.instance(
                "HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket", "", "evil"
            )
            _ends_with(InstanceInvalid, talk)
            assert 502 == talk.exchange.status
            talk._to_client.clear()

    def test_150_151_another_answer_is_a_plain_one_and_the_last(self) -> None:
        """Whatever came behind the upgrade is neither a request nor sent to the instance (149)."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/ws HTTP/1.1", *_UPGRADE, "", b"GET /jupyter/7/smuggled HTTP/1.1\r\n")
            talk.connected()
            _forget_the_request(talk)
            talk.instance(
                "HTTP/1.1 200 OK",
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Transfer-Encoding: chunked",
                "",
                "2\r\nab\r\n0\r\n\r\n",
            )
            talk.client_gets(
                "HTTP/1.1 200 OK",
                "connection: close",
                "transfer-encoding: chunked",
                "",
                "2\r\nab\r\n0\r\n\r\n",
            )
            assert Closing.CLOSE is talk.closing
            assert talk.tunnel_early is None

    def test_a_refused_upgrade_is_answered_and_closed(self) -> None:
        """A real HTTP answer with a length (143); a frame may follow, which is no request."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/ws HTTP/1.1", *_UPGRADE, "", "")
            talk.fails(NoToken("none"))
            assert Closing.CLOSE is talk.closing
            assert talk._to_client.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
            assert b"\r\nConnection: close\r\n" in talk._to_client
            talk._to_client.clear()


def _answers_in_a_crowd(talk: Conversation, *answer: str | bytes) -> None:
    """Have an instance answer to a WebSocket request when so many others do that it has to wait."""
    _upgrade(talk)
    talk.a_crowd_comes()
    talk.instance(*answer)
    assert b"" == talk._to_client


class TestCrowds:
    """An answer to a WebSocket request that has to wait for its turn."""

    def test_it_has_its_turn(self) -> None:
        """With all that came behind it. Meanwhile it has no deadline, for it has come in time."""
        with conversation() as talk:
            _answers_in_a_crowd(talk, *_SWITCH[:-1], b"frame")
            assert math.inf == talk.upstream.deadline
            talk.instance(b" and more")
            assert {"instance"} == talk.paused
            talk.the_crowd_has_gone()
            assert talk.exchange.is_tunnel
            assert b"frame and more" == talk.tunnel_early
            talk._to_client.clear()

    def test_the_time_is_not_the_instances(self) -> None:
        """A part of its answer came in time: when it has had its turn, it has what was left for the rest."""
        with conversation() as talk:
            _answers_in_a_crowd(talk, "HTTP/1.1 403 For")
            talk.now += 1000
            talk.the_crowd_has_gone()
            assert talk.now + 300 == talk.upstream.deadline
            talk.instance("bidden", "Content-Length: 2", "", b"no")
            talk.client_gets("HTTP/1.1 403 Forbidden", "content-length: 2", "connection: close", "", "no")

    def test_the_client_may_leave(self) -> None:
        """Nobody waits for the answer any more, whose connection is closed."""
        with conversation() as talk:
            _answers_in_a_crowd(talk, *_SWITCH)
            talk.client_leaves()
            talk.the_crowd_has_gone()
            talk.instance_is_lost(None)
            assert not talk.exchange.is_tunnel
            assert set() == talk.connections

    @pytest.mark.parametrize("lost", [(), (None,), (ConnectionResetError(),)])
    def test_the_instance_may_refuse_and_close(self, lost: tuple[Exception | None, ...]) -> None:
        """Its end ends the answer, whatever becomes of the connection behind it."""
        with conversation() as talk:
            _answers_in_a_crowd(talk, "HTTP/1.1 403 Forbidden", "", b"no")
            talk.instance_closes()
            for error in lost:
                talk.instance_is_lost(error)
            talk.the_crowd_has_gone()
            told = ("HTTP/1.1 403 Forbidden", "transfer-encoding: chunked", "connection: close", "")
            talk.client_gets(*told, "2\r\nno\r\n0\r\n\r\n")
            assert talk.exchange.error is None

    @pytest.mark.parametrize("error", [None, ConnectionResetError()])
    def test_the_instance_may_refuse_and_be_gone(self, error: Exception | None) -> None:
        """What it has said is complete: it reaches the client, and the request is not sent again."""
        with conversation() as talk:
            _answers_in_a_crowd(talk, "HTTP/1.1 403 Forbidden", "Content-Length: 2", "", b"no")
            talk.instance_is_lost(error)
            talk.the_crowd_has_gone()
            talk.client_gets("HTTP/1.1 403 Forbidden", "content-length: 2", "connection: close", "", "no")
            assert talk.exchange.error is None

    @pytest.mark.parametrize("error", [None, ConnectionResetError()])
    def test_the_instance_may_switch_and_be_gone(self, error: Exception | None) -> None:
        """As without a crowd: there is a tunnel, and it ends as its instance did."""
        with conversation() as talk:
            _answers_in_a_crowd(talk, *_SWITCH[:-1], b"frame")
            talk.instance_is_lost(error)
            assert (b"frame", [error]) == (talk.tunnel_early, talk.tunnel_ended)
            talk.the_crowd_has_gone()
            assert set() == talk.connections
            talk._to_client.clear()


class TestLostUpstream:
    """An instance that closes, resets or says nothing, before and after its head."""

    @pytest.mark.parametrize("how", ["instance_closes", "instance_resets"])
    @pytest.mark.parametrize("came", ["", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"])
    def test_before_the_head_is_complete(self, how: str, came: str) -> None:
        """502, and the client's connection goes on; nothing of the head is shown (192)."""
        with conversation() as talk:
            _get(talk)
            if came:
                talk.instance(came)
            getattr(talk, how)()
            assert talk.is_over
            assert 502 == talk.exchange.status
            assert Closing.KEEP is talk.closing
            assert talk._to_client.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
            talk._to_client.clear()

    @pytest.mark.parametrize("how", ["instance_closes", "instance_resets"])
    @pytest.mark.parametrize(
        ("framing", "body", "sent"),
        [("Content-Length: 9", "abc", "abc"), ("Transfer-Encoding: chunked", "3\r\nabc\r\n", "3\r\nabc\r\n")],
        ids=["length", "chunked"],
    )
    def test_177_178_in_the_middle_of_a_body(self, how: str, framing: str, body: str, sent: str) -> None:
        """All that came is delivered; then the connection ends early, without a last chunk."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 200 OK", framing, "", body)
            getattr(talk, how)()
            talk.client_gets("HTTP/1.1 200 OK", framing, "", sent)
            assert Closing.CLOSE is talk.closing
            assert talk.exchange.error is not None
            assert 200 == talk.exchange.status

    def test_176_245_a_reset_of_a_body_that_ends_with_the_connection(self) -> None:
        """The chunked body has no end; to an HTTP/1.0 client only a reset can say so."""
        with conversation() as talk:
            _get(talk, version="1.0")
            talk.instance("HTTP/1.1 200 OK", "", "abc")
            talk.client_gets("HTTP/1.1 200 OK", "connection: close", "", "abc")
            talk.instance_resets()
            assert Closing.RESET is talk.closing

    def test_176_the_same_for_a_client_that_knows_chunks(self) -> None:
        """No last chunk: that is the abort."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 200 OK", "", "abc")
            talk.instance_resets()
            talk.client_gets("HTTP/1.1 200 OK", "transfer-encoding: chunked", "", "3\r\nabc\r\n")
            assert Closing.CLOSE is talk.closing

    def test_a_body_that_is_no_valid_one_is_cut_short(self) -> None:
        """Bad chunks: what was good is delivered, and no end is made up."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "3\r\nabc\r\n")
            talk.instance(b"zz\r\n")
            talk.client_gets("HTTP/1.1 200 OK", "transfer-encoding: chunked", "", "3\r\nabc\r\n")
            _ends_with(InstanceInvalid, talk)
            assert Closing.CLOSE is talk.closing

    def test_190_no_head_in_time(self) -> None:
        """504; the deadline begins when the request has been sent, and ends with the head."""
        with conversation() as talk:
            talk.client("PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 3", "", "ab")
            talk.connected()
            _forget_the_request(talk)
            assert talk.upstream.deadline == float("inf")
            talk.client(b"c")
            talk.upstream_gets(b"c")
            assert talk.now + 300 == talk.upstream.deadline
            talk.upstream.expired(talk.now + 300)
            _ends_with(InstanceTimeout, talk)
            assert 504 == talk.exchange.status
            talk._to_client.clear()

    def test_190_a_silent_body_is_no_late_head(self) -> None:
        """An event stream may be silent for as long as it likes."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 200 OK", "Content-Type: text/event-stream", "", "")
            assert talk.upstream.deadline == float("inf")
            talk.client_gets(
                "HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked", "", ""
            )

    def test_an_interim_response_does_not_end_the_wait(self) -> None:
        """The final head is what counts."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 102 Processing", "", "")
            assert talk.now + 300 == talk.upstream.deadline


class TestRetry:
    """A connection that had been idle may have been closed just now (RFC 9110 9.2.2)."""

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    @pytest.mark.parametrize("how", ["instance_closes", "instance_resets"])
    def test_191_a_get_on_a_stale_connection_is_sent_once_more(self, method: str, how: str) -> None:
        """On a fresh one, and the client sees nothing of it."""
        with conversation() as talk:
            talk.client(f"{method} /jupyter/7/x HTTP/1.1", "Host: visa", "", "")
            talk.connected(reused=True)
            talk.upstream_gets(f"{method} /jupyter/7/x HTTP/1.1", "host: visa", "", "")
            getattr(talk, how)()
            assert talk.tries_again
            talk.connected()
            talk.upstream_gets(f"{method} /jupyter/7/x HTTP/1.1", "host: visa", "", "")
            talk.instance("HTTP/1.1 204 No Content", "", "")
            talk.client_gets("HTTP/1.1 204 No Content", "", "")
            assert talk.kept

    def test_191_not_twice(self) -> None:
        """Whatever the second connection is."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/x HTTP/1.1", "Host: visa", "", "")
            talk.connected(reused=True)
            talk.instance_closes()
            talk.connected(reused=True)
            _forget_the_request(talk)
            talk.instance_closes()
            assert not talk.tries_again
            _ends_with(InstanceUnreachable, talk)
            talk._to_client.clear()

    @pytest.mark.parametrize(
        "request_lines",
        [
            ("POST /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 0", "", ""),
            ("POST /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 3", "", "abc"),
            ("GET /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 3", "", "abc"),
            ("FOO /jupyter/7/x HTTP/1.1", "Host: visa", "", ""),
        ],
        ids=lambda lines: lines[0][:4] + lines[-1],
    )
    def test_191_what_may_not_be_repeated_is_not(self, request_lines: tuple[str, ...]) -> None:
        """502: it may have been done."""
        with conversation() as talk:
            talk.client(*request_lines)
            talk.connected(reused=True)
            _forget_the_request(talk)
            talk.instance_closes()
            assert not talk.tries_again
            assert 502 == talk.exchange.status
            talk._to_client.clear()

    def test_a_fresh_connection_that_is_closed_is_an_answer(self) -> None:
        """502: another one would be closed, too."""
        with conversation() as talk:
            _get(talk)
            talk.instance_closes()
            assert not talk.tries_again
            _ends_with(InstanceUnreachable, talk)
            talk._to_client.clear()

    @pytest.mark.parametrize(
        "came", ["H", "HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 103 Early Hints\r\n\r\n", "nonsense\r\n\r\n"]
    )
    @pytest.mark.parametrize("how", ["instance_closes", "instance_resets"])
    def test_192_never_after_the_first_byte_of_an_answer(self, came: str, how: str) -> None:
        """The instance has begun to do what was asked."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/x HTTP/1.1", "Host: visa", "", "")
            talk.connected(reused=True)
            _forget_the_request(talk)
            talk.instance(came)
            if not talk.is_over:
                getattr(talk, how)()
            assert not talk.tries_again
            assert 502 == talk.exchange.status
            talk._to_client.clear()

    def test_a_late_head_is_no_reason_to_ask_again(self) -> None:
        """The instance may still be at it."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/x HTTP/1.1", "Host: visa", "", "")
            talk.connected(reused=True)
            _forget_the_request(talk)
            talk.upstream.expired(talk.now)
            assert not talk.tries_again
            assert 504 == talk.exchange.status
            talk._to_client.clear()


class TestLostClient:
    """A client that leaves, in every phase."""

    def test_before_there_is_a_connection(self) -> None:
        """What was held is dropped; nothing is said."""
        with conversation() as talk:
            talk.client("PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 9", "", "abc")
            talk.client_leaves()
            assert (None, Closing.RESET) == (talk.exchange.status, talk.closing)

    def test_while_connecting(self) -> None:
        """The same."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/x HTTP/1.1", "Host: visa", "", "")
            talk.authorised()
            talk.client_leaves()
            assert talk.is_over

    def test_197_in_the_middle_of_either_body_the_instance_is_let_go(self) -> None:
        """Its connection is aborted at once: nobody wants the rest."""
        with conversation() as talk:
            talk.client("PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 9", "", "abc")
            talk.connected()
            _forget_the_request(talk)
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 9", "", "abc")
            talk._to_client.clear()
            talk.client_leaves()
            assert talk.wire is not None
            assert talk.wire.aborted
            assert (200, 499) == (talk.exchange.status, talk.exchange.error and talk.exchange.error.status)

    def test_what_arrives_afterwards_is_ignored(self) -> None:
        """By an exchange that is over, from either side (rule 5)."""
        with conversation() as talk:
            _get(talk)
            exchange = talk.exchange
            talk.client_leaves()
            exchange.request_body_received(b"x")
            exchange.request_ended([])
            exchange.response_body_received(b"x")
            exchange.response_ended(response_allows_reuse=True, trailers=[], now=talk.now)
            exchange.upstream_lost(InstanceUnreachable("late"), talk.now)
            exchange.downstream_lost(talk.now)
            exchange.fail(InstanceTimeout("late"), talk.now)
            assert 1 == len(talk.ended)


class TestRefusals:
    """Errors of the straight line, and of the client's body."""

    def test_an_error_before_the_head_is_an_answer(self) -> None:
        """JSON with a length, the connection goes on."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/x HTTP/1.1", "Host: visa", "", "")
            talk.fails(VisaTimeout("silent"))
            assert talk._to_client.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
            assert b'"error": "visa_timeout"' in talk._to_client
            assert b"silent" not in talk._to_client
            assert b"Connection:" not in talk._to_client
            assert Closing.KEEP is talk.closing
            talk._to_client.clear()

    def test_head_is_refused_without_a_body(self) -> None:
        """The length is that of the body that GET would have (RFC 9110 9.3.2)."""
        with conversation() as talk:
            talk.client("HEAD /jupyter/7/x HTTP/1.1", "Host: visa", "", "")
            talk.fails(NoToken("none"))
            assert talk._to_client.endswith(b"\r\n\r\n")
            assert b"Content-Length: 0" not in talk._to_client
            talk._to_client.clear()

    @pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)])
    def test_62_65_a_refusal_before_the_body_has_come_is_the_last_answer(self, expect: tuple[str]) -> None:
        """No 100 before it, and the body is never taken for a request."""
        with conversation() as talk:
            talk.client("POST /jupyter/7/x HTTP/1.1", "Host: visa", *expect, "Content-Length: 34", "", "")
            talk.fails(NoToken("none"))
            assert talk._to_client.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
            assert b"\r\nConnection: close\r\n" in talk._to_client
            talk._to_client.clear()
            talk.client(b"GET /jupyter/7/smuggled HTTP/1.1\r\n")
            talk.client_gets(b"")
            assert Closing.CLOSE is talk.closing
            assert 1 == len(talk.ended)

    def test_a_refusal_after_the_whole_body_leaves_the_connection_open(self) -> None:
        """What was held is dropped; behind it comes the next request."""
        with conversation() as talk:
            talk.client("POST /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 3", "", "abc")
            talk.fails(NoToken("none"))
            assert Closing.KEEP is talk.closing
            talk._to_client.clear()

    def test_237_an_http_1_0_client_is_told_what_becomes_of_its_connection(self) -> None:
        """As with any answer."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/x HTTP/1.0", "Connection: keep-alive", "", "")
            talk.fails(NoToken("none"))
            assert b"\r\nConnection: keep-alive\r\n" in talk._to_client
            talk._to_client.clear()

    @pytest.mark.parametrize("rest", [b"zz\r\n", b"3\r\nabcdef\r\n", b"1\r\na\r\nffffffffffffffff\r\n"])
    def test_45_48_a_bad_body_ends_the_request_at_the_instance(self, rest: bytes) -> None:
        """It never looks complete there, and the client is told."""
        with conversation() as talk:
            talk.client("PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Transfer-Encoding: chunked", "", "")
            talk.connected()
            _forget_the_request(talk)
            talk.client(rest)
            assert talk.wire is not None
            assert talk.wire.aborted
            assert b"0\r\n\r\n" not in talk.wire.sent
            talk.wire.sent.clear()
            assert (400, Closing.CLOSE) == (talk.exchange.status, talk.closing)
            talk._to_client.clear()

    def test_75_a_body_that_stops_coming_after_the_answer_has_begun_cuts_it_short(self) -> None:
        """There is no second answer."""
        with conversation() as talk:
            talk.client("PUT /jupyter/7/x HTTP/1.1", "Host: visa", "Content-Length: 9", "", "abc")
            talk.connected()
            _forget_the_request(talk)
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 9", "", "abc")
            talk.fails(RequestTimeout("slow"))
            talk.client_gets("HTTP/1.1 200 OK", "connection: close", "content-length: 9", "", "abc")
            assert Closing.CLOSE is talk.closing
            assert not talk.upstream.is_usable


class TestDraining:
    """The worker stops: no further request is wanted."""

    def test_226_an_answer_under_way_is_delivered_and_is_the_last(self) -> None:
        """It says so."""
        with conversation() as talk:
            _get(talk)
            talk.exchange.draining = True
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 2", "", "ab")
            talk.client_gets("HTTP/1.1 200 OK", "connection: close", "content-length: 2", "", "ab")
            assert Closing.CLOSE is talk.closing

    def test_226_an_answer_that_had_begun_is_the_last_too(self) -> None:
        """Its head could not say so; the connection ends behind it all the same."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 200 OK", "Content-Length: 4", "", "ab")
            talk.exchange.draining = True
            talk.instance(b"cd")
            talk.client_gets("HTTP/1.1 200 OK", "content-length: 4", "", "abcd")
            assert Closing.CLOSE is talk.closing

    def test_a_refusal_is_the_last_answer_too(self) -> None:
        """And says so."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/x HTTP/1.1", "Host: visa", "", "")
            talk.exchange.draining = True
            talk.fails(NoToken("none"))
            assert b"\r\nConnection: close\r\n" in talk._to_client
            assert Closing.CLOSE is talk.closing
            talk._to_client.clear()


class TestPhases:
    """An exchange moves forward and ends once."""

    def test_each_phase_is_stamped(self) -> None:
        """The log's durations come from there."""
        with conversation() as talk:
            talk.client("GET /jupyter/7/x HTTP/1.1", "Host: visa", "", "")
            talk.now += 1
            talk.authorised()
            talk.now += 1
            talk.connected()
            _forget_the_request(talk)
            talk.now += 1
            talk.instance("HTTP/1.1 204 No Content", "", "")
            talk.client_gets("HTTP/1.1 204 No Content", "", "")
            assert [100.0, 100.0, 101.0, 102.0, None, 103.0] == talk.exchange.stamps

    def test_the_end_is_entered_once(self) -> None:
        """A second time is a defect of the caller."""
        with conversation() as talk:
            _get(talk)
            talk.instance("HTTP/1.1 204 No Content", "", "")
            talk._to_client.clear()
            with pytest.raises(AssertionError):
                talk.exchange.enter(Phase.END, talk.now)

    def test_a_service_gets_what_its_route_sets(self) -> None:
        """Rewriting and the instance's own values, all the way."""
        route = type(FILES)(
            match=FILES.match,
            type="service",
            name="Files",
            remote_port=8090,
            path_rewrite=FILES.path_rewrite,
            set_headers=(("x-auth-token", "{computeId}"),),
        )
        with conversation(route, grant=granted(computeId="c-7")) as talk:
            talk.client("GET /visafs/7//api?x HTTP/1.1", "Host: visa", "X-Auth-Token: mine", "", "")
            talk.connected()
            talk.upstream_gets("GET //api?x HTTP/1.1", "host: visa", "x-auth-token: c-7", "", "")
