"""WebSocket's own words: how one is asked for and accepted, and where its frames end (RFC 6455)."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode

from support.messages import request, response
from visa_jupyter_proxy.errors import BadRequest, HeadTooLarge, ProxyError, UpgradeRequired
from visa_jupyter_proxy.worker.http.request import HeadLimits, parse_request
from visa_jupyter_proxy.worker.http.websocket import Frames, accepts_websocket, close_frame

_WEBSOCKET = (
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: WebSocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
_ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The answer to that key: both are the example of RFC 6455 1.3."""


def _refused(error: type[ProxyError], *fields: bytes) -> None:
    with pytest.raises(error):
        request(*fields)


class TestHandshake:
    """RFC 6455 4.1 and 4.2.1."""

    def test_146_what_browsers_send(self) -> None:
        """In their spellings."""
        assert request(*_WEBSOCKET).websocket

    @pytest.mark.parametrize(
        "fields",
        [
            (b"Connection: Upgrade", b"Upgrade: h2c"),
            (b"Connection: Upgrade", b"Upgrade: foo"),
            (b"Upgrade: websocket",),
            (b"Connection: keep-alive", *_WEBSOCKET[1:]),
        ],
    )
    def test_144_241_other_upgrades_are_ignored(self, fields: tuple[bytes, ...]) -> None:
        """As if they had not been offered, a body included (RFC 9110 7.8)."""
        asked = request(*fields, b"Content-Length: 5", line=b"POST /x HTTP/1.1")
        assert (False, 5) == (asked.websocket, asked.length)
        assert not request(*fields).websocket

    @pytest.mark.parametrize("line", [b"POST /x HTTP/1.1", b"GET /x HTTP/1.0"])
    def test_only_get_of_http_1_1_upgrades(self, line: bytes) -> None:
        """Others are plain requests."""
        assert not request(*_WEBSOCKET, line=line).websocket

    @pytest.mark.parametrize(
        "key",
        [
            (),
            (b"Sec-WebSocket-Key: abc",),
            (b"Sec-WebSocket-Key:",),
            (_WEBSOCKET[3], _WEBSOCKET[3]),
            (_WEBSOCKET[3], _WEBSOCKET[3].lower()),
            (_WEBSOCKET[3].lower(), _WEBSOCKET[3]),
            (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, x",),
        ],
    )
    def test_147_242_one_valid_key(self, key: tuple[bytes, ...]) -> None:
        """16 bytes in base64, once."""
        _refused(BadRequest, *_WEBSOCKET[:3], *key)

    def test_the_key_counts_among_the_fields(self) -> None:
        """For the limit of their number."""
        head = b"\r\n".join([b"GET /x HTTP/1.1", b"Host: visa.test", *_WEBSOCKET, b"", b""])
        assert parse_request(head, HeadLimits(fields=5)).special[b"sec-websocket-key"]
        with pytest.raises(HeadTooLarge):
            parse_request(head, HeadLimits(fields=4))

    @pytest.mark.parametrize(
        "version", [(), (b"Sec-WebSocket-Version: 8",), (b"Sec-WebSocket-Version: 13, 8",)]
    )
    def test_147_one_version(self, version: tuple[bytes, ...]) -> None:
        """426 tells which (RFC 6455 4.4)."""
        _refused(UpgradeRequired, *_WEBSOCKET[:2], *version, _WEBSOCKET[3])

    @pytest.mark.parametrize("body", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
    def test_a_body_is_refused(self, body: bytes) -> None:
        """Nothing would tell whether its bytes are frames."""
        _refused(BadRequest, *_WEBSOCKET, body)

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ((b"Connection: Upgrade", b"Upgrade: WebSocket", _ACCEPT), True),
            ((b"Connection: keep-alive, upgrade", b"Upgrade: websocket", _ACCEPT), True),
            ((b"Upgrade: websocket", _ACCEPT), False),
            ((b"Connection: Upgrade", _ACCEPT), False),
            ((b"Connection: Upgrade", b"Upgrade: foo", _ACCEPT), False),
            ((b"Connection: Upgrade", b"Upgrade: websocket"), False),
            ((b"Connection: Upgrade", b"Upgrade: websocket", _ACCEPT.lower()), False),
            ((b"Connection: Upgrade", b"Upgrade: websocket", _ACCEPT, _ACCEPT), False),
        ],
    )
    def test_152_the_answer_belongs_to_the_key(self, fields: tuple[bytes, ...], *, expected: bool) -> None:
        """All three fields, exactly."""
        answer = response(*fields, line=b"HTTP/1.1 101 Switching")
        assert expected is accepts_websocket(request(*_WEBSOCKET), answer)


def _frame(first: int, size: int, *, masked: bool = False, length: int | None = None) -> bytes:
    """Write a frame of zeros; `length` 16 or 64 is an extended length that it need not have."""
    mask = 0x80 if masked else 0
    if length is None:
        length = 0 if size < 126 else 16 if size < 2**16 else 64
    if length:
        head = bytes([first, mask | (126 if length == 16 else 127)]) + size.to_bytes(length // 8)
    else:
        head = bytes([first, mask | size])
    return head + bytes(4 if masked else 0) + bytes(size)


def _fed(*pieces: bytes, masked: bool = False) -> Frames:
    frames = Frames(masked=masked)
    for piece in pieces:
        while rest := frames.feed(piece):
            assert len(rest) < len(piece)
            piece = rest  # noqa: PLW2901 -- what is left of it
    return frames


def _verdict(frames: Frames) -> tuple[bool, bool, bool, int]:
    return frames.gave_up, frames.at_boundary, frames.closed, frames.messages


def _read_slowly(data: bytes, *, masked: bool) -> tuple[bool, bool, bool, int]:
    """Follow the frames of a whole stream as RFC 6455 5.2 draws them, one field after the other."""
    closed, in_message, messages, at = False, False, 0, 0
    while len(data) - at >= 2:
        fin, opcode = data[at] >> 7, data[at] & 15
        is_masked, size = bool(data[at + 1] >> 7), data[at + 1] & 127
        at += 2
        if opcode in (3, 4, 5, 6, 7) or opcode > 10 or is_masked is not masked:
            return True, False, closed, messages
        if opcode == 0 and not in_message:
            return True, False, closed, messages
        if opcode >= 8 and (not fin or size > 125):
            return True, False, closed, messages
        if size >= 126:
            field = data[at : at + (2 if size == 126 else 8)]
            if len(field) < (2 if size == 126 else 8):
                return False, False, closed, messages
            at += len(field)
            size = int.from_bytes(field)
        if size >= 2**63:
            return True, False, closed, messages
        messages += opcode in (1, 2)
        closed = closed or opcode == 8
        if opcode == 0 or (opcode < 3 and not fin):
            in_message = not fin
        at += 4 * masked + size
    return False, at == len(data), closed, messages


def _cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


_SIZES = (0, 1, 64, 125, 126, 127, 300, 2**16 - 1, 2**16, 70_000)


class TestFrames:
    """RFC 6455 5.2: a frame's header tells where the next one begins."""

    def test_before_anything_a_frame_may_begin(self) -> None:
        """An idle tunnel is at a boundary."""
        assert (False, True, False, 0) == _verdict(_fed())

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("size", _SIZES)
    def test_a_frame_ends_with_its_last_byte(self, size: int, *, masked: bool) -> None:
        """Whatever the form of its length."""
        frame = _frame(0x82, size, masked=masked)
        frames = _fed(frame[:-1], masked=masked)
        assert not frames.at_boundary
        frames.feed(frame[-1:])
        assert (False, True, False, 1) == _verdict(frames)
        frames.feed(frame + b"\x89")
        assert (False, False, False, 2) == _verdict(frames)

    @pytest.mark.parametrize("length", [16, 64])
    def test_a_length_may_be_written_longer_than_it_need_be(self, length: int) -> None:
        """That is the receiver's to judge: the boundary is known all the same."""
        assert (False, True, False, 1) == _verdict(_fed(_frame(0x82, 5, length=length)))

    def test_a_message_in_fragments_with_a_ping_between_them(self) -> None:
        """It is one message, and control frames are none (5.4)."""
        frames = _fed(_frame(0x01, 10), _frame(0x89, 4), _frame(0x00, 200), _frame(0x8A, 0), _frame(0x80, 0))
        assert (False, True, False, 1) == _verdict(frames)

    def test_the_bits_of_extensions_are_theirs(self) -> None:
        """permessage-deflate sets the first (RFC 7692 6)."""
        assert (False, True, False, 3) == _verdict(
            _fed(b"".join(_frame(0x82 | bit, 9) for bit in (64, 32, 16)))
        )

    def test_a_close_frame_is_noted(self) -> None:
        """No second one may follow it."""
        frames = _fed(_frame(0x81, 3), _frame(0x88, 2))
        assert (False, True, True, 1) == _verdict(frames)

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize(
        "start",
        [
            *(bytes([0x80 | opcode, 0]) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
            *(bytes([opcode, 0]) for opcode in (0, 8, 9, 10)),
            b"\x80\x05hello",
            *(bytes([0x88, 126, 0, 126]), bytes([0x89, 127]), bytes([0x8A, 126])),
            b"\x82\x7f\x80" + bytes(7),
            b"\x01\x7f" + b"\xff" * 8,
        ],
        ids=repr,
    )
    def test_what_is_no_frame_is_given_up(self, start: bytes, *, masked: bool) -> None:
        """Reserved opcodes, fragments of nothing or of control frames, lengths that may not be."""
        if masked:
            start = bytes([start[0], start[1] | 0x80]) + start[2:]
        frames = _fed(_frame(0x82, 3, masked=masked), start, masked=masked)
        assert (True, False, False, 1) == _verdict(frames)
        frames.feed(_frame(0x82, 3, masked=masked) + bytes(2**16))
        assert (True, False, False, 1) == _verdict(frames)

    @pytest.mark.parametrize("masked", [False, True])
    def test_the_mask_tells_the_direction(self, *, masked: bool) -> None:
        """A client masks, a server does not (5.1)."""
        for first in (0x82, 0x89):
            assert _fed(_frame(first, 5, masked=not masked), masked=masked).gave_up

    def test_something_else_than_websocket(self) -> None:
        """An instance may speak what it likes behind its 101."""
        assert _fed(b"SSH-2.0-OpenSSH_9.2\r\n").gave_up

    def test_a_large_frame_in_many_pieces(self) -> None:
        """64 MiB, and nothing of it is kept."""
        size = 2**26
        frames = _fed(_frame(0x82, size)[:10], *[bytes(2**20)] * 63)
        assert not frames.at_boundary
        frames.feed(bytes(2**20) + _frame(0x89, 0))
        assert (False, True, False, 1) == _verdict(frames)

    @pytest.mark.parametrize("frame", [_frame(0x89, 0), _frame(0x82, 0), _frame(0x00, 1), _frame(0x82, 126)])
    def test_many_frames_at_once_are_followed_in_turns(self, frame: bytes) -> None:
        """Whoever feeds them does something else in between; what is left comes back."""
        begun = frame[0] == 0x82
        frames = _fed(_frame(0x01, 0) if frame[0] == 0 else b"")
        frames.messages = 0
        rest = frames.feed(frame * 2500 + b"\x82")
        assert frame * 1500 + b"\x82" == rest
        assert 1000 * begun == frames.messages
        rest = frames.feed(rest)
        assert frame * 500 + b"\x82" == rest
        assert b"" == frames.feed(rest)
        assert (False, False, False, 2500 * begun) == _verdict(frames)
        assert b"" == frames.feed(b"\x00")
        assert (False, True, False, 2500 * begun + 1) == _verdict(frames)

    @pytest.mark.parametrize("count", [999, 1000, 1001])
    @pytest.mark.parametrize("behind", [b"", b"\x82", b"\x82\x7e\x01", b"\x82\x03a"])
    def test_at_the_edge_of_a_turn(self, count: int, behind: bytes) -> None:
        """It ends at a boundary, whatever stands there."""
        data = _frame(0x89, 0) * count + behind
        assert _read_slowly(data, masked=False) == _verdict(_fed(data))

    def test_it_says_what_it_knows(self) -> None:
        """For whoever debugs."""
        assert "Frames(at a boundary, messages=1, closed=False)" == repr(_fed(_frame(0x82, 3)))
        assert "Frames(in a frame, messages=0, closed=False)" == repr(_fed(b"\x82"))
        assert "Frames(not frames, messages=0, closed=False)" == repr(_fed(b"\x83\x00"))


_streams = st.lists(
    st.builds(
        lambda first, size, masked: (first, size, masked),
        st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0xC1, 0x88, 0x89, 0x8A]) | st.integers(0, 255),
        st.sampled_from([0, 1, 5, 124, 125]) | st.sampled_from([126, 127, 128, 2**16 - 1, 2**16]),
        st.sampled_from([True] * 9 + [False]),
    ),
    max_size=6,
)


class TestCutAnywhere:
    """However the bytes come, the verdict is the same: that of a reader who sees them all at once."""

    @given(st.booleans(), _streams, st.lists(st.integers(0, 400), max_size=30))
    def test_frames(self, masked: bool, parts: list[tuple[int, int, bool]], places: list[int]) -> None:
        """Most of them valid."""
        data = b"".join(_frame(first, size, masked=masked is right) for first, size, right in parts)
        _same(data, places, masked=masked)

    @given(st.booleans(), st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=60))
    @example(masked=False, data=b"\x82\x7f" + bytes(7), places=[1, 2, 3])
    @example(masked=False, data=b"\x82\x7f" + bytes(8) + b"\x82", places=[1, 9])
    def test_any_bytes(self, masked: bool, data: bytes, places: list[int]) -> None:
        """Nothing is raised."""
        _same(data, places, masked=masked)

    @given(_streams, st.lists(st.integers(0, 400), max_size=30))
    def test_a_frame_is_finished_at_its_own_end(
        self, parts: list[tuple[int, int, bool]], places: list[int]
    ) -> None:
        """Of what comes, exactly so much belongs to the frame under way; all of it while there is no end."""
        data = b"".join(_frame(first, size, masked=not right) for first, size, right in parts)
        first, *pieces = _cut(data, places)
        frames = _fed(first)
        passed = len(first)
        for piece in pieces:
            if frames.at_boundary:
                break
            taken = frames.finish(piece)
            assert taken == len(piece) or frames.at_boundary
            passed += taken
        assert _read_slowly(data[:passed], masked=False) == _verdict(frames)
        inner = [at for at in range(len(first) + 1, passed) if _read_slowly(data[:at], masked=False)[1]]
        assert not inner

    @pytest.mark.parametrize("masked", [False, True])
    def test_single_bytes(self, *, masked: bool) -> None:
        """At every byte, what was fed so far is judged as if it had come at once."""
        parts = [(0x01, 3), (0x89, 125), (0x80, 130), (0x82, 2**16), (0x88, 2), (0x82, 0)]
        data = b"".join(_frame(first, size, masked=masked) for first, size in parts)
        frames = Frames(masked=masked)
        for place in range(len(data)):
            frames.feed(data[place : place + 1])
            if place < 400 or place > 65_000:
                assert _read_slowly(data[: place + 1], masked=masked) == _verdict(frames)


def _same(data: bytes, places: list[int], *, masked: bool) -> None:
    expected = _read_slowly(data, masked=masked)
    assert expected == _verdict(_fed(data, masked=masked))
    assert expected == _verdict(_fed(*_cut(data, places), masked=masked))


class TestCloseFrames:
    """RFC 6455 5.5.1."""

    @pytest.mark.parametrize("reason", ["", "service restart", "x" * 123, "\u00e4" * 61])
    def test_others_read_what_was_meant(self, reason: str) -> None:
        """Code and reason."""
        frame = close_frame(1012, reason)
        assert Frame(Opcode.CLOSE, Close(1012, reason).serialize()).serialize(mask=False) == frame
        assert (False, True, True, 0) == _verdict(_fed(frame))

    def test_a_long_reason_is_cut_between_characters(self) -> None:
        """125 bytes are all that a control frame may have, and they are UTF-8."""
        assert close_frame(1008, "x" + "\u00e4" * 61) == close_frame(1008, "x" + "\u00e4" * 100)
        assert close_frame(1008, "x" * 123) == close_frame(1008, "x" * 1000)


class TestAsOthersWriteThem:
    """`websockets` writes the frames, and knows where they end."""

    @given(
        st.booleans(),
        st.lists(
            st.tuples(
                st.sampled_from(
                    [Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.PONG, Opcode.CLOSE]
                ),
                st.integers(0, 125) | st.sampled_from([126, 1000, 2**16 - 1, 2**16]),
                st.booleans(),
            ),
            max_size=8,
        ),
        st.lists(st.integers(0, 3000), max_size=10),
    )
    def test_every_frame_ends_at_a_boundary(
        self, masked: bool, parts: list[tuple[Opcode, int, bool]], places: list[int]
    ) -> None:
        """With permessage-deflate, in fragments and any pieces."""
        frames, messages, closed, in_message = Frames(masked=masked), 0, False, False
        deflate = PerMessageDeflate(False, False, 15, 15)
        for opcode, size, is_last in parts:
            is_control = opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE)
            if not is_control:
                opcode = Opcode.CONT if in_message else opcode or Opcode.TEXT  # noqa: PLW2901 -- as it may be
                in_message = not is_last
            payload = bytes(size % 126 if is_control else size)
            frame = Frame(opcode, payload, fin=is_control or is_last)
            data = frame.serialize(mask=masked, extensions=[deflate])
            for piece in _cut(data, places):
                frames.feed(piece)
            messages += opcode in (Opcode.TEXT, Opcode.BINARY)
            closed = closed or opcode is Opcode.CLOSE
            assert (False, True, closed, messages) == _verdict(frames)
