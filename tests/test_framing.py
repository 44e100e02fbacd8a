"""Where messages begin and end, however their bytes are cut (RFC 9112 6 and 7, case 63)."""

import gc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.costs import instructions
from support.reading import Told, cut, read_requests, read_response, same
from visa_jupyter_proxy.errors import (
    BadRequest,
)
from visa_jupyter_proxy.worker.http.bodies import ChunkedBody, chunk, last_chunk
from visa_jupyter_proxy.worker.http.request import DEFAULT_LIMITS
from visa_jupyter_proxy.worker.http.request_reader import RequestReader

_HEAD = b"POST /x HTTP/1.1\r\nHost: v\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_CHUNKED_RESPONSE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


_REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: v\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: v\r\n\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\nHost: v\r\n\r\n",
    b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: v\r\n\r\n",
    b"\nGET / HTTP/1.1\r\nHost: v\r\n\r\n",
    b"\r\rGET / HTTP/1.1\r\nHost: v\r\n\r\n",
    _HEAD + b"Content-Length: 5\r\n\r\nhello",
    _HEAD + b"Content-Length: 0\r\n\r\n",
    _HEAD + b"Content-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: v\r\n\r\n",
    _HEAD + b"Content-Length: 5\r\n\r\nhello\r\nGET /b HTTP/1.1\r\nHost: v\r\n\r\n",
    _CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    _CHUNKED
    + b"5;a=b\r\nhello\r\n002 ;x\r\nab\r\n000\r\nX-Sum: 1 \r\nY:\r\n\r\nGET / HTTP/1.1\r\nHost: v\r\n\r\n",
    _CHUNKED + b"0\r\n\r\n" + _CHUNKED + b"1\r\na\r\n0\r\n\r\n",
    _CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
    _CHUNKED + b"5\r\nhello\r0\r\n\r\n",
    _CHUNKED + b"2\r\r;a\r\n02\r\n41\r\n0\r\n\r\n",
    _CHUNKED + b"0\r\nX:POST / HTTP/1.1\r\n bad\r\n\r\n",
    _CHUNKED + b"0\r\nnocolon\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: v\r\nX: a\nY: b\r\n\r\n",
    b"GET / HTTP/1.1\nHost: v\n\n",
    b"GET / HTTP/1.1\r\nHost: v\r\nX: a\x00b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: v\r\nX: a\rb\r\n\r\n",
    b"GET /\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]

_RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellomore",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\n\r\nmore",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na"
    ),
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nframe",
    b"HTTP/1.1 200 OK\x0bX\x7f\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    _CHUNKED_RESPONSE + b"5;a=b\r\nhello\r\n0\r\nX: 1\r\n\r\nsurplus",
    _CHUNKED_RESPONSE + b"5\r\nhello\r\nG\r\n",
    _CHUNKED_RESPONSE + b"5\r\nhel",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
]


class TestCutAnywhere:
    """The same bytes give the same calls, in however many pieces they come (case 63)."""

    @pytest.mark.parametrize("data", _REQUESTS, ids=repr)
    def test_63_requests_cut_in_two_and_into_single_bytes(self, data: bytes) -> None:
        """At every place."""
        for place in range(len(data) + 1):
            same(read_requests, data, [data[:place], data[place:]])
        same(read_requests, data, [data[place : place + 1] for place in range(len(data))])

    @pytest.mark.parametrize("method", [b"GET", b"HEAD"])
    @pytest.mark.parametrize("data", _RESPONSES, ids=repr)
    def test_63_responses_cut_in_two_and_into_single_bytes(self, data: bytes, method: bytes) -> None:
        """At every place."""
        for place in range(len(data) + 1):
            same(lambda pieces: read_response(pieces, method), data, [data[:place], data[place:]])
        single = [data[place : place + 1] for place in range(len(data))]
        same(lambda pieces: read_response(pieces, method), data, single)

    @given(
        st.lists(st.sampled_from(_REQUESTS), min_size=1, max_size=4).map(b"".join),
        st.lists(st.integers(0, 4000), max_size=12),
    )
    def test_63_pipelined_requests_cut_anywhere(self, data: bytes, places: list[int]) -> None:
        """Several in a row, the bad ones at any position."""
        same(read_requests, data, cut(data, places))

    @given(st.data())
    def test_63_mutated_messages_cut_anywhere(self, data: st.DataObject) -> None:
        """A few bytes of a message replaced, removed or put in."""
        seed = data.draw(st.sampled_from(_REQUESTS + _RESPONSES))
        message = bytearray(seed)
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(message)))
            width = data.draw(st.integers(0, 2))
            message[place : place + width] = data.draw(
                st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\x00", b" ", b":", b"0", b";", b"\xff", b"\t"])
            )
        pieces = cut(bytes(message), data.draw(st.lists(st.integers(0, 4000), max_size=8)))
        same(read_requests if seed in _REQUESTS else read_response, bytes(message), pieces)

    @pytest.mark.parametrize("surplus", range(-4, 5))
    def test_63_a_head_at_the_limit_cut_near_its_end(self, surplus: int) -> None:
        """The limit is that of the head, wherever the reads end."""
        fields = b"X: %b\r\n" * 8
        empty = _HEAD + fields % ((b"",) * 8)
        fill = DEFAULT_LIMITS.head_bytes + surplus - len(empty) + 2
        data = _HEAD + fields % (b"a" * fill, *(b"",) * 7) + b"\r\n"
        for place in range(len(data) - 6, len(data) + 1):
            same(read_requests, data, [data[:place], data[place:]])

    @pytest.mark.parametrize("surplus", range(-3, 4))
    def test_63_a_chunk_line_at_the_limit_cut_near_its_end(self, surplus: int) -> None:
        """The same for the line of a chunk."""
        data = _CHUNKED + b"1;" + b"a" * (4094 + surplus) + b"\r\na\r\n0\r\n\r\n"
        for place in range(len(data) - 16, len(data) + 1):
            same(read_requests, data, [data[:place], data[place:]])


class TestAnyBytes:
    """Whatever comes, the readers raise nothing but the errors that have an answer."""

    @given(st.lists(st.binary(max_size=200), max_size=8))
    @example([b"\x16\x03\x01\x02\x00", b"\x01\x00"])
    def test_3_requests(self, pieces: list[bytes]) -> None:
        """Noise is refused, or waits for more."""
        read_requests(pieces)

    @given(st.lists(st.binary(max_size=200), max_size=8), st.sampled_from([b"GET", b"HEAD"]))
    def test_responses(self, pieces: list[bytes], method: bytes) -> None:
        """All that an instance can do wrong is `InstanceInvalid`."""
        read_response(pieces, method)

    @given(st.binary(max_size=300))
    def test_chunked_bodies(self, body: bytes) -> None:
        """Behind a good head."""
        for read, head in ((read_requests, _CHUNKED), (read_response, _CHUNKED_RESPONSE)):
            story, _ = read([head + body])
            assert "head" == story[0][0]

    @pytest.mark.parametrize(
        "noise",
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 10, b"GET /\x80\nx", b"\x04\x01\x00P\n"],
        ids=repr,
    )
    def test_3_what_can_never_become_a_head_is_refused_at_once(self, noise: bytes) -> None:
        """Not at the deadline."""
        with pytest.raises(BadRequest):
            RequestReader(Told()).feed(noise)


class TestChunks:
    """RFC 9112 7.1."""

    @given(
        st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 400), max_size=6)
    )
    def test_what_we_encode_we_read(self, payloads: list[bytes], places: list[int]) -> None:
        """A body comes out as it went in."""
        data = _CHUNKED + b"".join(map(chunk, payloads)) + last_chunk([(b"X-Sum", b"1")])
        story, refused = read_requests(cut(data, places))
        body = b"".join(payloads)
        expected = [("body", body)] if body else []
        assert not refused
        assert [*expected, ("end", (b"X-Sum", b"1"))] == list(story[1:])

    @pytest.mark.parametrize(
        "size",
        [
            *(b"0x5", b"+5", b"-5", b"5_0", b" 5", b"5 ", b"5\t", b"", b"G", b"5\x00", b"5 5", b"5,5"),
            *(b"0" * 16 + b"5", b"f" * 16, b"7" + b"f" * 15, b"\xef\xbc\x95", b"5;\x00x", b"5;a\rb"),
            *(b"5;", b"5;a;", b"5;=b", b"5;a=", b'5;a="b', b'5;a="b"c', b"5;a b", b"5;a ", b'5;"a"'),
        ],
        ids=repr,
    )
    def test_45_47_bad_sizes(self, size: bytes) -> None:
        """Refused, and never the end of a message."""
        for read, head in ((read_requests, _CHUNKED), (read_response, _CHUNKED_RESPONSE)):
            story, refused = read([head + size + b"\r\nhello\r\n0\r\n\r\n"])
            assert refused
            assert ["head"] == [call[0] for call in story]

    @pytest.mark.parametrize(
        "size", [b"5", b"005", b"0000000000000005", b"5;x", b'5;x="y"', b"5 ;x", b"5\t;x = y"]
    )
    def test_45_good_sizes(self, size: bytes) -> None:
        """Leading zeros are hexadecimal ones, extensions are ignored."""
        story, refused = read_requests([_CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n"])
        assert not refused
        assert (("body", b"hello"), ("end",)) == story[1:]

    @pytest.mark.parametrize("one", [b"1\r\na\r\n", b"01;x\r\na\r\n", b"1\r\na\r\n01\r\na\r\n"], ids=repr)
    def test_80_one_read_of_very_many_is_taken_apart_in_pieces(self, one: bytes) -> None:
        """Each costs the same; others have their turn between them, and in the end all of it has come out."""

        def cost(chunks: int) -> int:
            told = Told()
            reader = RequestReader(told)
            reader.feed(_CHUNKED)
            data = one * (chunks // one.count(b"a")) + b"0\r\n\r\n"
            first = instructions(lambda: reader.feed(data))
            while reader.is_behind:
                reader.feed(b"")
            assert [("body", b"a" * chunks), ("end",)] == told.calls[1:]
            return first

        assert cost(5000) < 2 * cost(1000)

    def test_50_extensions_have_a_budget(self) -> None:
        """For the whole body."""
        reader = RequestReader(Told())
        reader.feed(_CHUNKED)
        with pytest.raises(BadRequest):  # noqa: PT012 -- which of them is too many is not the point
            for _ in range(100_000):
                reader.feed(b"1;abcdefgh\r\na\r\n")

    def test_50_a_line_without_end_is_refused(self) -> None:
        """Before it takes memory."""
        for begin in (b"5;", b"0\r\nX: "):
            reader = RequestReader(Told())
            reader.feed(_CHUNKED + begin)
            with pytest.raises(BadRequest):
                reader.feed(b"a" * 5000)

    def test_51_trailers_are_bounded(self) -> None:
        """All of them together."""
        reader = RequestReader(Told())
        reader.feed(_CHUNKED + b"0\r\n")
        with pytest.raises(BadRequest):  # noqa: PT012 -- as above
            for number in range(1000):
                reader.feed(b"X-%d: aaaaaaaa\r\n" % number)


@pytest.mark.parametrize("body", [b"5\r\nhel", b"5\r\nhelloX", b"0\r\nTrailer: x\r\n"], ids=repr)
def test_half_a_chunked_body_goes_with_its_reader(body: bytes) -> None:
    """At once, without the garbage collector, which comes seldom: it may hold a whole read."""

    def bodies() -> list[ChunkedBody]:
        return [one for one in gc.get_objects() if isinstance(one, ChunkedBody)]

    gc.collect()
    gc.disable()
    try:
        before = len(bodies())
        read_requests([_CHUNKED + body])
        assert before == len(bodies())
    finally:
        gc.enable()
