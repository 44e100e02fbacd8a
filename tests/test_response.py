"""Heads of responses: what an instance may answer, and where each field goes (RFC 9112, RFC 9110)."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.costs import instructions
from support.reading import lines_of
from visa_jupyter_proxy.errors import InstanceInvalid
from visa_jupyter_proxy.worker.http.response import parse_response, response_head


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK"),
        (b"HTTP/1.0 299 ", 299, b""),
        (b"HTTP/1.1 418", 418, b""),
        (b"HTTP/1.1 599 \xc3\xa9 \t!", 599, b"\xc3\xa9 \t!"),
        (b"HTTP/1.1 200 OK\x0bX\0\x7f", 200, b"OK X  "),
    ],
)
def test_182_any_status_and_reason(line: bytes, status: int, reason: bytes) -> None:
    """A reason has only what may stand in a status line."""
    response = parse_response(line + b"\r\n\r\n")
    assert (status, reason) == (response.status, response.reason)


@pytest.mark.parametrize(
    "head",
    [
        *(
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1 600 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/2 200 OK",
        ),
        *(
            b"http/1.1 200 OK",
            b"HTTP/1.2 200 OK",
            b"HTTP/1.1 200OK",
            b"ICY 200 OK",
            b"",
            b"HTTP/1.1 abc OK",
        ),
        *(b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 OK\r\nX : a", b"HTTP/1.1 200 OK\r\nX: a\r\n b"),
        *(b"HTTP/1.1 200 OK\r\nX", b"HTTP/1.1 200 OK\r\nX: \x01", b"HTTP/1.1 200 OK\r\nX: a\nY: b"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\n" + b"\r\n".join([b"X: a"] * 101),
    ],
    ids=lambda head: repr(head[:60]),
)
def test_180_heads_that_are_none(head: bytes) -> None:
    """One error for all: the instance's fault."""
    with pytest.raises(InstanceInvalid):
        parse_response(head + b"\r\n\r\n")


def test_32_153_fields_are_sorted() -> None:
    """Cookies and the connection's own apart from what goes on as it came."""
    response = parse_response(
        b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: x-Hop, close\r\nX-Hop: 1\r\nSet-Cookie: a\r\n"
        b"Set-Cookie: b\r\nDate: today\r\nUpgrade: h2c\r\nKeep-Alive: 1\r\nContent-Length: 3\r\n\r\n"
    )
    assert [b"Server: x\r\n", b"Date: today\r\n"] == lines_of(response)
    assert response.is_dated
    assert ([b"a", b"b"], 3, False) == (
        response.special[b"set-cookie"],
        response.length,
        response.keep_alive,
    )


def test_each_response_has_the_date_it_came_with() -> None:
    """Though everything else is the same, in any spelling; unless `Connection` names it."""
    dates = (b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:38 GMT")
    for name in (b"Date", b"date"):
        for date in dates:
            fields = b"X: 1\r\n%b: %b\r\n" % (name, date)
            response = parse_response(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")
            assert [b"%b: %b\r\n" % (name, date), b"X: 1\r\n"] == sorted(
                lines_of(response), key=len, reverse=True
            )
            assert response.is_dated
            response = parse_response(b"HTTP/1.1 200 OK\r\nConnection: date\r\n" + fields + b"\r\n")
            assert [b"X: 1\r\n"] == lines_of(response)
            assert not response.is_dated


def test_each_switch_has_the_answer_to_its_own_key() -> None:
    """Though everything else is the same, in any spelling; unless `Connection` names it."""
    keys = (b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", b"HSmrc0sMlYUkAGmm5OPpG2HaGWk=")
    for name in (b"Sec-WebSocket-Accept", b"sec-websocket-accept"):
        for key in keys:
            fields = b"Date: today\r\n%b: %b\r\nUpgrade: websocket\r\n" % (name, key)
            response = parse_response(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n" + fields + b"\r\n"
            )
            assert [key] == response.special[b"sec-websocket-accept"]
            assert b"%b: %b\r\n" % (name, key) in lines_of(response)
            response = parse_response(
                b"HTTP/1.1 101 X\r\nConnection: upgrade, sec-websocket-accept\r\n" + fields + b"\r\n"
            )
            assert key not in b"".join(lines_of(response))


def test_one_of_two_answers_to_a_key_is_never_lost() -> None:
    """Both are seen, so that the switch is refused."""
    field = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    response = parse_response(b"HTTP/1.1 101 X\r\nX: 1\r\n" + field + field + b"\r\n")
    assert 2 == len(response.special[b"sec-websocket-accept"])


def test_the_date_counts_among_the_fields() -> None:
    """For the limit of their number."""
    date = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    parse_response(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 99 + date + b"\r\n")
    with pytest.raises(InstanceInvalid):
        parse_response(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 100 + date + b"\r\n")


def test_too_many_fields_are_not_read() -> None:
    """64 KiB may have thousands: to refuse them costs no more than to refuse some."""

    def cost(fields: int) -> int:
        head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%x:\r\n" % number for number in range(fields)) + b"\r\n"

        def refuse() -> None:
            with pytest.raises(InstanceInvalid):
                parse_response(head)

        return instructions(refuse)

    assert cost(200) == cost(16_000)


def test_95_a_cookie_is_for_one_client() -> None:
    """What sets one is read anew each time, and is nobody else's."""
    heads = [b"HTTP/1.1 200 OK\r\nX: 1\r\nSet-Cookie: a=%d\r\n\r\n" % number for number in (1, 2, 1)]
    assert [[b"a=1"], [b"a=2"], [b"a=1"]] == [parse_response(head).special[b"set-cookie"] for head in heads]


def test_a_head_is_written_as_it_is_read() -> None:
    """What we compose, we parse."""
    response = parse_response(response_head(404, b"Not Found", [b"X: 1\r\n"]))
    assert (404, b"Not Found", [b"X: 1\r\n"]) == (response.status, response.reason, lines_of(response))


def test_no_repr_shows_a_field() -> None:
    """It may hold a secret."""
    assert "Response(200)" == repr(parse_response(b"HTTP/1.1 200 OK\r\nX: secret\r\n\r\n"))


@given(st.binary(max_size=200))
def test_180_nothing_but_the_instances_fault_is_raised(data: bytes) -> None:
    """Whatever the bytes are, as a head or as the fields of one."""
    for head in (data, b"HTTP/1.1 200 OK\r\n" + data):
        with suppress(InstanceInvalid):  # nearly always
            parse_response(head)
