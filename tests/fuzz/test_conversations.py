"""Mutated messages without sockets, many more of them: what one peer sends, and what the other gets of it.

What is sent on is read by RFC 9112 and by none of the code that is tested.
"""

import re
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.mutation import Stock
from fuzz.peers import accept, chance, filled
from fuzz.seeds import ANSWERS, REQUESTS, WORDS
from support.client import ConnectionEnded, Message
from support.conversation import FILES, JUPYTER, Conversation, granted
from support.reading import Bytes, cut, read_requests, read_response, same
from visa_jupyter_proxy.worker.exchange import Closing, Phase

_VALUES: Final = {"ID": "7", "OTHER": "8", "TOKEN": "token"}
_KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="
_LARGEST: Final = 4096
"""Bytes of a seed: there are other tests for large ones."""

_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: ?[\t -~\x80-\xff]*")


def _stock(seeds: list[bytes]) -> Stock:
    values = _VALUES | {"ACCEPT": accept(_KEY).decode()}
    return Stock([seed for seed in filled(seeds, values) if len(seed) < _LARGEST], filled(WORDS, values))


def _messages(stock: Stock) -> st.SearchStrategy[bytes]:
    return st.integers(0, 2**64).map(lambda number: stock.message(chance("hypothesis", "peer", number)))


_requests: Final = _messages(_stock(REQUESTS))
_answers: Final = _messages(_stock(ANSWERS))
_places: Final = st.lists(st.integers(0, 400), max_size=8)
_often: Final = settings(max_examples=400)


def _is_clean(head: bytes) -> bool:
    """Whether a head has lines that can be read in one way only, and its framing, if any, is said once."""
    _, *lines = head[:-4].split(b"\r\n")
    names = [line.partition(b":")[0].lower() for line in lines]
    framing = names.count(b"content-length") + names.count(b"transfer-encoding")
    return all(map(_LINE.fullmatch, lines)) and framing <= 1 and names.count(b"host") <= 1


class TestReaders:
    """The same bytes, in any pieces, are the same messages (case 63)."""

    @_often
    @given(_requests, _places)
    def test_requests_cut_anywhere(self, message: bytes, places: list[int]) -> None:
        """And nothing is raised but what has an answer."""
        same(read_requests, message, cut(message, places))

    @_often
    @given(_answers, _places, st.sampled_from([b"GET", b"HEAD"]))
    def test_answers_cut_anywhere(self, message: bytes, places: list[int], method: bytes) -> None:
        """Likewise."""
        same(lambda pieces: read_response(pieces, method), message, cut(message, places))


@_often
@given(_requests, _places, st.integers(0, 4))
def test_what_the_instance_gets_is_one_request(message: bytes, places: list[int], when: int) -> None:
    """Whole or cut short, it is framed once, its head is clean, and nothing is behind it (cases 53, 54)."""
    talk = Conversation(JUPYTER, FILES, grant=granted())
    try:
        for number, piece in enumerate(cut(message, places)):
            if number == when:
                _connect(talk)
            if not talk.ended and talk.refused is None:
                talk.client(piece)
        _connect(talk)
        if talk.wire is not None and talk.wire.sent:
            _check_request(talk, bytes(talk.wire.sent))
    finally:
        _close(talk)


def _connect(talk: Conversation) -> None:
    if talk.wire is None and not talk.is_over and talk.exchange.phase is Phase.AUTHORIZE:
        talk.connected()


def _check_request(talk: Conversation, sent: bytes) -> None:
    reader, exchange = Bytes(sent), talk.exchange
    head = reader.message(no_body=True, is_request=True)
    assert _is_clean(head.head), head.head
    assert (exchange.request.method, True) == (head.method, head.target.startswith(b"/"))
    try:
        whole: Message | None = (reader := Bytes(sent)).message(is_request=True)
    except ConnectionEnded:
        whole = None
    assert exchange.request_is_complete == (whole is not None)
    if whole is not None:
        assert (exchange.bytes_up, b"") == (len(whole.body), reader.buffer)


@_often
@given(
    answer=_answers,
    places=_places,
    method=st.sampled_from(["GET", "HEAD", "PUT"]),
    version=st.sampled_from(["1.0", "1.1"]),
    how=st.sampled_from(["closes", "resets", "stays"]),
    upgrade=st.booleans(),
)
def test_what_the_client_gets_is_one_answer(
    answer: bytes, places: list[int], method: str, version: str, how: str, *, upgrade: bool
) -> None:
    """It is complete for the client exactly when it was for us, and its head is clean (cases 176 to 180)."""
    fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"] if upgrade else []
    key = [f"Sec-WebSocket-Key: {_KEY.decode()}"] if upgrade else []
    talk = Conversation(JUPYTER, grant=granted())
    try:
        talk.client(f"{method} /jupyter/7/x HTTP/{version}", "Host: visa", *fields, *key, "", "")
        talk.connected()
        for piece in cut(answer, places):
            if not talk.is_over and talk.tunnel_early is None:
                talk.instance(piece)
        if not talk.is_over and talk.tunnel_early is None:
            if how == "closes":
                talk.instance_closes()
            elif how == "resets":
                talk.instance_resets()
        if talk.is_over:
            _check_answer(talk, method)
            assert talk.exchange.error is not None or not _stops_early(answer, method)
        else:
            assert how == "stays" or talk.tunnel_early is not None
    finally:
        _close(talk)


def _check_answer(talk: Conversation, method: str) -> None:
    exchange, reader = talk.exchange, Bytes(bytes(talk._to_client))
    complete = talk.closing is not Closing.RESET
    try:
        while (message := reader.message(no_body=method == "HEAD")).status < 200:
            assert _is_clean(message.head), message.head
    except ConnectionEnded:
        assert exchange.error is not None
        return
    assert _is_clean(message.head), message.head
    assert b"" == reader.buffer
    assert exchange.status == message.status
    answered_by_us = exchange.error is not None and exchange.error.status == message.status
    assert complete == (exchange.error is None or answered_by_us)


def _stops_early(answer: bytes, method: str) -> bool:
    """Whether an answer ends before its end, by a reader that is not strict."""
    reader = Bytes(answer)
    try:
        while reader.message(no_body=method == "HEAD").status < 200:
            continue
    except ConnectionEnded:
        return True
    except (ValueError, AssertionError, IndexError):
        return False  # it cannot be told where such an answer ends
    return False


def _close(talk: Conversation) -> None:
    talk.hangups.close()
    talk.loop.close()
