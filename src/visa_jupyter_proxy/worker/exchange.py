"""One request and its response: a machine that knows neither loop, socket nor clock.

An exchange only moves forward through its phases (but for the one retry); entering one stamps the
time, and END is entered exactly once. Whoever owns the edges (`downstream`, `upstream`) tells the
exchange what arrived, and the exchange writes to the ports it was given. `now` is always an
argument: seconds of a monotonic clock.

Both bodies pass without being kept, with one exception: what a client sends before there is an
upstream connection is held, and the client is paused meanwhile.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from visa_jupyter_proxy.errors import (
    ClientGone,
    ContentTooLarge,
    InstanceInvalid,
    InstanceUnreachable,
    ProxyError,
)
from visa_jupyter_proxy.routes import Match
from visa_jupyter_proxy.worker.access.forwarded import Client
from visa_jupyter_proxy.worker.access.grant import Grant
from visa_jupyter_proxy.worker.forwarding.fields import request_trailers, response_lines, trailer_fields
from visa_jupyter_proxy.worker.http.bodies import Piece, chunk, last_chunk
from visa_jupyter_proxy.worker.http.heads import CHUNKED, CONTINUE, final_head, framing
from visa_jupyter_proxy.worker.http.lines import Fields, Lines
from visa_jupyter_proxy.worker.http.request import Request
from visa_jupyter_proxy.worker.http.response import Response
from visa_jupyter_proxy.worker.http.websocket import accepts_websocket, switching_protocols
from visa_jupyter_proxy.worker.pages import Answer
from visa_jupyter_proxy.worker.ports import DownstreamPort, Hold, UpstreamPort
from visa_jupyter_proxy.worker.sockets.sockets import Transport
from visa_jupyter_proxy.worker.sockets.splice import Sink

_REPEATABLE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods that a proxy may send again (RFC 9110 9.2.2)."""


class Phase(IntEnum):
    """Where an exchange is."""

    ROUTE = 0
    AUTHORIZE = 1
    CONNECT = 2
    FORWARD = 3
    TUNNEL = 4
    END = 5


class Closing(IntEnum):
    """What becomes of the client's connection."""

    KEEP = 0
    CLOSE = 1
    """After all that was written has been sent."""
    RESET = 2
    """So that a body that ends with the connection cannot look complete (case 245)."""


class Exchange:
    """One request and its response. It goes no further than to TUNNEL: a tunnel takes what it needs of it."""

    __slots__ = (
        "_answered",
        "_chunked",
        "_downstream",
        "_held",
        "_held_end",
        "_outgoing",
        "_request_ended",
        "_until_close",
        "_upstream",
        "bytes_down",
        "bytes_up",
        "client",
        "closing",
        "draining",
        "error",
        "grant",
        "id",
        "match",
        "phase",
        "request",
        "retried",
        "stamps",
        "status",
    )

    def __init__(
        self,
        request: Request,
        downstream: DownstreamPort["Exchange"],
        client: Client,
        *,
        request_id: bytes,
        now: float,
    ) -> None:
        self.request = request
        self.client = client
        self.id = request_id
        self.stamps: list[float | None] = [now, None, None, None, None, None]
        """When each phase was entered."""
        self.phase = Phase.ROUTE
        self.match: Match | None = None
        self.grant: Grant | None = None
        self.status: int | None = None
        """What the client was told."""
        self.error: ProxyError | None = None
        """Why the exchange did not go to its end."""
        self.closing = Closing.KEEP if request.keep_alive else Closing.CLOSE
        self.draining = False
        """Whether no further request is wanted on this connection."""
        self.retried = False
        self.bytes_up = 0
        self.bytes_down = 0
        self._downstream = downstream
        self._upstream: UpstreamPort | None = None
        self._held: Sequence[Piece] = ()
        self._held_end: Fields = ()
        self._outgoing: list[Piece] = []
        """For the client, until all of what was read with it is there."""
        self._request_ended = not request.has_body
        self._until_close = False
        self._answered = False
        self._chunked = False

    @property
    def is_tunnel(self) -> bool:
        """Whether the instance has switched to WebSocket."""
        return self.phase is Phase.TUNNEL

    @property
    def request_is_complete(self) -> bool:
        """Whether the client has sent all of the request."""
        return self._request_ended

    @property
    def may_be_sent_again(self) -> bool:
        """Whether a second copy would do no harm, and could be made (RFC 9110 9.2.2)."""
        return self.request.method in _REPEATABLE and not self.request.has_body

    def enter(self, phase: Phase, now: float) -> None:
        """Move on. END is entered once: what comes after it is ignored by whoever asks `phase` first."""
        assert self.phase is not Phase.END  # noqa: S101 -- rule 4 of `downstream`
        self.phase = phase
        self.stamps[phase] = now
        if phase is Phase.END:
            self._held = ()
            self.flush()
            # Nobody else would release what held the client for this exchange.
            self._downstream.release(Hold.NOT_CONNECTED | Hold.UPSTREAM_FULL)
            self._downstream.exchange_ended(self)

    # --- told by the client's connection ---------------------------------------------------

    def request_body_received(self, payload: Piece) -> None:
        """Take a piece of the request's body, which may come after an early end."""
        if self.phase is Phase.END:
            return
        self.bytes_up += len(payload)
        most = self.match.route.max_body_bytes if self.match is not None else None
        if most is not None and self.bytes_up > most:
            raise ContentTooLarge("more than maxBodyBytes")
        if self._upstream is None:
            self._held = [*self._held, payload]  # a read or two: the client is held
            self._downstream.hold(Hold.NOT_CONNECTED)
        else:
            self._upstream.write(chunk(payload) if self.request.chunked else payload)

    def request_sink(self) -> Sink | None:
        """Return where the rest of a body of known length may go by itself; None when it may not."""
        if self._upstream is None or self._answered or self.phase is not Phase.FORWARD:
            return None
        return self._upstream.sink

    def request_body_passed(self, count: int) -> None:
        """Know that so much of the request's body has gone to the instance by itself."""
        self.bytes_up += count

    def request_ended(self, trailers: Fields) -> None:
        """Know that the client has sent all of the body; without one, `forward` does it all."""
        self._request_ended = True
        if self.phase is Phase.END:
            return
        if self._upstream is None:
            self._held_end = trailers
        else:
            self._finish_request(self._upstream, trailers)

    def downstream_full(self) -> None:
        """Back-pressure: the client takes no more."""
        if self._upstream is not None:
            self._upstream.pause_reading()

    def downstream_drained(self) -> None:
        """Know that the client takes more again."""
        if self._upstream is not None:
            self._upstream.resume_reading()

    def downstream_lost(self, now: float) -> None:
        """Know that the client has gone: nothing can be said any more."""
        if self.phase is Phase.END:
            return
        self.error = ClientGone("connection lost")
        self._outgoing.clear()
        self.closing = Closing.RESET
        self._detach(reusable=False)
        self.enter(Phase.END, now)

    # --- told by the straight line ---------------------------------------------------------

    def forward(self, upstream: UpstreamPort, head: bytes, now: float) -> None:
        """Send the request on `upstream`, which tells this exchange of the response from here on."""
        self._upstream = upstream
        self.enter(Phase.FORWARD, now)
        held, self._held = self._held, ()
        if held:
            head += b"".join(map(chunk, held)) if self.request.chunked else b"".join(held)
        upstream.write(head)
        if self._downstream.is_full:
            upstream.pause_reading()
        self._downstream.release(Hold.NOT_CONNECTED)
        if self._request_ended:
            self._finish_request(upstream, self._held_end)

    def fail(self, error: ProxyError, now: float) -> None:
        """End with an error: before the head an answer, after it an abort."""
        if self.phase is Phase.END:
            return
        self.error = error
        self._detach(reusable=False)
        if self._answered:
            self._cut_short()
        else:
            self._answer(error)
        self.enter(Phase.END, now)

    def answer(self, status: int, answer: Answer, now: float) -> None:
        """End with an answer of our own that is no refusal."""
        if self.phase is not Phase.END:
            self._send(status, answer)
            self.enter(Phase.END, now)

    # --- told by the instance's connection -------------------------------------------------

    def response_received(self, response: Response, now: float) -> None:
        """Take a response head: an interim one, the switch to a WebSocket, or the final one."""
        if self.phase is Phase.END:
            return
        if response.status == 101:
            self._switch(response, now)
        elif response.status < 200:
            self._pass_interim(response.status)
        else:
            self._respond(response)

    def response_body_received(self, payload: Piece) -> None:
        """Take a piece of the response's body."""
        if self.phase is Phase.END:
            return
        self.bytes_down += len(payload)
        self._outgoing.append(chunk(payload) if self._chunked else payload)

    def response_sink(self) -> Sink | None:
        """Return where the rest of the body may go by itself, as it is; None when it may not."""
        if self._chunked or not self._request_ended or self.phase is not Phase.FORWARD:
            return None
        return self._downstream.sink

    def response_body_passed(self, count: int) -> None:
        """Know that so much of the response's body has gone to the client by itself."""
        self.bytes_down += count
        self._downstream.touch()

    def response_ended(self, response_allows_reuse: bool, trailers: Fields, now: float) -> None:
        """Know that the response is complete; a request still on its way is given up (RFC 9112 9.3)."""
        if self.phase in (Phase.TUNNEL, Phase.END):
            return
        if self._chunked:
            self._outgoing.append(last_chunk(trailer_fields(trailers)))
        if self.draining or not self._request_ended:
            self.closing = Closing.CLOSE
        # What an instance makes of the bytes behind an upgrade that it has refused is not known (case 194).
        reusable = response_allows_reuse and self._request_ended and not self.request.websocket
        self._detach(reusable=reusable)
        self.enter(Phase.END, now)

    def flush(self) -> None:
        """Send what has come of one read."""
        outgoing = self._outgoing
        if outgoing:
            self._downstream.write(*outgoing)
            outgoing.clear()

    def upstream_full(self) -> None:
        """Back-pressure: the instance takes no more."""
        self._downstream.hold(Hold.UPSTREAM_FULL)

    def upstream_drained(self) -> None:
        """Know that the instance takes more again."""
        self._downstream.release(Hold.UPSTREAM_FULL)

    def open_tunnel(self, upstream: Transport, early: bytes) -> None:
        """Leave the rest to a tunnel; `upstream` is the instance's connection."""
        self._downstream.open_tunnel(self, upstream, early)

    def upstream_lost(self, error: ProxyError, now: float) -> None:
        """Know that the instance's connection is over or of no use, before the response was complete."""
        if self.phase is Phase.END:
            return
        upstream = self._upstream
        if isinstance(error, InstanceUnreachable) and upstream is not None and self._may_try_again(upstream):
            self.retried = True
            self._upstream = None
            self.enter(Phase.CONNECT, now)
            self._downstream.try_again(self)
        else:
            self.fail(error, now)

    # --- steps -----------------------------------------------------------------------------

    def _finish_request(self, upstream: UpstreamPort, trailers: Fields) -> None:
        if self.request.chunked:
            assert self.match is not None  # noqa: S101 -- what is forwarded has one
            upstream.write(last_chunk(request_trailers(trailers, self.match.route)))
        upstream.request_sent()

    def _may_try_again(self, upstream: UpstreamPort) -> bool:
        """Only behind a connection that had been idle, only what may be repeated, only if nothing came."""
        return upstream.reused and not self.retried and not self._answered and self.may_be_sent_again

    def _switch(self, response: Response, now: float) -> None:
        if not (self.request.websocket and self.match is not None and self.match.route.ws):
            self.fail(InstanceInvalid("101 that nobody asked for"), now)
        elif not accepts_websocket(self.request, response):
            self.fail(InstanceInvalid("101 that does not accept the WebSocket"), now)
        else:
            self.status, self._answered, self.closing = 101, True, Closing.CLOSE
            self._outgoing.append(switching_protocols(self._lines(response)))
            self.enter(Phase.TUNNEL, now)

    def _pass_interim(self, status: int) -> None:
        # To a client that waits for it, and no other: nginx takes any 1xx for the whole answer to a HEAD, and
        # gives the connection to the next user, who would get what the instance sends later (case 69).
        if status == 100 and self.request.expects_continue and not self._request_ended:
            self._outgoing.append(CONTINUE)

    def _respond(self, response: Response) -> None:
        lines = self._lines(response)
        if not response.is_dated:
            lines.append(b"Date: %b\r\n" % self._downstream.date())
        field = framing(response, self.request)
        if field is None:
            self._until_close = True
            self.closing = Closing.CLOSE
        else:
            self._chunked = field is CHUNKED
            lines.append(field)
        self._outgoing.append(self._head(response.status, response.reason, lines))

    def _head(self, status: int, reason: bytes, lines: Lines) -> bytes:
        """Make the final head: from here on, the client has its answer."""
        if self.draining or self.request.websocket or not self._request_ended:
            # Behind a refused upgrade there may be frames, never a request (case 149). An answer before
            # the end of the request is the last one, and is better announced as such (RFC 9112 9.6).
            self.closing = Closing.CLOSE
        self.status, self._answered = status, True
        return final_head(status, reason, lines, self.request, self.closing is Closing.KEEP)

    def _lines(self, response: Response) -> Lines:
        match, grant = self.match, self.grant
        assert match is not None  # noqa: S101 -- what is forwarded has both
        assert grant is not None  # noqa: S101 -- likewise
        lines = response_lines(response, self.request, match, grant, self.client)
        lines.append(b"X-Request-Id: " + self.id + b"\r\n")
        return lines

    def _answer(self, error: ProxyError) -> None:
        self._send(error.status, self._downstream.refusal(error, self))

    def _send(self, status: int, answer: Answer) -> None:
        reason, lines, body = answer
        head = self._head(status, reason, lines)
        self._outgoing.append(head if self.request.method == b"HEAD" else head + body)

    def _cut_short(self) -> None:
        """Make sure that what was sent so far cannot be taken for a complete message."""
        self.closing = Closing.RESET if self._until_close else Closing.CLOSE

    def _detach(self, *, reusable: bool) -> None:
        if self._upstream is not None:
            upstream, self._upstream = self._upstream, None
            upstream.detach(reusable=reusable)
