"""A worker: one process that moves bytes.

Control starts it with inherited descriptors: the listening socket, its end of the mailbox and, when there
are several workers, memory that they share. It tells it everything else in the first message. The worker
does what control says; when control is gone, it drains and exits.
"""

import asyncio
import math
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from visa_jupyter_proxy import logs, metrics, state
from visa_jupyter_proxy.mailbox import (
    EndTunnels,
    Mailbox,
    Ready,
    Reload,
    Start,
    WorkerSettings,
)
from visa_jupyter_proxy.routes import Router
from visa_jupyter_proxy.tally import Place
from visa_jupyter_proxy.visa_api import VisaApi
from visa_jupyter_proxy.worker.access.authorization import Authorization
from visa_jupyter_proxy.worker.access.grant import InstanceNetworks
from visa_jupyter_proxy.worker.access.questions import Questions
from visa_jupyter_proxy.worker.accounting.counts import Counts
from visa_jupyter_proxy.worker.accounting.telling import Progress, token_accepted
from visa_jupyter_proxy.worker.downstream import Downstream
from visa_jupyter_proxy.worker.ending import Departure, end_tunnels
from visa_jupyter_proxy.worker.listening import Alone, Listening, Shared
from visa_jupyter_proxy.worker.pages import Pages
from visa_jupyter_proxy.worker.pool import Pool
from visa_jupyter_proxy.worker.proxy import Proxy
from visa_jupyter_proxy.worker.sockets.admission import Admission
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.sockets.sockets import Timed, keep_alive
from visa_jupyter_proxy.worker.sockets.splice import Splices
from visa_jupyter_proxy.worker.tunnel import Tunnel
from visa_jupyter_proxy.worker.upstream import Upstream

if TYPE_CHECKING:  # see `verification_of`
    from visa_jupyter_proxy.worker.access.verification import Verification

_TICK_S: Final = 1.0

_DRAIN_LOOK_S: Final = 0.05
"""How often a draining worker looks whether it is done."""

_LAST_S: Final = 0.25
"""The end of a drain in which tunnels that have not ended are cut, and control is told of them."""


class Worker:
    """The parts of a worker, tied together, from the first message to the last connection."""

    def __init__(
        self, start: Start, listener: socket.socket, mailbox: Mailbox, place: Place | None = None
    ) -> None:
        """`place` is this worker's among several, None when it is alone."""
        settings = start.settings
        self.drain_s = settings.drain_s
        loop = self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._mailbox = mailbox
        self._connections: set[Timed] = set()
        self._counts = Counts(start.routes, per_instance=settings.metrics_per_instance)
        self._hangups = Hangups(loop)
        self._splices = Splices(loop)
        self._api = VisaApi(
            settings.api_url,
            ca_file=settings.api_ca_file,
            timeout_s=settings.api_timeout_s,
            placeholders=Router(start.routes).placeholders,
            called=self._counts.api_called,
        )
        questions = Questions(
            self._api, patience_s=settings.api_timeout_s, now=loop.time, workers=start.places
        )
        self._verifications = [verification_of(settings, loop.time)]
        """The last one is in use; the others finish what they have begun."""
        self._authorization = Authorization(
            questions,
            InstanceNetworks(settings.instance_networks),
            reuse_s=settings.cache_refresh_time_s,
            stale_s=settings.cache_stale_if_error_s,
            now=loop.time,
            accepted=lambda *answer: mailbox.send(token_accepted(*answer)),
            verify=self._verify,
        )
        self._progress = Progress(mailbox.send)
        self._pool = Pool(
            loop,
            self._connections,
            self._hangups,
            self._splices,
            connect_timeout_s=settings.connect_timeout_s,
            response_timeout_s=settings.response_timeout_s,
            clients=lambda: self._proxy.clients,
        )
        admission = Admission(
            settings.max_connections,
            settings.max_connections_per_address,
            pause=self._stop_accepting,
            resume=self._accept,
            place=place,
        )
        self._proxy = _kind_of_proxy(settings)(
            settings,
            start.routes,
            pages=Pages(start.pages),
            authorization=self._authorization,
            pool=self._pool,
            hangups=self._hangups,
            admission=admission,
            counts=self._counts,
            tell=mailbox.send,
            told=mailbox.flush,
        )
        self._ended = loop.create_future()
        self._drain_until = math.inf
        self._listening: Listening = (
            Alone(loop, listener, self._connected)
            if place is None
            else Shared(loop, listener, self._connected, place)
        )

    async def run(self) -> None:
        """Serve until drained. Raises nothing that a connection could cause."""
        keep_alive(self._listener, self._proxy.settings.tcp_keepalive_s)
        await self._listening.start()
        self._next_tick()
        self._mailbox.send(Ready())
        await self._ended
        self._tell_counters()
        await self._authorization.close()
        for verification in self._verifications:
            if verification is not None:
                await verification.close()
        await self._api.close()
        await self._proxy.close()
        self._splices.close()
        self._hangups.close()

    @property
    def _verify(self) -> Callable[[str], Awaitable[None]] | None:
        verification = self._verifications[-1]
        return None if verification is None else verification.verify

    def _connected(self) -> Downstream:
        return Downstream(self._proxy)

    def _accept(self) -> None:
        self._listening.resume()

    def _stop_accepting(self) -> None:
        """Leave new clients in the kernel's queue until some have gone."""
        self._listening.pause()
        logs.get().warning("too many connections: others wait", connections=self._proxy.admission.most)

    @property
    def is_draining(self) -> bool:
        """Whether the worker has been told to end."""
        return self._drain_until < math.inf

    def drain(self, seconds: float) -> None:
        """Accept no more, end what is idle, let the rest finish within `seconds`."""
        if self.is_draining:
            return
        self._drain_until = self._loop.time() + seconds
        self._listening.close()
        self._pool.close()
        # A client that is accepted becomes a connection in the next turn of the loop.
        self._loop.call_soon(self._drain_connections)

    def _drain_connections(self) -> None:
        departure = Departure(self._connections, self._loop.time(), self._drain_until - self._loop.time())
        for connection in [*self._connections]:
            if not isinstance(connection, Tunnel):
                connection.drain()
        self._look_for_end(departure)

    def look(self) -> None:
        """Tell what has passed through kernel channels."""
        self._progress.look(self._connections, self._loop.time(), time.time())

    def reload(self, message: Reload) -> None:
        """Go by other settings and routes from the next request on; all that is under way goes on as it is.

        Raises `OSError` when a certificate authority cannot be read; then nothing has changed.
        """
        before, after = self._proxy.settings, message.settings
        placeholders = Router(message.routes).placeholders
        self._counts.know(message.routes)
        self._proxy.use(after, message.routes)
        self._proxy.pages = Pages(message.pages)
        if _keys(before) != _keys(after):
            self._verifications.append(verification_of(after, self._loop.time))
        self._authorization.reload(
            InstanceNetworks(after.instance_networks),
            reuse_s=after.cache_refresh_time_s,
            stale_s=after.cache_stale_if_error_s,
            verify=self._verify,
        )
        if before.instance_networks != after.instance_networks or not placeholders <= self._api.placeholders:
            # Grants hold an address that was checked, and values that were kept.
            self._authorization.forget_all(None, None, None)
        self._api.placeholders = placeholders
        self._pool.connect_timeout_s = after.connect_timeout_s
        self._pool.response_timeout_s = after.response_timeout_s
        self.drain_s = after.drain_s
        if not self.is_draining:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
            keep_alive(self._listener, after.tcp_keepalive_s)
        self._proxy.admission.allow(after.max_connections)

    def end_tunnels(self, message: EndTunnels) -> None:
        """End those that are meant."""
        end_tunnels(message, self._connections, self._authorization, self._loop.time())

    def counts(self) -> state.WorkerState:
        """Count what is under way."""
        kinds = Counter(map(type, self._connections))
        return state.WorkerState(
            clients=self._proxy.admission.count,
            downstream=kinds[Downstream],
            upstream_busy=kinds[Upstream] - self._pool.idle_count,
            upstream_idle=self._pool.idle_count,
            tunnels=kinds[Tunnel],
            pipes_busy=len(self._pool.splices.active),
            pipes_idle=self._pool.splices.kept_count,
            grants=self._authorization.grants_remembered,
            api_connections=self._api.connections,
        )

    def _tick(self) -> None:
        now = self._loop.time()
        self._counts.ticked(now - self._tick_at)
        self._next_tick()
        self._proxy.tick()
        self._listening.tick(now)
        self._authorization.tick(now)
        self._progress.tick(self._connections, now, time.time())
        for connection in [one for one in self._connections if one.deadline <= now]:
            connection.expired(now)
        self._tell_counters()

    def _next_tick(self) -> None:
        self._tick_at = self._loop.time() + _TICK_S
        self._loop.call_at(self._tick_at, self._tick)

    def _tell_counters(self) -> None:
        """Send control what was counted in this second."""
        counts = self._counts
        counts.reached(metrics.GRANTS, ("hit",), self._authorization.hits)
        counts.reached(metrics.GRANTS, ("miss",), self._authorization.misses)
        counts.reached(metrics.GRANTS_STALE, (), self._authorization.stale_uses)
        counts.reached(metrics.UPSTREAM_REUSES, (), self._pool.reuses)
        for outcome, attempts in self._pool.attempts.items():
            counts.reached(metrics.UPSTREAM_CONNECTS, (outcome,), attempts)
        tunnels = [one for one in self._connections if isinstance(one, Tunnel)]
        exchanges = [
            one.exchange for one in self._connections if isinstance(one, Downstream) and one.exchange
        ]
        self._mailbox.send(counts.take(self.counts(), tunnels, exchanges))

    def _look_for_end(self, departure: Departure) -> None:
        """Go when nothing is under way any more, or the time is over."""
        now = self._loop.time()
        departure.step(now)
        if now >= self._drain_until - _LAST_S:
            departure.cut()
        if not self._connections or now >= self._drain_until:
            self._ended.set_result(None)
        else:
            self._loop.call_later(_DRAIN_LOOK_S, self._look_for_end, departure)


def _keys(settings: WorkerSettings) -> tuple[object, ...]:
    return settings.jwks_url, settings.jwks_file, settings.jwt_issuer, settings.jwt_audience


def verification_of(settings: WorkerSettings, now: Callable[[], float]) -> "Verification | None":
    """Make what verifies tokens, None when no keys are given."""
    if settings.jwks_url is None and settings.jwks_file is None:
        return None
    from visa_jupyter_proxy.worker.access import verification  # noqa: PLC0415 -- 8 MB that few want

    return verification.verification(
        settings.jwks_url, settings.jwks_file, settings.jwt_issuer, settings.jwt_audience, now
    )


def _kind_of_proxy(settings: WorkerSettings) -> type[Proxy]:
    if not settings.tracing:
        return Proxy
    from visa_jupyter_proxy.worker.tracing import TracedProxy  # noqa: PLC0415 -- it needs the extra [otel]

    return TracedProxy
