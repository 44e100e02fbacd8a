"""The corpus of llhttp, read by our readers: the same messages, or a refusal that has its reason here.

llhttp parses the fields for us; start lines, framing and bodies are our own. So this holds what is ours
to what the authors of that parser have collected. Two adjustments: a request of HTTP/1.1 without Host
gets one, for else all of them would be refused for that alone; and of responses only the first final
one is read, since a proxy asks for one at a time.
"""

import re
from typing import Final

import pytest

from support.llhttp_corpus import Block, Field, Message, blocks
from support.messages import fields as fields_of
from support.reading import lines_of
from visa_jupyter_proxy.errors import ProxyError
from visa_jupyter_proxy.worker.http.bodies import Piece
from visa_jupyter_proxy.worker.http.lines import Fields
from visa_jupyter_proxy.worker.http.request import Request
from visa_jupyter_proxy.worker.http.request_reader import RequestReader
from visa_jupyter_proxy.worker.http.response import Response
from visa_jupyter_proxy.worker.http.response_reader import ResponseReader
from visa_jupyter_proxy.worker.http.sections import REQUEST_SPECIAL, RESPONSE_SPECIAL

_TARGET = "the target is no path, or names another authority than Host (cases 8, 12, 238)"
_PROTOCOL = "only HTTP/1.1 and HTTP/1.0 are spoken (cases 1, 2, 236)"
_CODING = "no coding but `chunked`, once, is read (case 41)"
_METHOD = "methods that nobody knows are forwarded (case 239)"
_KEY = "a WebSocket request without a valid key (case 242)"
_EMPTY_LINE = "empty lines may stand before a request, not before a response (RFC 9112 2.2)"

STRICTER: Final[dict[str, str]] = {
    "request/connection: Multiple tokens with folding and LWS": _KEY,
    "request/connection: Upgrade GET request": _KEY,
    "request/method: CONNECT request": _TARGET,
    "request/method: CONNECT request with CAPS": _TARGET,
    "request/method: CONNECT with body": _TARGET,
    "request/method: M-SEARCH request": _TARGET,
    "request/method: SOURCE request with ICE": _PROTOCOL,
    "request/method: OPTIONS request with RTSP": _PROTOCOL,
    "request/method: ANNOUNCE request with RTSP": _PROTOCOL,
    "request/method: PRI request HTTP2": _TARGET,
    "request/sample: No HTTP version": _PROTOCOL,
    "request/transfer-encoding: POST with `chunked` as last transfer-encoding": _CODING,
    "request/transfer-encoding: POST with `chunked` as last transfer-encoding (multiple headers)": _CODING,
    "request/uri: Host terminated by a query string": _TARGET,
    "request/uri: `host:port` terminated by a query string": _TARGET,
    "request/uri: `host:port` terminated by a space": _TARGET,
    "request/uri: Fragment in URI": "a fragment is no part of a target (RFC 9112 3.2)",
    "request/uri: Underscore in hostname": _TARGET,
    "request/uri: `host:port` and basic auth": _TARGET,
    "response/connection: HTTP 100 first, then 400": _EMPTY_LINE,
    "response/sample: Response starting with CRLF": _EMPTY_LINE,
    "response/sample: RTSP response": _PROTOCOL,
    "response/sample: ICE response": _PROTOCOL,
    "response/sample: HTTP version 0.9": _PROTOCOL,
    "response/transfer-encoding: `chunked` before other transfer-encoding": _CODING,
    "response/transfer-encoding: multiple transfer-encoding where chunked is not the last one": _CODING,
    "response/transfer-encoding: `chunkedchunked` transfer-encoding does not enable"
    " chunked enconding": _CODING,
}
"""Blocks that llhttp reads and we refuse, and why."""

WIDER: Final[dict[str, str]] = {
    "request/invalid: HTTP protocol and ANNOUNCE method": _METHOD,
    "request/invalid: Invalid method": _METHOD,
}
"""Blocks that llhttp refuses and we read, and why."""

AFTER_CLOSE: Final = frozenset(
    {
        "request/connection: CRLF between requests, explicit `close` (lenient)",
        "response/connection: HTTP/1.1 with keep-alive disabled and 204 status (lenient)",
        "response/connection: HTTP/1.1 with keep-alive disabled, content-length (lenient)",
    }
)
"""Blocks with bytes behind `Connection: close`, which llhttp ignores when it is told to, and we always do."""

_WITHOUT_HOST: Final = re.compile(rb"(?m)^([^\s]+ \S+ HTTP/1\.1\r\n)(?!(?:[^\r\n]+\r\n)*?(?i:host) *:)")


class _Sink:
    """Puts together what a reader tells."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.keep_alive = True

    def request_received(self, request: Request) -> None:
        self._head(request, (request.method, request.target), REQUEST_SPECIAL)
        if not request.has_body:
            self.request_ended(())

    def response_received(self, response: Response) -> None:
        self._head(response, (b"%d" % response.status,), RESPONSE_SPECIAL)
        self.messages[-1].is_complete = response.status < 200 and response.status != 101

    def body_received(self, payload: Piece) -> None:
        self.messages[-1].body += payload

    def request_ended(self, trailers: Fields) -> None:
        self.messages[-1].trailers = [(name.lower(), value) for name, value in trailers]
        self.messages[-1].is_complete = True

    response_body_received = body_received
    response_ended = request_ended

    def _head(self, head: Request | Response, start: tuple[bytes, ...], special: frozenset[bytes]) -> None:
        fields = [(name.lower(), value) for name, value in fields_of(lines_of(head))]
        for name, values in head.special.items():
            if name in special or name.startswith(b"x-forwarded-"):
                fields += [(name, value) for value in values]
        self.messages.append(Message(start, fields))
        self.keep_alive = head.keep_alive


def _read(block: Block, size: int) -> tuple[list[Message], str | None]:
    """Read a block in pieces of `size` bytes; give the messages, and why no more can be read."""
    sink = _Sink()
    data = block.data
    try:
        if block.kind.startswith("request"):
            _read_requests(_WITHOUT_HOST.sub(rb"\1Host: added\r\n", data), size, sink)
        else:
            reader = ResponseReader(sink, b"GET")
            for start in range(0, len(data), size):
                reader.feed(data[start : start + size])
    except ProxyError as error:
        return sink.messages, str(error)
    return sink.messages, None


def _read_requests(data: bytes, size: int, sink: _Sink) -> None:
    reader = RequestReader(sink)
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
        while reader.ended and reader.leftover and sink.keep_alive:
            reader.proceed()


def _comparable(messages: list[Message], *, is_response: bool) -> list[object]:
    """Forget the order of fields, the Host that was added, and what follows a final response."""
    shown: list[object] = []
    for message in messages:
        fields = sorted(_kept(message))
        shown.append((message.start, fields, message.body, message.trailers, message.is_complete))
        if is_response and (message.start == (b"101",) or message.start >= (b"200",)):
            break
    return shown


def _kept(message: Message) -> list[Field]:
    """Drop the added Host, and what `Connection` names: that is gone from the fields to forward."""
    named = {
        option.strip(b" \t").lower()
        for name, value in message.fields
        if name == b"connection"
        for option in value.split(b",")
    } - REQUEST_SPECIAL
    return [field for field in message.fields if field != (b"host", b"added") and field[0] not in named]


@pytest.fixture(scope="module")
def corpus() -> list[Block]:
    """Fetch it."""
    return blocks()


def _judge(block: Block) -> str:
    """Say how our reading differs from llhttp's: `same`, `stricter`, `wider`, or `different`."""
    messages, error = _read(block, len(block.data) or 1)
    is_response = block.kind.startswith("response")
    ours = _comparable(messages, is_response=is_response)
    theirs = _comparable(block.messages, is_response=is_response)
    if block.error is not None:
        # What is not complete yet is not refused yet: but no more of it is complete than there.
        wider = error is None and sum(m.is_complete for m in messages) > sum(
            m.is_complete for m in block.messages
        )
        return "wider" if wider else "same"
    if error is not None:
        return "stricter"
    return "same" if ours == theirs else "different"


def test_the_corpus_is_there(corpus: list[Block]) -> None:
    """Two hundred blocks at least, each with a name of its own."""
    assert len(corpus) > 200
    assert len(corpus) == len({block.name for block in corpus})


def test_every_block_is_read_the_same_or_refused_for_a_reason(corpus: list[Block]) -> None:
    """What llhttp reads by the RFC we read the same, but for `STRICTER` and, the other way round, `WIDER`."""
    verdicts = {block.name: _judge(block) for block in corpus if not block.is_lenient}
    assert [] == [name for name, verdict in verdicts.items() if verdict == "different"]
    assert sorted(STRICTER) == sorted(name for name, verdict in verdicts.items() if verdict == "stricter")
    assert sorted(WIDER) == sorted(name for name, verdict in verdicts.items() if verdict == "wider")


def test_leniencies_are_not_ours(corpus: list[Block]) -> None:
    """What llhttp reads only when it is told to be lenient, we do not read as it does then."""
    lenient = [block for block in corpus if block.is_lenient]
    assert len(lenient) > 30
    accepted = [block.name for block in lenient if block.error is None and _judge(block) == "same"]
    assert sorted(AFTER_CLOSE) == sorted(accepted)


def test_however_it_is_cut(corpus: list[Block]) -> None:
    """In single bytes each block means what it means in one piece (case 63)."""
    for block in corpus:
        whole, error = _read(block, len(block.data) or 1)
        pieces, piecewise = _read(block, 1)
        assert (error is None) == (piecewise is None), block.name
        if error is None:
            assert whole == pieces, block.name
        else:  # of the last body more or less may have been passed on by then
            assert [one.is_complete for one in whole] == [one.is_complete for one in pieces], block.name
