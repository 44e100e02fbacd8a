"""What the readers of messages tell, for bytes in any pieces; and bytes to read messages from.

story, refused = read_requests([b"GET / HT", b"TP/1.1..."])
same(read_response, data, cut(data, [3, 17]))      # must tell the same of the whole and of the pieces
Bytes(data).message()                              # by RFC 9112, and by none of the code that is tested
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import override

from support.client import Reader
from visa_jupyter_proxy.errors import InstanceInvalid, ProxyError
from visa_jupyter_proxy.worker.http.bodies import Piece
from visa_jupyter_proxy.worker.http.lines import Fields, Lines
from visa_jupyter_proxy.worker.http.request import Request
from visa_jupyter_proxy.worker.http.request_reader import RequestReader
from visa_jupyter_proxy.worker.http.response import Response
from visa_jupyter_proxy.worker.http.response_reader import ResponseReader

type Story = tuple[tuple[object, ...], ...]
"""What a sink was told, the pieces of a body joined."""


def lines_of(head: Request | Response) -> Lines:
    """Return the lines that go on, as they came."""
    if isinstance(head, Request):
        return head.lines
    return (head.section.passing + head.own_lines).splitlines(keepends=True)


class Told:
    """A sink of either reader that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def request_received(self, request: Request) -> None:
        """Keep a head."""
        self.calls.append(("head", request.method, request.target, request.lines, request.special))
        if not request.has_body:
            self.request_ended(())

    def response_received(self, response: Response) -> None:
        """Keep a head."""
        self.calls.append(("head", response.status, response.reason, lines_of(response), response.special))

    def body_received(self, payload: Piece) -> None:
        """Keep a piece of a body."""
        assert payload
        match self.calls[-1]:
            case ("body", bytes() as before):
                self.calls[-1] = ("body", before + payload)
            case _:
                self.calls.append(("body", bytes(payload)))

    response_body_received = body_received

    def request_ended(self, trailers: Fields) -> None:
        """Keep an end."""
        self.calls.append(("end", *trailers))

    response_ended = request_ended


def read_requests(pieces: Iterable[bytes]) -> tuple[Story, bool]:
    """Read requests, each in its turn; return what was told, and whether something was refused."""
    told = Told()
    reader = RequestReader(told)
    try:
        for piece in pieces:
            reader.feed(piece)
            while reader.ended:
                reader.proceed()
    except ProxyError:
        return tuple(told.calls), True
    return tuple(told.calls), False


def read_response(pieces: Iterable[bytes], method: bytes = b"GET") -> tuple[Story, bool]:
    """Read one response; what was told ends with what came behind it, and whether it is complete."""
    told = Told()
    reader = ResponseReader(told, method)
    try:
        for piece in pieces:
            reader.feed(piece)
    except InstanceInvalid:
        return tuple(told.calls), True
    return (*told.calls, ("leftover", reader.leftover), ("complete", reader.end())), False


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut at these places, of any size."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in pairwise(bounds)]


def _last_body(story: Story) -> tuple[Story, bytes]:
    if story and story[-1][0] == "body":
        assert isinstance(story[-1][1], bytes)
        return story[:-1], story[-1][1]
    return story, b""


def same(read: Callable[[Iterable[bytes]], tuple[Story, bool]], data: bytes, pieces: list[bytes]) -> None:
    """Compare what whole and cut bytes give; more of a body may be passed on before it is seen to be bad."""
    whole, refused = read([data])
    cut, cut_refused = read(pieces)
    assert refused == cut_refused
    if refused:
        (whole, body), (cut, cut_body) = _last_body(whole), _last_body(cut)
        assert cut_body.startswith(body)
    assert whole == cut


class Bytes(Reader):
    """Reads messages from bytes that are all there is."""

    def __init__(self, data: bytes) -> None:
        self.buffer = data

    @override
    def more(self) -> bool:
        return False
