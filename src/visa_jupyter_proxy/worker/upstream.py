"""The connection to an instance: idle in the pool, or in the service of one exchange."""

import asyncio
import math
import select
import ssl
from typing import Final, NamedTuple, cast, override

from visa_jupyter_proxy.errors import InstanceInvalid, InstanceTimeout, InstanceUnreachable, ProxyError
from visa_jupyter_proxy.transports import unread
from visa_jupyter_proxy.worker.crowds import Entrant, Newcomer
from visa_jupyter_proxy.worker.exchange import Exchange
from visa_jupyter_proxy.worker.http.bodies import LARGE, Piece
from visa_jupyter_proxy.worker.http.lines import Fields
from visa_jupyter_proxy.worker.http.response import Response, keep_alive_limits
from visa_jupyter_proxy.worker.http.response_reader import ResponseReader
from visa_jupyter_proxy.worker.ports import PoolPort
from visa_jupyter_proxy.worker.sockets.hangups import NOT_WATCHED
from visa_jupyter_proxy.worker.sockets.sockets import arrivals, reset
from visa_jupyter_proxy.worker.sockets.splice import Splice

_CLAIM_S: Final = 15.0
"""How long a new connection may wait for the exchange it was opened for, which may be gone by now. With
thousands of clients a turn of the loop takes seconds, and the exchange comes in the next one."""

_END_S: Final = 1.0
"""After which an end that the loop has told nobody of is taken as told."""

_KEEP_ALIVE_MARGIN_S: Final = 1.0
"""Taken off the time that an instance promises, for its clock begins before ours (as Node's client)."""


class Address(NamedTuple):
    """Where a service of an instance listens, and how it is spoken to."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class Upstream(Entrant):
    """One connection to an instance: idle in the pool, or in the service of one exchange."""

    is_heard_when_lost = True  # a client waits for an answer, and there will be no other

    def __init__(self, pool: PoolPort["Upstream"], address: Address) -> None:
        self.address = address
        self.transport: asyncio.Transport | None = None
        self.reused = False
        self.deadline = math.inf
        self.used_at = 0.0
        self.idle_s = math.inf
        """How long it may be idle, after the last response's `Keep-Alive`."""
        self._further = math.inf
        """How many more requests the instance takes here, likewise."""
        self._pool = pool
        self._exchange: Exchange | None = None
        self._reader: ResponseReader | None = None
        self._response: Response | None = None
        self._may_be_crowd = False
        """Whether it has to ask for its turn with what comes next: thousands may open WebSockets at once."""
        self._watched = NOT_WATCHED
        self._aborted = False
        self._arrivals: select.poll | None = None
        self._held = False
        """Whether the client is full."""
        self._splice: Splice | None = None
        """Moves the body to the client; until it is done, nobody else reads."""

    @property
    def is_usable(self) -> bool:
        """Whether an idle connection is open and silent, as far as the kernel knows at this moment.

        Bytes that nobody asked for would be taken for the answer to the next request (case 179), and an
        end that is not read yet would cost a request that may not be repeated (case 191).
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        if self._arrivals is None:
            self._arrivals = arrivals(transport)
        return not self._arrivals.poll(0)

    def attach(self, exchange: Exchange) -> None:
        """Serve `exchange` next."""
        self.deadline = math.inf
        self._further -= 1
        self._exchange = exchange
        self._response = None
        self._reader = ResponseReader(self, exchange.request.method)
        self._may_be_crowd = exchange.request.websocket

    # --- called by the exchange ------------------------------------------------------------

    def write(self, data: Piece) -> None:
        """Send to the instance."""
        if self.transport is not None:
            self.transport.write(data)

    @property
    def sink(self) -> "Upstream":
        """This connection, for a body that goes to the instance by itself."""
        return self

    def pause_reading(self) -> None:
        """Stop reading: the client is full."""
        self._held = True
        if self.transport is not None and self._splice is None:
            self.transport.pause_reading()
            if self._watched == NOT_WATCHED:
                self._watched = self._pool.hangups.watch(self.transport, self.hung_up)

    def resume_reading(self) -> None:
        """Read on."""
        self._held = False
        if self.transport is not None and self._splice is None and not self._is_behind:
            self.transport.resume_reading()

    def request_sent(self) -> None:
        """Begin to wait for the response head."""
        if self._response is None:
            self.deadline = self._pool.now() + self._pool.response_timeout_s

    def detach(self, *, reusable: bool) -> None:
        """Leave the exchange: `_settle` keeps the connection when the response has ended well."""
        reader, self._exchange = self._reader, None
        self.deadline = math.inf
        spliced = self._splice is not None and self._stop_splice()
        if reusable and reader is not None and reader.ended:
            if self._held or spliced:
                self.resume_reading()
        else:
            self._reader = None
            self.abort()

    # --- called by the loop ----------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop derives its own from nothing
        self.deadline = self._pool.now() + _CLAIM_S
        self._pool.made(self)

    @override
    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader is None or self._exchange is None:
            self.abort()  # nobody asked for this: an idle connection is silent (case 179)
            return
        if self._may_be_crowd:
            self._may_be_crowd = False
            if self.transport is not None and not self._pool.crowd.may_enter():
                Newcomer(self._pool.crowd, self.transport, self, data)
                return
        try:
            reader.feed(data)
        except ProxyError as error:
            self._lost(error)
            self.abort()
            return
        self._pass_on()
        if reader.ended:
            self._settle(reader)
        elif reader.is_behind:
            self._give_way()
        elif reader.remaining >= LARGE:
            self._splice_rest(reader.remaining)

    @override
    def eof_received(self) -> bool:
        """Know that the instance will send no more; a body that ends with the connection is complete."""
        reader = self._reader
        if reader is not None and self._exchange is not None and not reader.end():
            self._lost(self._cut_off())
            self.abort()
        return False  # closes

    @override
    def pause_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.upstream_full()

    @override
    def resume_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.upstream_drained()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        transport, self.transport = self.transport, None
        self._pool.hangups.forget(self._watched)
        self._pool.drop(self)
        # Behind a splice, the rest is not the next.
        if not self._stop_splice() and exc is not None and transport and self.address.tls is None:
            self._read_rest(transport)
        self._lost(self._cut_off())
        self._reader = None  # they refer to each other: the collector would come for them much later

    # --- called by a splice, and by whoever watches what nobody reads ----------------------

    def passed(self, count: int) -> None:
        """Know that so much of the body has gone to the client."""
        reader = self._reader
        if reader is not None and self._exchange is not None:
            self._exchange.response_body_passed(count)
            reader.skip(count)
            if reader.ended:
                self._settle(reader)

    def read_on(self) -> None:
        """Read the rest of the body, or the end of the connection."""
        self._splice = None
        if self.transport is not None and not self._held:
            self.transport.resume_reading()

    def hung_up(self) -> None:
        """Take in what the instance said before it reset, while we were not reading."""
        if self._splice is not None and self._splice.is_active:
            return  # which comes to the reset behind all that was said
        if self.transport is not None:
            if self.address.tls is None:
                self._read_rest(self.transport)
            self.abort()

    # --- called by the reader --------------------------------------------------------------

    def response_received(self, response: Response) -> None:
        """Pass a head on."""
        if response.status >= 200 or response.status == 101:
            self._response = response
            self.deadline = math.inf
            if b"keep-alive" in response.special:
                self._heed(keep_alive_limits(response))
        if self._exchange is not None:
            self._exchange.response_received(response, self._pool.now())

    def response_body_received(self, payload: Piece) -> None:
        """Pass a piece of the body on."""
        if self._exchange is not None:
            self._exchange.response_body_received(payload)

    def response_ended(self, trailers: Fields) -> None:
        """Pass the end on."""
        if self._exchange is not None and self._response is not None:
            self._exchange.response_ended(self._response.keep_alive, trailers, self._pool.now())

    # --- called by the worker's tick -------------------------------------------------------

    def expired(self, now: float) -> None:
        """End a connection on which no response head came, or that has been idle for long."""
        if self.transport is None:
            return
        if self._aborted:
            # uvloop 0.23 says nothing of the end of a connection whose making was cancelled late.
            self.connection_lost(None)
            return
        self.deadline = now + _END_S
        if self._exchange is not None:
            self._exchange.upstream_lost(InstanceTimeout("no response head in time"), now)
        self.abort()

    def drain(self) -> None:
        """Close when idle; what is under way goes on."""
        if self._exchange is None:
            self.abort()

    # --- steps -----------------------------------------------------------------------------

    def abort(self) -> None:
        """End the connection at once, as a reset where something is under way."""
        if self.transport is not None:
            self._aborted = True
            reset(self.transport)

    def _pass_on(self) -> None:
        """Send the client what has come; a 101 waits until control has been told of the tunnel."""
        exchange = self._exchange
        if exchange is not None and not exchange.is_tunnel:
            exchange.flush()

    def _give_way(self) -> None:
        """Let others have a turn before more of what was read is taken."""
        if self.transport is not None:
            self.transport.pause_reading()
            self._pool.soon(self._go_on)

    @property
    def _is_behind(self) -> bool:
        return self._reader is not None and self._reader.is_behind

    def _go_on(self) -> None:
        if self._is_behind:
            self.data_received(b"")
        is_open = self.transport is not None and not self.transport.is_closing()
        if is_open and not (self._is_behind or self._held):
            self.resume_reading()

    def _settle(self, reader: ResponseReader) -> None:
        """Go on behind a complete response: as a tunnel, back to the pool, or away."""
        exchange = self._exchange
        if exchange is not None and exchange.is_tunnel and self.transport is not None:
            transport, self.transport, self._exchange = self.transport, None, None
            self._reader = None
            self._pool.drop(self)
            self._pool.hangups.forget(self._watched)
            exchange.open_tunnel(transport, reader.leftover)
        elif exchange is None and not reader.leftover and self._is_clear and self._may_idle:
            self._pool.keep(self)
        else:
            self.abort()

    def _splice_rest(self, count: int) -> None:
        """Have the kernel move the rest of the body, if it may go as it is."""
        sink = self._exchange.response_sink() if self._exchange is not None else None
        if sink is not None and self.transport is not None and self._is_clear:
            self._splice = self._pool.splices.begin(self, sink, count)
            if self._splice is not None:
                self.transport.pause_reading()

    def _stop_splice(self) -> bool:
        """End it, if there is one, and say whether there was: then reading is paused."""
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.stop()
        return splice is not None

    def _heed(self, limits: dict[bytes, int]) -> None:
        if (timeout := limits.get(b"timeout")) is not None:
            self.idle_s = timeout - _KEEP_ALIVE_MARGIN_S
        if (further := limits.get(b"max")) is not None:
            self._further = further

    @property
    def _may_idle(self) -> bool:
        return self.idle_s > 0 and self._further > 0

    @property
    def _is_clear(self) -> bool:
        """Whether nothing of the last request is left to be sent."""
        transport = self.transport
        return transport is not None and not (transport.is_closing() or transport.get_write_buffer_size())

    def _read_rest(self, transport: asyncio.Transport) -> None:
        """Take an early answer of an instance that closed in the middle of the request (case 183)."""
        for data in unread(transport):
            if self._exchange is None:
                break
            self.data_received(data)
        while self._is_behind and self._exchange is not None:
            self.data_received(b"")

    def _cut_off(self) -> ProxyError:
        """Say what the end of the connection means: behind a first byte it is no stale one (case 192)."""
        if self._reader is not None and self._reader.started:
            return InstanceInvalid("closed before the response was complete")
        return InstanceUnreachable("closed before it answered")

    def _lost(self, error: ProxyError) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.upstream_lost(error, self._pool.now())
