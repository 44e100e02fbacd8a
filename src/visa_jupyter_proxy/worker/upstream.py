"""The connection to an instance, and the pool that keeps idle ones.

Foreign exceptions of connecting are translated here. The pool decides synchronously; only `connect`
suspends, and only when there is no idle connection.
"""

import asyncio
import math
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple, cast, override

from visa_jupyter_proxy.errors import InstanceInvalid, InstanceTimeout, InstanceUnreachable, ProxyError
from visa_jupyter_proxy.routes import Route
from visa_jupyter_proxy.worker.exchange import Exchange
from visa_jupyter_proxy.worker.framing import ResponseReader
from visa_jupyter_proxy.worker.http1 import Fields, Response
from visa_jupyter_proxy.worker.sockets import Timed, reset, unread

IDLE_S: Final = 60.0
"""nginx's keepalive_timeout for upstreams."""

MOST_IDLE: Final = 32
"""Idle connections kept for each service of each instance: a browser opens 6, JupyterLab has few tabs."""

FRESH_S: Final = 1.0
"""A connection used so recently has hardly been closed by the instance (case 191)."""


class Address(NamedTuple):
    """Where a service of an instance listens, and how it is spoken to."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class Upstream(asyncio.Protocol):
    """One connection to an instance: idle in the pool, or in the service of one exchange."""

    def __init__(self, pool: "Pool", address: Address) -> None:
        self.address = address
        self.transport: asyncio.Transport | None = None
        self.reused = False
        self.deadline = math.inf
        self.used_at = 0.0
        self._pool = pool
        self._exchange: Exchange | None = None
        self._reader: ResponseReader | None = None
        self._response: Response | None = None

    @property
    def is_usable(self) -> bool:
        """Whether the instance has not closed it."""
        return self.transport is not None and not self.transport.is_closing()

    def attach(self, exchange: Exchange) -> None:
        """Serve `exchange` next."""
        self.deadline = math.inf
        self._exchange = exchange
        self._response = None
        self._reader = ResponseReader(self, exchange.request.method)

    # --- called by the exchange ------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send to the instance."""
        if self.transport is not None:
            self.transport.write(data)

    def pause_reading(self) -> None:
        """Stop reading: the client is full."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.transport is not None:
            self.transport.resume_reading()

    def request_sent(self) -> None:
        """Begin to wait for the response head."""
        if self._response is None:
            self.deadline = self._pool.now() + self._pool.response_timeout_s

    def detach(self, *, reusable: bool) -> None:
        """Leave the exchange: `_settle` keeps the connection when the response has ended well."""
        reader, self._exchange = self._reader, None
        self.deadline = math.inf
        if reusable and reader is not None and reader.ended:
            self.resume_reading()
        else:
            self._reader = None
            self.abort()

    # --- called by the loop ----------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop derives its own from nothing
        # Whoever asked for it may be gone by now; `attach` lifts this.
        self.deadline = self._pool.now() + FRESH_S
        self._pool.connections.add(self)

    @override
    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader is None or self._exchange is None:
            self.abort()  # nobody asked for this: an idle connection is silent (case 179)
            return
        try:
            reader.feed(data)
        except ProxyError as error:
            self._lost(error)
            self.abort()
            return
        if reader.ended:
            self._settle(reader)

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
        self._pool.drop(self)
        if exc is not None and transport is not None and self.address.tls is None:
            self._read_rest(transport)
        self._lost(self._cut_off())

    # --- called by the reader --------------------------------------------------------------

    def response_received(self, response: Response) -> None:
        """Pass a head on."""
        if response.status >= 200 or response.status == 101:
            self._response = response
            self.deadline = math.inf
        if self._exchange is not None:
            self._exchange.response_received(response, self._pool.now())

    def response_body_received(self, payload: bytes) -> None:
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
        self.deadline = math.inf
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
            reset(self.transport)

    def _settle(self, reader: ResponseReader) -> None:
        """Go on behind a complete response: as a tunnel, back to the pool, or away."""
        exchange = self._exchange
        if exchange is not None and exchange.is_tunnel and self.transport is not None:
            transport, self.transport, self._exchange = self.transport, None, None
            self._pool.connections.discard(self)
            exchange.open_tunnel(transport, reader.leftover)
        elif exchange is None and not reader.leftover and self._is_clear:
            self._pool.keep(self)
        else:
            self.abort()

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

    def _cut_off(self) -> ProxyError:
        """Say what the end of the connection means: behind a first byte it is no stale one (case 192)."""
        if self._reader is not None and self._reader.started:
            return InstanceInvalid("closed before the response was complete")
        return InstanceUnreachable("closed before it answered")

    def _lost(self, error: ProxyError) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.upstream_lost(error, self._pool.now())


class Pool:
    """Idle connections by address, the most recently used first."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connections: set[Timed],
        *,
        connect_timeout_s: float,
        response_timeout_s: float,
    ) -> None:
        self.connections = connections
        """Every open connection, for the worker's tick."""
        self.now: Callable[[], float] = loop.time
        self.response_timeout_s = response_timeout_s
        self._loop = loop
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[Address, list[Upstream]] = {}
        self._closed = False

    def idle(self, address: Address, *, repeatable: bool) -> Upstream | None:
        """Take an idle connection; for a request that cannot be sent twice only one of the last second."""
        idle = self._idle.get(address)
        while idle:
            upstream = idle.pop()
            if not upstream.is_usable:
                continue
            if not repeatable and self.now() - upstream.used_at > FRESH_S:
                idle.append(upstream)
                return None
            upstream.reused = True
            return upstream
        return None

    async def connect(self, address: Address) -> Upstream:
        """Open a connection. Raises `InstanceUnreachable` and `InstanceTimeout`."""
        try:
            # A new connection is rare enough for a timer of its own.
            async with asyncio.timeout(self._connect_timeout_s):
                _, upstream = await self._loop.create_connection(
                    lambda: Upstream(self, address),
                    address.host,
                    address.port,
                    ssl=address.tls,
                    server_hostname=address.host if address.tls is not None else None,
                )
        except TimeoutError:
            raise InstanceTimeout("no connection in time") from None
        except ssl.SSLCertVerificationError:
            raise InstanceInvalid("certificate not verified") from None
        except OSError as error:
            raise InstanceUnreachable(type(error).__name__) from None
        return upstream

    def keep(self, upstream: Upstream) -> None:
        """Take back a connection on which a response has just ended."""
        idle = self._idle.setdefault(upstream.address, [])
        if self._closed or len(idle) >= MOST_IDLE:
            upstream.abort()
            return
        upstream.used_at = self.now()
        upstream.deadline = upstream.used_at + IDLE_S
        idle.append(upstream)

    def drop(self, upstream: Upstream) -> None:
        """Forget a connection that is over."""
        self.connections.discard(upstream)
        idle = self._idle.get(upstream.address)
        if idle is not None:
            if upstream in idle:
                idle.remove(upstream)
            if not idle:
                del self._idle[upstream.address]

    def close(self) -> None:
        """Close all idle connections, and keep none from here on."""
        self._closed = True
        for upstream in [one for idle in self._idle.values() for one in idle]:
            upstream.abort()


def tls_context(route: Route) -> ssl.SSLContext | None:
    """Make the TLS context of a route with `remoteScheme: https`; it verifies unless told otherwise."""
    if route.remote_scheme != "https":
        return None
    context = ssl.create_default_context(cafile=route.remote_ca)
    if not route.remote_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
