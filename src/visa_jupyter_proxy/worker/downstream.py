"""The connection of a client: requests in, responses out.

Rules that keep callbacks honest:

1. A callback may write, pause, resume or close. It never feeds a parser and never awaits.
2. Whoever fills a buffer pauses the one who feeds it: `pause_writing` on one side is `pause_reading`
   on the other. Nothing else implements back-pressure.
3. Deadlines are attributes, not timers: each connection has `deadline`, and the worker's one-second
   tick ends the late.
4. Every exchange ends exactly once, in `enter(END)`; or it stays at TUNNEL, and the tunnel ends exactly
   once in its place.
5. A request is decided inside a parser callback, so after an early refusal the rest of that
   read still arrives: an exchange at END ignores it.

The methods are sorted by who calls them: the loop, the reader, the exchange, the tick.
"""

import asyncio
import math
from typing import Final, cast, override

from visa_jupyter_proxy.errors import BadRequest, InstanceTimeout, ProxyError, RequestTimeout
from visa_jupyter_proxy.worker.crowds import Entrant, Newcomer
from visa_jupyter_proxy.worker.exchange import Closing, Exchange
from visa_jupyter_proxy.worker.http.bodies import LARGE, Piece
from visa_jupyter_proxy.worker.http.lines import Fields
from visa_jupyter_proxy.worker.http.request import Request
from visa_jupyter_proxy.worker.http.request_reader import RequestReader
from visa_jupyter_proxy.worker.pages import Answer
from visa_jupyter_proxy.worker.ports import Hold
from visa_jupyter_proxy.worker.proxy import Proxy
from visa_jupyter_proxy.worker.sockets.hangups import NOT_WATCHED
from visa_jupyter_proxy.worker.sockets.sockets import keep_alive, peer_address, reset
from visa_jupyter_proxy.worker.sockets.splice import Splice
from visa_jupyter_proxy.worker.tunnel import Tunnel

LINGER_S: Final = 30.0
"""How long we take in what a client still sends after our last word, so that it can read that word
(RFC 9112 9.6): nginx's lingering_time. Also what a client that has sent FIN may wait (case 60)."""

_NOT_COPIED: Final = 16 * 1024
"""Bytes of a body that go behind the head as they are: gathering costs more to ask for than to copy 8 KiB."""

MOST_IN_A_TURN: Final = 100
"""Pipelined requests that are refused one after the other before other connections have their turn."""

DRAIN_LINGER_S: Final = 2.0
"""The same while the worker stops: Docker leaves us ten seconds in all."""

DRAIN_IDLE_S: Final = 1.0
"""What a connection without a request gets when the worker stops, for one that is on its way already: it is
answered, with `Connection: close`. Closed at once, its client could not know what became of it."""


class Downstream(Entrant):
    """One connection of a client, and the exchange that is under way on it."""

    def __init__(self, proxy: Proxy) -> None:
        self.deadline = math.inf
        self._proxy = proxy
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._reader = RequestReader(self, proxy.head_limits)
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._holds = 0
        self._full = False
        self._feeding = False
        self._is_new = True
        """Nothing has come yet."""
        self._in_head = False
        """A head has begun to arrive, and its deadline is set."""
        self._draining = False
        self._lingering = False
        """Our last word is said: what comes is dropped."""
        self._half_closed = False
        """The client will send no more."""
        self._watched = NOT_WATCHED
        self._splice: Splice | None = None
        """Moves the body to the instance; meanwhile `Hold.SPLICED`."""
        self._unsent = 0
        """What was written and not yet taken, when `_expect_progress` looked."""

    # --- called by the loop ----------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop derives its own from nothing
        self._peer = peer_address(transport)
        self.deadline = self._proxy.now() + self._proxy.settings.header_timeout_s
        self._proxy.connections.add(self)
        if not self._proxy.admission.enter(self._peer):
            self._reset()

    @override
    def data_received(self, data: bytes) -> None:
        if self._lingering or self._transport is None:
            return
        if self._is_new:
            self._is_new = False
            if not self._proxy.crowd.may_enter():
                Newcomer(self._proxy.crowd, self._transport, self, data)
                return
        self._feeding = True
        try:
            self._reader.feed(data)
            if self._exchange is None:
                self._advance()
        except ProxyError as error:
            self._refuse(error)
        finally:
            self._feeding = False
        if not self._reader.has_been_read:  # nearly always it has: one whole request
            self._go_on_within()

    @override
    def eof_received(self) -> bool:
        self._half_closed = True
        exchange = self._exchange
        if self._is_behind:
            pass  # the end is behind what has yet to be taken
        elif exchange is None or self._lingering:
            self._close()
        elif not exchange.request_is_complete:
            exchange.fail(BadRequest("the body ends too early"), self._proxy.now())
        else:
            self.deadline = self._proxy.now() + LINGER_S
            self._watch()
        return True  # the transport closes when we say so

    @override
    def pause_writing(self) -> None:
        self._full = True
        self._expect_progress()
        if self._exchange is not None:
            self._exchange.downstream_full()

    @override
    def resume_writing(self) -> None:
        self._full = False
        if not self._lingering:
            self.deadline = self._deadline_of_reading()
        if self._exchange is not None:
            self._exchange.downstream_drained()
        elif self._reader.ended:
            self._proxy.loop.call_soon(self.data_received, b"")  # never from here: rule 1

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._proxy.hangups.forget(self._watched)
        self._proxy.admission.leave(self._peer)
        self._proxy.connections.discard(self)
        if self._exchange is not None:
            self._exchange.downstream_lost(self._proxy.now())
        del self._reader  # as in `open_tunnel`: it may hold 96 KiB of a head, of each of many clients

    # --- called by a splice, and by whoever watches what nobody reads ----------------------

    @property
    def exchange(self) -> Exchange | None:
        """The one that is under way."""
        return self._exchange

    @property
    def transport(self) -> asyncio.Transport | None:
        """The client's connection, while there is one."""
        return self._transport

    def passed(self, count: int) -> None:
        """Know that so much of the request's body has gone to the instance."""
        if self._exchange is not None:
            self.deadline = self._proxy.now() + self._proxy.settings.body_timeout_s
            self._exchange.request_body_passed(count)
            self._reader.skip(count)
            if self._reader.ended:
                self.read_on()

    def read_on(self) -> None:
        """Read what follows, or the end of the connection."""
        self._splice = None
        self.release(Hold.SPLICED)

    def hung_up(self) -> None:
        """End: the client has gone."""
        if self._transport is not None:
            self._transport.abort()

    # --- called by the reader --------------------------------------------------------------

    def request_received(self, request: Request) -> None:
        """Begin an exchange; with a cached grant and an idle connection it is on its way at once."""
        now = self._proxy.now()
        self._in_head = False
        self.deadline = now + self._proxy.settings.body_timeout_s if request.has_body else math.inf
        client = self._proxy.client(self._peer, request)
        request_id = self._proxy.request_id(self._peer, request)
        exchange = Exchange(request, self, client, request_id=request_id, now=now)
        exchange.draining = self._draining
        self._exchange = exchange
        self._start(exchange)

    def body_received(self, payload: Piece) -> None:
        """Pass a piece of the body on."""
        if self._exchange is not None:
            self.deadline = self._proxy.now() + self._proxy.settings.body_timeout_s
            self._exchange.request_body_received(payload)

    def request_ended(self, trailers: Fields) -> None:
        """Pass the end of the request on."""
        if self._exchange is not None:
            self.deadline = math.inf
            self._exchange.request_ended(trailers)

    # --- called by the exchange ------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether the client takes no more at the moment."""
        return self._full

    def write(self, *pieces: Piece) -> None:
        """Send to the client, in one system call (15 us)."""
        if self._transport is None:
            return
        if len(pieces) > 1 and len(pieces[1]) >= _NOT_COPIED:
            self._transport.writelines(pieces)
        else:
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._half_closed:
            self.touch()

    @property
    def sink(self) -> "Downstream":
        """This connection, for a body that goes to the client by itself."""
        return self

    def touch(self) -> None:
        """Move the deadline of a client that will say no more: it still takes something."""
        if self._half_closed:
            self.deadline = self._proxy.now() + LINGER_S

    def hold(self, reason: int) -> None:
        """Stop reading until `reason` is released."""
        self._holds |= reason
        if self._transport is not None:
            self._transport.pause_reading()
            self._watch()

    def release(self, reason: int) -> None:
        """Take one reason back."""
        if not self._holds & reason:
            return
        self._holds &= ~reason
        if not self._holds and self._transport is not None:
            self._transport.resume_reading()
        if self.deadline != math.inf:
            self.deadline = self._proxy.now() + self._proxy.settings.body_timeout_s

    def date(self) -> bytes:
        """Return the time as HTTP writes it."""
        return self._proxy.date

    def refusal(self, error: ProxyError, exchange: Exchange) -> Answer:
        """Compose the answer to a request that failed."""
        pages, date = self._proxy.pages, self._proxy.date
        return pages.refusal(error, exchange.request, exchange.match, exchange.id, date)

    def try_again(self, exchange: Exchange) -> None:
        """Connect and forward once more."""
        self._start(exchange)

    def open_tunnel(self, exchange: Exchange, upstream: asyncio.Transport, early: bytes) -> None:
        """Leave both connections to a tunnel; this protocol has done its work."""
        downstream = self._transport
        self._proxy.connections.discard(self)
        self._proxy.hangups.forget(self._watched)
        if downstream is None or downstream.is_closing():
            self._transport = None
            reset(upstream)
            exchange.downstream_lost(self._proxy.now())  # `connection_lost` has been called, or will be
            return
        keep_alive(upstream, self._proxy.settings.tcp_keepalive_s)
        origin = self._proxy.tunnel_opened(exchange, self._peer)
        exchange.flush()
        self._transport = None
        tunnel = Tunnel(downstream, upstream, self._proxy, origin)
        tunnel.down.full = self._full
        tunnel.start(self._reader.leftover, early)
        if self._full:
            tunnel.down.pause_writing()  # of which the loop has told us, and tells nobody again
        if self._draining:
            tunnel.drain()
        self._exchange = self._task = None
        del self._reader  # they refer to each other: the collector would come for them much later

    def exchange_ended(self, exchange: Exchange) -> None:
        """Go on as the exchange says: read the next request, or close."""
        task, self._task, self._exchange = self._task, None, None
        if self._splice is not None:
            self._stop_splice()
        if task is not None and task is not asyncio.current_task():
            task.cancel()  # the client has gone, or was too slow: nobody waits for its answer
        self._proxy.exchange_ended(exchange)
        self.deadline = self._proxy.now() + self._proxy.settings.idle_timeout_s
        if exchange.closing is Closing.RESET:
            self._reset()
        elif exchange.closing is Closing.CLOSE or self._half_closed:
            # Closed with bytes unread the kernel resets, and the client loses what it has not got (case 57).
            self._finish(may_send=not exchange.request_is_complete or bool(self._reader.leftover))
        elif not self._feeding:
            if self._reader.leftover:
                # Not from here: a callback never feeds a parser.
                self._proxy.loop.call_soon(self.data_received, b"")
            elif not self._full:
                self._reader.proceed()

    # --- called by the tick, and by drain --------------------------------------------------

    def expired(self, now: float) -> None:
        """End a connection whose deadline is over."""
        exchange = self._exchange
        self.deadline = math.inf
        if (self._full or self._lingering) and self._has_made_progress():
            self._expect_progress()
        elif self._lingering or self._full:
            self._reset()
        elif exchange is None and self._reader.is_between_messages:
            self._close()
        elif exchange is None:
            self._refuse(RequestTimeout("no complete head in time"))
        elif self._half_closed:
            exchange.downstream_lost(now)
        elif self._holds & Hold.UPSTREAM_FULL:
            exchange.upstream_lost(InstanceTimeout("it takes no more of the body"), now)
        elif self._holds & ~Hold.SPLICED:
            self.deadline = (
                now + self._proxy.settings.body_timeout_s
            )  # held by us: authorising and connecting have limits
        else:
            exchange.fail(RequestTimeout("no more of the body in time"), now)

    def drain(self) -> None:
        """Take no further request: close when idle, or after the exchange that is under way."""
        self._draining = True
        if self._exchange is not None:
            self._exchange.draining = True
        elif self._lingering:
            self.deadline = min(self.deadline, self._proxy.now() + DRAIN_LINGER_S)
        elif self._reader.is_between_messages and not self._holds and self.deadline != math.inf:
            self.deadline = min(self.deadline, self._proxy.now() + DRAIN_IDLE_S)

    # --- steps -----------------------------------------------------------------------------

    def _go_on_within(self) -> None:
        """Set what holds until the rest of a request comes, or while there is more than one."""
        if self._reader.is_in_head and not (self._in_head or self._lingering):
            self._in_head = True  # until a head is complete, no byte moves its deadline
            self.deadline = self._proxy.now() + self._proxy.settings.header_timeout_s
        elif self._reader.leftover and not self._lingering:
            self.hold(Hold.PIPELINED)
        if self._is_behind:
            self.hold(Hold.OTHERS_TURN)
            self._proxy.loop.call_soon(self._catch_up)
        if self._reader.remaining >= LARGE:
            self._splice_rest(self._reader.remaining)

    @property
    def _is_behind(self) -> bool:
        return self._transport is not None and not self._lingering and self._reader.is_behind

    def _catch_up(self) -> None:
        """Take more of what was read, others having had their turn; when that is all, read on."""
        if self._is_behind:
            self.data_received(b"")
        if not self._is_behind:
            self.release(Hold.OTHERS_TURN)
            if self._half_closed:
                self.eof_received()

    def _start(self, exchange: Exchange) -> None:
        to_wait_for = self._proxy.forward(exchange)
        if to_wait_for is not None:
            task = asyncio.Task(to_wait_for, loop=self._proxy.loop, eager_start=True)
            if not task.done():
                self._task = task

    def _expect_progress(self) -> None:
        """Give the client time to take some of what is written."""
        transport, now = self._transport, self._proxy.now()
        self._unsent = transport.get_write_buffer_size() if transport is not None else 0
        self.deadline = now + self._proxy.settings.write_timeout_s

    def _has_made_progress(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() < self._unsent

    def _deadline_of_reading(self) -> float:
        """Return what holds when the client has taken enough of what was written."""
        if self._exchange is None:
            return self._proxy.now() + self._proxy.settings.idle_timeout_s
        if self._half_closed:
            return self._proxy.now() + LINGER_S
        if self._exchange.request_is_complete:
            return math.inf
        return self._proxy.now() + self._proxy.settings.body_timeout_s

    def _watch(self) -> None:
        """Be told of a reset although nobody reads."""
        if self._watched == NOT_WATCHED and self._transport is not None:
            self._watched = self._proxy.hangups.watch(self._transport, self.hung_up)

    def _splice_rest(self, count: int) -> None:
        """Have the kernel move the rest of the request's body, if it may go as it is."""
        sink = self._exchange.request_sink() if self._exchange is not None else None
        if sink is not None:
            self._splice = self._proxy.splices.begin(self, sink, count)
            if self._splice is not None:
                self.hold(Hold.SPLICED)

    def _stop_splice(self) -> None:
        """End it, if there is one. Reading goes on when somebody says so."""
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.stop()
            self._holds &= ~Hold.SPLICED

    def _advance(self) -> None:
        """Read on behind requests that are answered. Raises `ProxyError` for what is no request."""
        # A client that takes no answers gets none to more requests: they would pile up here.
        answered = 0
        while self._exchange is None and self._reader.ended and not (self._lingering or self._full):
            if answered == MOST_IN_A_TURN:
                self._proxy.loop.call_soon(self.data_received, b"")
                break
            self._reader.proceed()
            answered += 1
        if self._holds & Hold.PIPELINED and not self._reader.leftover:
            self.release(Hold.PIPELINED)

    def _refuse(self, error: ProxyError) -> None:
        """Answer what is no request, or no body, and never read on."""
        if self._lingering:
            return  # an early refusal was our last word, and this the rest of that read (rule 5)
        if self._exchange is not None:
            self._exchange.fail(error, self._proxy.now())
            return
        self.write(self._proxy.refuse(self._peer, error, self._reader.head_so_far))
        self._finish(may_send=True)

    def _finish(self, *, may_send: bool) -> None:
        """Close after what is written; while the client may still send, take it in (RFC 9112 9.6)."""
        self._lingering = True
        if self._transport is None:
            return
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self._proxy.now() + LINGER_S
        if may_send and not self._half_closed and self._transport.can_write_eof():
            self._transport.write_eof()
            self._holds = 0
            self._transport.resume_reading()
        else:
            self._transport.close()

    def _close(self) -> None:
        self._finish(may_send=False)

    def _reset(self) -> None:
        self._lingering = True
        if self._transport is not None:
            reset(self._transport)
