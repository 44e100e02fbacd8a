"""A conversation with one exchange: what arrives, and what must be sent. Two peers and bytes.

    with conversation() as talk:
        talk.client("POST /jupyter/7/api HTTP/1.1", "Host: visa", "Content-Length: 5", "", "hello")
        talk.connected()
        talk.upstream_gets("POST /jupyter/7/api HTTP/1.1", "host: visa", "content-length: 5", "", "hello")
        talk.instance("HTTP/1.1 204 No Content", "", "")
        talk.client_gets("HTTP/1.1 204 No Content", "", "")
        assert talk.kept

The arguments of a message are its lines: after the empty one comes the body (`""` for none). A single
`bytes` argument is taken as it is. In what is compared, names are in lower case, fields stand in the
order of their names, and those that the proxy adds to every message count only where they are named.

The exchange, the readers, the connection to the instance and its pool are the real ones; of the rest
there is only what they need: a transport that keeps the bytes, a client's port, and a clock that stands.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, override

from support.pages import PAGES
from visa_jupyter_proxy.errors import ProxyError
from visa_jupyter_proxy.routes import Rewrite, Route, Router
from visa_jupyter_proxy.visa_api import Instance
from visa_jupyter_proxy.worker.access.forwarded import Client
from visa_jupyter_proxy.worker.access.grant import Grant
from visa_jupyter_proxy.worker.crowds import MOST_AT_ONCE, Crowd
from visa_jupyter_proxy.worker.exchange import Closing, Exchange, Phase
from visa_jupyter_proxy.worker.forwarding.fields import request_lines
from visa_jupyter_proxy.worker.http.bodies import Piece
from visa_jupyter_proxy.worker.http.lines import Fields
from visa_jupyter_proxy.worker.http.request import Request, request_head
from visa_jupyter_proxy.worker.http.request_reader import RequestReader
from visa_jupyter_proxy.worker.pages import Answer
from visa_jupyter_proxy.worker.pool import Pool
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.sockets.sockets import Timed
from visa_jupyter_proxy.worker.sockets.splice import Sink, Splices
from visa_jupyter_proxy.worker.upstream import Address, Upstream

JUPYTER: Final = Route(match=r"^/jupyter/(\d+).*", type="jupyter", name="Jupyter", remote_port=8888, ws=True)
FILES: Final = Route(
    match=r"^/visafs/(\d+).*",
    type="service",
    name="Visa Files",
    remote_port=8090,
    path_rewrite=(Rewrite(r"^/visafs/\d+/", "/"),),
)

CLIENT_ADDRESS: Final = "192.0.2.7"
DATE: Final = b"Thu, 01 Jan 2026 00:00:00 GMT"
REQUEST_ID: Final = b"request-1"

_ADDED: Final = frozenset(
    {
        b"date",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    }
)
_RESPONSE_TIMEOUT_S: Final = 300.0


def message(*lines: str | bytes) -> bytes:
    """Return the bytes of a message that is written as lines."""
    return b"\r\n".join(line.encode("latin-1") if isinstance(line, str) else line for line in lines)


def granted(instance_id: int = 7, *, host: str = "10.0.0.7", state: str = "ACTIVE", **values: str) -> Grant:
    """Return a grant of an instance."""
    instance = Instance(id=instance_id, host=host, state=state, owner="anna", values=values)
    return Grant((b"digest", instance_id), instance, host, "anna", expires=60.0, usable_until=60.0)


class Wire(asyncio.Transport):
    """A transport in memory: keeps what was written, and what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.unsent = 0
        """How much of it the other end has not taken."""
        self.reading = True
        self.sock: socket.socket | None = None
        self.ended = False
        self.closing = False
        self.aborted = False
        self._protocol: asyncio.BaseProtocol = asyncio.Protocol()

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    @override
    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    @property
    def protocol(self) -> asyncio.Protocol:
        """The one that is told what comes."""
        assert isinstance(self._protocol, asyncio.Protocol)
        return self._protocol

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closing:
            self.sent += data

    @override
    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.sock if name == "socket" else default

    @override
    def can_write_eof(self) -> bool:
        return True

    @override
    def write_eof(self) -> None:
        self.ended = True

    @override
    def get_write_buffer_size(self) -> int:
        return self.unsent

    @override
    def pause_reading(self) -> None:
        self.reading = False

    @override
    def resume_reading(self) -> None:
        if self.closing:
            raise RuntimeError("closed")  # as uvloop's does
        self.reading = True

    @override
    def is_closing(self) -> bool:
        return self.closing

    @override
    def close(self) -> None:
        self.closing = True

    @override
    def abort(self) -> None:
        self.closing = self.aborted = True


class _TunnelSide(asyncio.Protocol):
    """Takes the instance's connection over, and notes how it is lost."""

    def __init__(self, ended: list[Exception | None]) -> None:
        self._ended = ended

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.append(exc)


class Conversation:
    """Both peers of an exchange; the client's port is here, the instance's is the real `Upstream`."""

    def __init__(self, *routes: Route, grant: Grant) -> None:
        self.now = 100.0
        self.grant = grant
        self.connections: set[Timed] = set()
        self.loop = asyncio.new_event_loop()  # never runs: only its clock is asked, and that is replaced
        self.hangups = Hangups(self.loop)
        self.splices = Splices(self.loop, most=0)
        self.pool = Pool(
            self.loop,
            self.connections,
            self.hangups,
            self.splices,
            connect_timeout_s=5,
            response_timeout_s=_RESPONSE_TIMEOUT_S,
        )
        self.pool.now = lambda: self.now
        self._soon: list[Callable[[], None]] = []
        self.pool.crowd = Crowd(self._soon.append, lambda: self.now)
        self.refused: ProxyError | None = None
        """What was wrong with bytes that belong to no exchange."""
        self.ended: list[Exchange] = []
        self.tries_again = False
        self.tunnel_early: bytes | None = None
        """What the instance sent behind its 101, when there is a tunnel."""
        self.tunnel_ended: list[Exception | None] = []
        """How the instance's connection was lost to the tunnel: once, if it was."""
        self.wire: Wire | None = None
        self._upstream: Upstream | None = None
        self._router = Router(routes)
        self._reader = RequestReader(self)
        self._exchange: Exchange | None = None
        self._holds = 0
        self._full = False
        self._to_client = bytearray()

    # --- what the client does --------------------------------------------------------------

    def client(self, *lines: str | bytes) -> None:
        """Let these bytes arrive from the client."""
        try:
            if self._reader.ended and self._exchange is None:
                self._reader.proceed()
            self._reader.feed(message(*lines))
        except ProxyError as error:
            if self._exchange is None:
                self.refused = error
            else:
                self._exchange.fail(error, self.now)
        self._turn()

    def client_leaves(self) -> None:
        """Let the client's connection be lost."""
        self.exchange.downstream_lost(self.now)
        self._turn()

    def client_stops_reading(self) -> None:
        """Let what is written to the client pile up."""
        self._full = True
        if self._exchange is not None:
            self._exchange.downstream_full()

    def client_reads_again(self) -> None:
        """Let the client take what piled up."""
        self._full = False
        if self._exchange is not None:
            self._exchange.downstream_drained()

    def client_gets(self, *lines: str | bytes) -> None:
        """Compare all that was sent to the client since the last time."""
        sent, self._to_client = bytes(self._to_client), bytearray()
        _compare(lines, sent)

    # --- what the straight line does -------------------------------------------------------

    def authorised(self) -> None:
        """Let the API grant the instance."""
        self.exchange.grant = self.grant
        self.exchange.enter(Phase.CONNECT, self.now)

    def connected(self, *, reused: bool = False) -> None:
        """Let there be a connection to the instance, and the request go on."""
        if self.exchange.phase is Phase.AUTHORIZE:
            self.authorised()
        self.tries_again = False
        upstream, wire = Upstream(self.pool, Address(self.grant.host, 8888, None)), Wire()
        wire.set_protocol(upstream)
        upstream.connection_made(wire)
        upstream.reused = reused
        self._upstream, self.wire = upstream, wire
        self._forward(upstream)

    def connected_to_an_idle_one(self) -> None:
        """Take the connection that the pool has kept."""
        self.authorised()
        repeatable = self.exchange.may_be_sent_again
        upstream = self.pool.idle(Address(self.grant.host, 8888, None), repeatable=repeatable)
        assert upstream is not None
        self._forward(upstream)

    def fails(self, error: ProxyError) -> None:
        """Let something go wrong on the straight line."""
        self.exchange.fail(error, self.now)
        self._turn()

    # --- what the instance does ------------------------------------------------------------

    def instance(self, *lines: str | bytes) -> None:
        """Let these bytes arrive from the instance."""
        assert self.wire is not None
        self.wire.protocol.data_received(message(*lines))
        self._turn()

    def instance_closes(self) -> None:
        """Let the instance's FIN arrive."""
        assert self.wire is not None
        if not self.wire.protocol.eof_received():
            self.wire.close()
        self._turn()

    def a_crowd_comes(self) -> None:
        """Have so many others come in this turn of the loop that nobody else need not wait."""
        for _ in range(MOST_AT_ONCE):
            self.pool.crowd.enter(lambda: None)

    def the_crowd_has_gone(self) -> None:
        """Let the loop turn until all have had their turn."""
        while self._soon:
            called, self._soon[:] = [*self._soon], []
            for one in called:
                one()
        self._turn()

    def instance_resets(self) -> None:
        """Let the instance's connection be lost at once."""
        self.instance_is_lost(ConnectionResetError())

    def instance_is_lost(self, error: Exception | None) -> None:
        """Let the instance's connection be over, by an error or because it is closed on both sides."""
        assert self.wire is not None
        self.wire.closing = True
        self.wire.protocol.connection_lost(error)

    def a_write_to_the_instance_fails(self, *lines: str | bytes) -> None:
        """Let the instance be gone, with these bytes of it still in the kernel's buffer."""
        assert self.wire is not None
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.sendall(message(*lines))
            self.wire.sock = ours
            self.instance_resets()

    def instance_stops_reading(self) -> None:
        """Let what is written to the instance pile up."""
        assert self.wire is not None
        self.wire.unsent = 1 << 16
        self.upstream.pause_writing()

    def instance_reads_again(self) -> None:
        """Let the instance take what piled up."""
        assert self.wire is not None
        self.wire.unsent = 0
        self.upstream.resume_writing()

    def upstream_gets(self, *lines: str | bytes) -> None:
        """Compare all that was sent to the instance since the last time."""
        assert self.wire is not None
        sent, self.wire.sent = bytes(self.wire.sent), bytearray()
        _compare(lines, sent)

    # --- how it stands ---------------------------------------------------------------------

    @property
    def exchange(self) -> Exchange:
        """The exchange under way, or else the last one."""
        return self._exchange or self.ended[-1]

    @property
    def upstream(self) -> Upstream:
        """The instance's connection."""
        assert self._upstream is not None
        return self._upstream

    @property
    def paused(self) -> set[str]:
        """From whom nothing is read: `client`, `instance`, both or neither."""
        client = {"client"} if self._holds else set()
        instance = {"instance"} if self.wire is not None and not self.wire.reading else set()
        return client | instance

    @property
    def is_over(self) -> bool:
        """Whether the exchange has ended."""
        return self._exchange is None

    @property
    def closing(self) -> Closing:
        """What becomes of the client's connection, now that the exchange has ended."""
        assert self._exchange is None
        return self.ended[-1].closing

    @property
    def kept(self) -> bool:
        """Whether another request may come from the client, and go to the instance, on these connections."""
        return self.closing is Closing.KEEP and not self.paused and self.upstream_is_kept

    @property
    def upstream_is_kept(self) -> bool:
        """Whether the pool has kept the instance's connection."""
        return self.upstream.is_usable and self.upstream.used_at == self.now

    # --- the client's port: called by the exchange -----------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether the client takes no more at the moment."""
        return self._full

    def write(self, *pieces: Piece) -> None:
        """Send to the client."""
        self._to_client += b"".join(pieces)

    @property
    def sink(self) -> Sink:
        """Nothing goes by itself: there are no pipes here."""
        return self.upstream

    def touch(self) -> None:
        """Keep no deadline."""

    def hold(self, reason: int) -> None:
        """Stop reading from the client."""
        self._holds |= reason

    def release(self, reason: int) -> None:
        """Take one reason back."""
        self._holds &= ~reason

    def date(self) -> bytes:
        """Return a date."""
        return DATE

    def refusal(self, error: ProxyError, exchange: Exchange) -> Answer:
        """Compose the answer to a request that failed."""
        return PAGES.refusal(error, exchange.request, exchange.match, exchange.id, DATE)

    def open_tunnel(self, exchange: Exchange, upstream: asyncio.Transport, early: bytes) -> None:
        """Keep what a tunnel would begin with."""
        assert (self._exchange, self.wire) == (exchange, upstream)
        exchange.flush()
        self.tunnel_early = early
        upstream.set_protocol(_TunnelSide(self.tunnel_ended))

    def try_again(self, exchange: Exchange) -> None:
        """Know that another connection is wanted."""
        assert self._exchange is exchange
        self.tries_again = True

    def exchange_ended(self, exchange: Exchange) -> None:
        """Know that an exchange is over: once for each."""
        assert self._exchange is exchange
        self._exchange = None
        self.ended.append(exchange)

    # --- the reader's sink -----------------------------------------------------------------

    def request_received(self, request: Request) -> None:
        """Begin an exchange."""
        exchange = Exchange(
            request,
            self,
            Client(CLIENT_ADDRESS),
            request_id=REQUEST_ID,
            now=self.now,
        )
        exchange.match = self._router.match(request.target, websocket=request.websocket)
        exchange.enter(Phase.AUTHORIZE, self.now)
        self._exchange = exchange

    def body_received(self, payload: Piece) -> None:
        """Pass a piece of the body on."""
        self.exchange.request_body_received(payload)

    def request_ended(self, trailers: Fields) -> None:
        """Pass the end on."""
        self.exchange.request_ended(trailers)

    # --- steps -----------------------------------------------------------------------------

    def _forward(self, upstream: Upstream) -> None:
        exchange, match = self.exchange, self.exchange.match
        assert match is not None
        lines = request_lines(exchange.request, match, self.grant, exchange.client, request_id=exchange.id)
        upstream.attach(exchange)
        exchange.forward(upstream, request_head(exchange.request.method, match.target, lines), self.now)

    def _turn(self) -> None:
        """Do what the loop does in its next turn: report a connection that was closed."""
        upstream = self._upstream
        if upstream is not None and self.wire is not None and self.wire.closing and upstream.transport:
            upstream.connection_lost(None)


@contextmanager
def conversation(*routes: Route, grant: Grant | None = None) -> Iterator[Conversation]:
    """Begin a conversation; at its end, every exchange must have ended once, and nothing be left unread."""
    talk = Conversation(*(routes or (JUPYTER,)), grant=grant or granted())
    try:
        yield talk
        assert len({id(exchange) for exchange in talk.ended}) == len(talk.ended)
        assert bytes(talk._to_client) == b"", "the client was told more"
        assert talk.wire is None or bytes(talk.wire.sent) == b"", "the instance was told more"
    finally:
        talk.splices.close()
        talk.hangups.close()
        talk.loop.close()


def _compare(expected: tuple[str | bytes, ...], actual: bytes) -> None:
    if len(expected) == 1 and isinstance(expected[0], bytes):
        assert expected[0] == actual
        return
    wanted = _parts(message(*expected))
    named = {name for name, _ in wanted[1]}
    line, fields, body = _parts(actual)
    assert wanted == (line, [one for one in fields if one[0] in named or one[0] not in _ADDED], body)


def _parts(data: bytes) -> tuple[bytes, Fields, bytes]:
    head, empty_line, body = data.partition(b"\r\n\r\n")
    assert empty_line, data
    line, *lines = head.split(b"\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (one.partition(b":") for one in lines)]
    return line, sorted(fields, key=lambda field: field[0]), body
