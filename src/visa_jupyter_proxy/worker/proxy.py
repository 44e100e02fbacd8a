"""The straight line that every request takes: route, token, authorise, connect, forward.

`forward` is the list of what this proxy does. With a cached grant and an idle connection it comes to its end
inside the parser's callback; what has to wait is a coroutine. Moving bytes is not its business.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.errors import (
    ContentTooLarge,
    InstanceNotReady,
    InstanceTimeout,
    InstanceUnreachable,
    Internal,
    ProxyError,
)
from visa_jupyter_proxy.mailbox import AccessHeld, AccessReleased, TunnelEnded, TunnelOpened, WorkerSettings
from visa_jupyter_proxy.routes import Match, Route, Router
from visa_jupyter_proxy.visa_api import Access
from visa_jupyter_proxy.worker.access.authorization import Authorization
from visa_jupyter_proxy.worker.access.forwarded import Client, TrustedProxies
from visa_jupyter_proxy.worker.access.grant import Grant, not_ready
from visa_jupyter_proxy.worker.access.sites import Sites
from visa_jupyter_proxy.worker.accounting.counts import Counts
from visa_jupyter_proxy.worker.accounting.kernels import notebook_key
from visa_jupyter_proxy.worker.accounting.records import (
    AccessLog,
    log_exchange,
    log_refusal,
    log_tunnel,
    origin,
    tunnel_ended,
)
from visa_jupyter_proxy.worker.accounting.telling import Holdings
from visa_jupyter_proxy.worker.exchange import Exchange, Phase
from visa_jupyter_proxy.worker.forwarding.fields import request_lines
from visa_jupyter_proxy.worker.http.lines import Lines
from visa_jupyter_proxy.worker.http.request import HeadLimits, Request, request_head
from visa_jupyter_proxy.worker.http.response import response_head
from visa_jupyter_proxy.worker.pages import POLL, Pages, go_on, unread
from visa_jupyter_proxy.worker.pool import Pool, tls_context
from visa_jupyter_proxy.worker.sockets.admission import Admission
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.tunnel import Origin, Tunnel
from visa_jupyter_proxy.worker.upstream import Address, Upstream


class Proxy:
    """What all connections of a worker share: the rules, the grants, the pool."""

    def __init__(
        self,
        settings: WorkerSettings,
        routes: Sequence[Route],
        *,
        pages: Pages,
        authorization: Authorization,
        pool: Pool,
        hangups: Hangups,
        admission: Admission,
        counts: Counts,
        tell: Callable[[TunnelOpened | TunnelEnded | AccessHeld | AccessReleased], None],
        told: Callable[[], None],
    ) -> None:
        """`tell` sends a message to control, and never waits; `told` makes sure that all are on their way."""
        self.use(settings, routes)
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time
        self.date = b""
        self.pages = pages
        self._authorization = authorization
        self._pool = pool
        self.hangups = hangups
        self.splices = pool.splices
        self.connections = pool.connections
        self.soon = pool.soon
        self.crowd = pool.crowd
        self.admission = admission
        self._addresses = lru_cache(maxsize=1024)(Address)
        """Made once: a named tuple takes four times as long to make as to find."""
        self._counts = counts
        self._tell = tell
        self._told = told
        self._holdings = Holdings(tell)
        self._request_lines: Callable[..., Lines] = request_lines
        """Another one where spans are made (`tracing`)."""
        self._request_id_prefix = secrets.token_hex(5).encode()
        self._requests = itertools.count(1)
        self._notebooks = itertools.count(1)
        self._tunnels = 0
        """How many are open."""
        self.tick()

    def use(self, settings: WorkerSettings, routes: Sequence[Route]) -> None:
        """Go by these rules from the next request on.

        Raises `OSError` when a certificate authority cannot be read; then nothing has changed.
        """
        tls = {route: tls_context(route) for route in routes if route.remote_scheme == "https"}
        router = Router(routes)
        sites = Sites(settings.server_names, settings.allowed_origins)
        trusted_proxies = TrustedProxies(settings.trusted_proxies)
        self.settings = settings
        self._access_log = AccessLog(settings.access_log, addresses=settings.log_client_address)
        self._logs_all = settings.access_log == "all"
        self.head_limits = HeadLimits(settings.request_line_bytes, settings.head_bytes, settings.head_fields)
        self.tunnel_idle_s = settings.tunnel_idle_timeout_s
        self._tls, self._router, self._sites, self._trusted_proxies = tls, router, sites, trusted_proxies

    def forward(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """Decide about one request, and send it on; give back what has to wait, for VISA or a connection.

        Nearly always nothing has, and no task is made. Whatever happens, in the end the exchange has gone on
        or ended.
        """
        try:
            match = exchange.match or self._route(exchange)
            request = exchange.request
            if POLL in request.special and request.method == b"GET" and not request.websocket:
                return self._answer_poll(exchange, match)
            grant = exchange.grant or self._known(exchange, match)
            if grant is None:
                return self._forward_later(exchange, match)
            head = self._head(exchange, match, grant)
            upstream = self._idle(exchange, match, grant)
            if upstream is None:
                return self._forward_later(exchange, match, grant, head)
            self._send(exchange, upstream, head)
        except ProxyError as error:
            self._refuse(exchange, error)
        except Exception:  # noqa: BLE001 -- no request ends the process or is left without an answer
            self._confess(exchange)
        return None

    async def _forward_later(
        self, exchange: Exchange, match: Match, grant: Grant | None = None, head: bytes = b""
    ) -> None:
        """Go on when VISA has answered, and a connection is there; with a grant, there is no idle one."""
        try:
            upstream = None
            if grant is None:
                grant = await self._ask(exchange, match)
                head = self._head(exchange, match, grant)
                upstream = self._idle(exchange, match, grant)
            self._send(exchange, upstream or await self._connect_for(exchange, match, grant), head)
        except ProxyError as error:
            self._refuse(exchange, error)
        except Exception:  # noqa: BLE001 -- likewise
            self._confess(exchange)

    def _head(self, exchange: Exchange, match: Match, grant: Grant) -> bytes:
        """Compose what the instance gets; it can fail, and so stands before the connection."""
        request = exchange.request
        lines = self._request_lines(request, match, grant, exchange.client, request_id=exchange.id)
        return request_head(request.method, match.target, lines)

    def _send(self, exchange: Exchange, upstream: Upstream, head: bytes) -> None:
        upstream.attach(exchange)
        exchange.forward(upstream, head, self.now())

    def _refuse(self, exchange: Exchange, error: ProxyError) -> None:
        # Without the frames it came through, which hold the exchange: they would refer to each other.
        exchange.fail(error.with_traceback(None), self.now())

    def _confess(self, exchange: Exchange) -> None:
        logs.get().error("defect while forwarding", request_id=exchange.id.decode("ascii"), exc_info=True)
        exchange.fail(Internal("defect"), self.now())

    def _route(self, exchange: Exchange) -> Match:
        request = exchange.request
        self._sites.check_host(request)
        match = exchange.match = self._router.match(request.target, websocket=request.websocket)
        if request.websocket and match.route.ws:
            self._sites.check_origin(request, exchange.client)
        if match.route.max_body_bytes is not None and (request.length or 0) > match.route.max_body_bytes:
            raise ContentTooLarge("Content-Length above maxBodyBytes")
        return match

    def _known(self, exchange: Exchange, match: Match) -> Grant | None:
        token = exchange.request.credentials.token
        grant = exchange.grant = self._authorization.known(token, match.instance_id)
        return grant

    async def _ask(self, exchange: Exchange, match: Match) -> Grant:
        token, client = exchange.request.credentials.token, exchange.client.network
        began = self.now()
        exchange.enter(Phase.AUTHORIZE, began)
        try:
            grant = exchange.grant = await self._authorization.ask(token, match.instance_id, client)
        finally:
            self._counts.phase_took(match.route.name, "authorize", self.now() - began)
        return grant

    def _address(self, host: str, route: Route) -> Address:
        # A route that has vanished in a reload serves what it has begun.
        tls = (self._tls.get(route) or tls_context(route)) if route.remote_scheme == "https" else None
        return self._addresses(host, route.remote_port, tls)

    def _idle(self, exchange: Exchange, match: Match, grant: Grant) -> Upstream | None:
        if exchange.retried:
            return None
        return self._pool.idle(self._address(grant.host, match.route), repeatable=exchange.may_be_sent_again)

    async def _connect_for(self, exchange: Exchange, match: Match, grant: Grant) -> Upstream:
        began = self.now()
        exchange.enter(Phase.CONNECT, began)
        try:
            return await self._connect(self._address(grant.host, match.route), grant)
        except (InstanceUnreachable, InstanceTimeout, InstanceNotReady):
            self._authorization.forget(grant)
            raise
        finally:
            self._counts.phase_took(match.route.name, "connect", self.now() - began)

    async def _connect(self, address: Address, about: Grant | Access) -> Upstream:
        try:
            return await self._pool.connect(address)
        except (InstanceUnreachable, InstanceTimeout) as error:
            if not about.is_up:
                raise not_ready(about, str(error)) from None
            error.state, error.jupyter_answers = about.state, about.jupyter_answers
            raise

    async def _answer_poll(self, exchange: Exchange, match: Match) -> None:
        """Tell a page that waits how it stands: nothing when the instance answers, else what to show now.

        VISA is asked without a side effect, so that a forgotten page keeps no instance alive.
        """
        request = exchange.request
        try:
            token, client = request.credentials.token, exchange.client.network
            exchange.enter(Phase.AUTHORIZE, self.now())
            access, host = await self._authorization.look(token, match.instance_id, client)
            exchange.enter(Phase.CONNECT, self.now())
            address = self._address(host, match.route)
            # The page will come back for it in a moment.
            self._pool.keep(self._pool.idle(address, repeatable=True) or await self._connect(address, access))
            answer = go_on(exchange.id, self.date)
        except ProxyError as error:
            answer = self.pages.still_waiting(error, request, match, exchange.id, self.date)
        exchange.answer(204 if not answer[2] else 200, answer, self.now())

    # --- asked by downstream, and by tunnels -----------------------------------------------

    @property
    def clients(self) -> int:
        """How many are connected and have no tunnel."""
        return self.admission.count - self._tunnels

    def client(self, peer: str, request: Request) -> Client:
        """Return who the client is, as far as `peer` may say so."""
        return self._trusted_proxies.client(peer, request)

    def request_id(self, peer: str, request: Request) -> bytes:
        """Return the id that a trusted proxy gave the request, or a new one."""
        return self._trusted_proxies.request_id(peer, request) or self._new_request_id()

    def refuse(self, peer: str, error: ProxyError, head: bytes) -> bytes:
        """Record and compose the answer to what is no request; `head` is what has come of one."""
        request_id = self._new_request_id()
        log_refusal(self._access_log, peer, request_id, error)
        self._counts.refused(error)
        reason, lines, body = self.pages.refusal(error, unread(error, head), None, request_id, self.date)
        lines.append(b"Connection: close\r\n")
        return response_head(error.status, reason, lines) + body

    def exchange_ended(self, exchange: Exchange) -> None:
        """Record what became of an exchange."""
        now = self.now()
        self._counts.exchange_ended(exchange, now)
        # Most requests have no line: not to ask for it pays for counting them.
        if self._logs_all or exchange.error is not None or (exchange.status or 0) >= 500:
            log_exchange(self._access_log, exchange, now)

    def tunnel_opened(self, exchange: Exchange, peer: str) -> Origin:
        """Keep what the end of a tunnel needs, and tell control of a notebook's connection."""
        match, grant = exchange.match, exchange.grant
        assert match is not None  # noqa: S101 -- an exchange that became a tunnel has both
        assert grant is not None  # noqa: S101 -- likewise
        self._tunnels += 1
        self._counts.tunnel_opened(exchange)
        token = exchange.request.credentials.token.text
        self._holdings.opened(grant, token)
        notebook = notebook_key(match)
        if notebook is None:
            return origin(exchange, match, grant, peer, notebook=None)
        number = next(self._notebooks)
        self._tell(
            TunnelOpened(tunnel=number, notebook=notebook, user=grant.user, token=token, at=time.time())
        )
        self._told()  # before the client is: whatever becomes of this process, his session is in the journal
        return origin(exchange, match, grant, peer, notebook=number)

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """Record what became of a tunnel, and tell control of a notebook's."""
        now = self.now()
        self._tunnels -= 1
        self.admission.leave(tunnel.origin.peer)
        self._holdings.ended(tunnel.origin.user, tunnel.origin.instance_id)
        log_tunnel(self._access_log, tunnel, now)
        self._counts.tunnel_ended(tunnel)
        if tunnel.origin.notebook is not None:
            self._tell(tunnel_ended(tunnel, tunnel.origin.notebook, now, time.time()))

    async def close(self) -> None:
        """Give back what is held beyond what was given; here that is nothing."""

    def _new_request_id(self) -> bytes:
        return b"%b%08x" % (self._request_id_prefix, next(self._requests))

    def tick(self) -> None:
        """Once a second: what changes with time, and what control has to know."""
        self.date = formatdate(usegmt=True).encode()
        self._holdings.tick()
