"""One response, behind any number of interim ones; how they may be cut is looked at in `test_framing`."""

from contextlib import suppress

import pytest

from support.reading import Told, read_response
from visa_jupyter_proxy.errors import InstanceInvalid
from visa_jupyter_proxy.worker.http.response_reader import LARGEST_RESPONSE_HEAD, ResponseReader


def test_it_says_whether_anything_has_come() -> None:
    """A request may be repeated only before that (192)."""
    reader = ResponseReader(Told(), b"GET")
    assert not reader.started
    reader.feed(b"H")
    assert reader.started


def test_a_body_without_length_is_complete_with_the_connection() -> None:
    """And only then."""
    told = Told()
    reader = ResponseReader(told, b"GET")
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\nab")
    assert not reader.ended
    assert reader.end()
    assert ("end",) == told.calls[-1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na",
    ],
    ids=repr,
)
def test_177_178_others_are_not(data: bytes) -> None:
    """Whatever is missing."""
    reader = ResponseReader(Told(), b"GET")
    with suppress(InstanceInvalid):  # some are refused before their end
        reader.feed(data)
    assert not reader.end()


def test_a_head_may_be_larger_than_that_of_a_request() -> None:
    """But not without bounds."""
    begin = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: "
    assert not read_response([begin + b"a" * (LARGEST_RESPONSE_HEAD - 100) + b"\r\n\r\n"])[1]
    assert read_response([begin + b"a" * LARGEST_RESPONSE_HEAD + b"\r\n\r\n"])[1]
