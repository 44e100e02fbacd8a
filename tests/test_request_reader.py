"""Requests one after the other; how they may be cut is looked at in `test_framing`."""

import pytest

from support.reading import Told, read_requests
from visa_jupyter_proxy.errors import BadRequest, HeadTooLarge, ProxyError, TargetTooLong
from visa_jupyter_proxy.worker.http.request import DEFAULT_LIMITS
from visa_jupyter_proxy.worker.http.request_reader import RequestReader


def test_it_stops_behind_each_message() -> None:
    """What follows waits, unparsed, however bad it is (57)."""
    told = Told()
    reader = RequestReader(told)
    reader.feed(b"GET /a HTTP/1.1\r\nHost: v\r\n\r\nInvalid\r\n\r\n")
    assert (True, b"Invalid\r\n\r\n") == (reader.ended, reader.leftover)
    assert ["head", "end"] == [call[0] for call in told.calls]
    with pytest.raises(BadRequest):
        reader.proceed()


def test_it_knows_whether_a_head_has_begun() -> None:
    """The deadline of a head depends on it."""
    reader = RequestReader(Told())
    assert reader.is_between_messages
    reader.feed(b"\r\n")
    assert reader.is_between_messages
    between = []
    for piece in (b"GET / HT", b"TP/1.1\r\nHost: v\r\n\r\n"):
        reader.feed(piece)
        between.append(reader.is_between_messages)
    reader.proceed()
    assert [False, False, True] == [*between, reader.is_between_messages]


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"GET /" + b"a" * DEFAULT_LIMITS.head_bytes, TargetTooLong),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: v\r\n\r\n", TargetTooLong),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * DEFAULT_LIMITS.head_bytes, HeadTooLarge),
        (b"GET / HTTP/1.1\r\nHost: v\r\nX: " + b"a" * 65536 + b"\r\n\r\n", HeadTooLarge),
        (b"GET / HTTP/1.1\r\nHost: v\r\n" + b"X: a\r\n" * 1000 + b"\r\n", HeadTooLarge),
    ],
    ids=["line without end", "line", "field without end", "field", "fields"],
)
def test_71_72_heads_are_bounded(head: bytes, error: type[ProxyError]) -> None:
    """Also one that never ends."""
    with pytest.raises(error):
        RequestReader(Told()).feed(head)


def test_71_sixteen_kib_of_cookies_pass() -> None:
    """In one field or many."""
    head = b"GET / HTTP/1.1\r\nHost: v\r\nCookie: "
    story, refused = read_requests([head + b"a" * 16384 + b"\r\n\r\n"])
    assert not refused
    assert ["head", "end"] == [call[0] for call in story]
