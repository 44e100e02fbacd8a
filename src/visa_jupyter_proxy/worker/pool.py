"""Connections to instances: idle ones are kept, new ones are opened.

An idle one has no client, so nobody is counted for it at the door: there is a bound for all of them.

Foreign exceptions of connecting are translated here. The pool decides synchronously; only `connect`
suspends, and only when there is no idle connection.
"""

import asyncio
import math
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final

from visa_jupyter_proxy import failures
from visa_jupyter_proxy.errors import InstanceInvalid, InstanceTimeout, InstanceUnreachable, ProxyError
from visa_jupyter_proxy.routes import Route
from visa_jupyter_proxy.worker.crowds import Crowd
from visa_jupyter_proxy.worker.sockets.admission import idle_connections_that_descriptors_allow
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.sockets.sockets import Timed
from visa_jupyter_proxy.worker.sockets.splice import Splices
from visa_jupyter_proxy.worker.upstream import Address, Upstream

IDLE_S: Final = 60.0
"""nginx's keepalive_timeout for upstreams."""

FRESH_S: Final = 1.0
"""A connection used so recently has hardly been closed by the instance (case 191)."""


class _Attempt:
    """A connection that is being opened; the tick ends it at its deadline.

    `asyncio.timeout` would be a timer for each, which took 22 000 instructions of a WebSocket's 494 000.
    """

    __slots__ = ("_task", "deadline", "is_late")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.is_late = False
        self._task = asyncio.current_task()

    def expired(self, now: float) -> None:  # noqa: ARG002 -- as the tick tells it
        self.deadline = math.inf
        if self._task is not None:
            self.is_late = self._task.cancel()

    def drain(self) -> None:
        """Go on: somebody waits for it."""

    def ended_it(self) -> bool:
        """Whether it was this that cancelled its task, and nobody else."""
        return self.is_late and self._task is not None and self._task.uncancel() == 0


class Pool:
    """Idle connections by address, the most recently used first."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connections: set[Timed],
        hangups: Hangups,
        splices: Splices,
        *,
        connect_timeout_s: float,
        response_timeout_s: float,
        most_idle: int | None = None,
        clients: Callable[[], int] = lambda: 0,
    ) -> None:
        """Keep `most_idle` idle ones, of all instances together; None is what the file descriptors allow.

        More are kept as long as there are no more connections to instances than `clients` without a tunnel:
        for each of those a descriptor is held back, and he needs none while he asks for nothing. With 8 000
        clients and room for 2 500, 5 500 connections were closed after each answer, and opened anew.
        """
        self.connections = connections
        """Every open connection, and every one that is being opened, for the worker's tick."""
        self.hangups = hangups
        self.splices = splices
        self.now: Callable[[], float] = loop.time
        self.soon: Callable[[Callable[[], None]], object] = loop.call_soon
        self.response_timeout_s = response_timeout_s
        self.crowd = Crowd(self.soon)
        self._loop = loop
        self.connect_timeout_s = connect_timeout_s
        self._idle: dict[Address, dict[Upstream, None]] = {}
        """The same by address: an instance may have as many as had work at a time."""
        self._kept: dict[Upstream, None] = {}
        """All that are idle, in the order in which they became so."""
        self._most_idle = idle_connections_that_descriptors_allow() if most_idle is None else most_idle
        self._clients = clients
        self._upstreams: set[Upstream] = set()
        """All that are open and belong to no tunnel."""
        self._closed = False
        self.reuses = 0
        """How often an idle connection was taken."""
        self.attempts: Counter[str] = Counter()
        """How often one was opened (`ok`), or why not."""

    @property
    def idle_count(self) -> int:
        """How many idle connections are kept."""
        return len(self._kept)

    def idle(self, address: Address, *, repeatable: bool) -> Upstream | None:
        """Take an idle connection; for a request that cannot be sent twice only one of the last second."""
        idle, now = self._idle.get(address), self.now()
        while idle:
            upstream, _ = idle.popitem()
            is_usable = upstream.deadline > now and upstream.is_usable
            if is_usable and not repeatable and now - upstream.used_at > FRESH_S:
                idle[upstream] = None
                return None
            del self._kept[upstream]
            if is_usable:
                upstream.reused = True
                self.reuses += 1
                return upstream
        return None

    async def connect(self, address: Address) -> Upstream:
        """Open a connection. Raises `InstanceUnreachable` and `InstanceTimeout`; the latter by the tick."""
        attempt = _Attempt(self.now() + self.connect_timeout_s)
        self.connections.add(attempt)
        try:
            _, upstream = await self._loop.create_connection(
                lambda: Upstream(self, address),
                address.host,
                address.port,
                ssl=address.tls,
                server_hostname=address.host if address.tls is not None else None,
            )
        except asyncio.CancelledError:
            if not attempt.ended_it():
                raise  # the client has gone
            raise self._failed(InstanceTimeout("no connection in time")) from None
        except TimeoutError:
            raise self._failed(InstanceTimeout("the kernel has given up")) from None
        except ssl.SSLCertVerificationError:
            raise self._failed(InstanceInvalid("certificate not verified")) from None
        except OSError as error:
            raise self._failed(InstanceUnreachable(failures.of_connection(error))) from None
        finally:
            self.connections.discard(attempt)
            del attempt  # a cancelled task keeps its error, that keeps this frame, and an attempt its task
        self.attempts["ok"] += 1
        return upstream

    def _failed(self, error: ProxyError) -> ProxyError:
        self.attempts[error.error] += 1
        return error

    def keep(self, upstream: Upstream) -> None:
        """Take back a connection on which a response has just ended."""
        if self._closed:
            upstream.abort()
            return
        upstream.used_at = self.now()
        upstream.deadline = upstream.used_at + min(IDLE_S, upstream.idle_s)
        self._idle.setdefault(upstream.address, {})[upstream] = None
        self._kept[upstream] = None
        self._make_room()

    def made(self, upstream: Upstream) -> None:
        """Know a connection that has just been opened."""
        self.connections.add(upstream)
        self._upstreams.add(upstream)
        self._make_room()

    def drop(self, upstream: Upstream) -> None:
        """Forget a connection that is over, or belongs to a tunnel from now on."""
        self.connections.discard(upstream)
        self._upstreams.discard(upstream)
        self._take_out(upstream)

    def _make_room(self) -> None:
        """Close the oldest idle one if there are too many: of one more than before."""
        if len(self._kept) > self._most_idle and len(self._upstreams) > self._clients():
            oldest = next(iter(self._kept))
            self._take_out(oldest)
            oldest.abort()

    def _take_out(self, upstream: Upstream) -> None:
        self._kept.pop(upstream, None)
        idle = self._idle.get(upstream.address)
        if idle is not None:
            idle.pop(upstream, None)
            if not idle:
                del self._idle[upstream.address]

    def close(self) -> None:
        """Close all idle connections, and keep none from here on."""
        self._closed = True
        for upstream in [*self._kept]:
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
