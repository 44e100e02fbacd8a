"""One request on its way through a worker's own parts; only its two ends are not real.

The bytes that a browser would send go into a `Downstream`, and whatever a worker does with them happens:
the head is read, the rules are applied, VISA is asked (when there is a token), the connection is made
(when that is wanted). What the instance would get is kept instead of sent, and it is answered by a sample.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, override

import msgspec

from visa_jupyter_proxy import error_pages
from visa_jupyter_proxy.errors import InstanceTimeout, ProxyError
from visa_jupyter_proxy.mailbox import Message, WorkerSettings
from visa_jupyter_proxy.routes import Match, Route, Router
from visa_jupyter_proxy.visa_api import Instance, VisaApi
from visa_jupyter_proxy.worker.access.authorization import Authorization
from visa_jupyter_proxy.worker.access.grant import Grant, InstanceNetworks
from visa_jupyter_proxy.worker.access.questions import Questions
from visa_jupyter_proxy.worker.accounting.counts import Counts
from visa_jupyter_proxy.worker.downstream import Downstream
from visa_jupyter_proxy.worker.exchange import Exchange
from visa_jupyter_proxy.worker.http.credentials import AccessToken
from visa_jupyter_proxy.worker.pages import Pages
from visa_jupyter_proxy.worker.pool import Pool
from visa_jupyter_proxy.worker.proxy import Proxy
from visa_jupyter_proxy.worker.sockets.admission import Admission
from visa_jupyter_proxy.worker.sockets.hangups import Hangups
from visa_jupyter_proxy.worker.sockets.splice import Splices
from visa_jupyter_proxy.worker.upstream import Address, Upstream
from visa_jupyter_proxy.worker.worker import verification_of

if TYPE_CHECKING:  # see `verification_of`
    from visa_jupyter_proxy.worker.access.verification import Verification

ASSUMED_HOST: Final = "192.0.2.1"
"""Stands for the instance's address where VISA is not asked (RFC 5737: no machine has it)."""

type Sample = Callable[[Address], bytes]
"""Makes the answer of the instance."""


class Outcome:
    """What became of the request."""

    def __init__(self) -> None:
        self.match: Match | None = None
        self.grant: Grant | None = None
        self.error: ProxyError | None = None
        """Why it was refused."""
        self.address: Address | None = None
        """Where it would be sent."""
        self.sent = b""
        """What the instance would get."""
        self.answered = b""
        """What the browser gets: the sample as it arrives, or the refusal."""


async def rehearse(
    head: bytes,
    peer: str,
    settings: WorkerSettings,
    routes: Sequence[Route],
    *,
    ask: bool,
    connect: bool,
    sample: Sample,
) -> Outcome:
    """Take a request (its head, from `peer`) through a worker. `ask` VISA, else assume that it agrees."""
    outcome = Outcome()
    settings = msgspec.structs.replace(settings, access_log="off")
    loop = asyncio.get_running_loop()
    hangups, splices = Hangups(loop), Splices(loop)
    api = VisaApi(
        settings.api_url,
        ca_file=settings.api_ca_file,
        timeout_s=settings.api_timeout_s,
        placeholders=Router(routes).placeholders,
    )
    verification = verification_of(settings, loop.time) if ask else None
    proxy = _Proxy(
        outcome,
        settings,
        routes,
        authorization=_authorization(api, settings, verification, agreed=not ask),
        pool=_Pool(outcome, settings, hangups, splices, connect=connect, sample=sample),
        hangups=hangups,
    )
    try:
        downstream = Downstream(proxy)
        downstream.connection_made(_End(outcome, "answered", peer))
        downstream.data_received(head)
        await proxy.is_done.wait()
    finally:
        if verification is not None:
            await verification.close()
        await api.close()
        splices.close()
        hangups.close()
    return outcome


def _authorization(
    api: VisaApi, settings: WorkerSettings, verification: "Verification | None", *, agreed: bool
) -> Authorization:
    now = asyncio.get_running_loop().time
    kind = _Agreed if agreed else Authorization
    return kind(
        Questions(api, patience_s=settings.api_timeout_s, now=now),
        InstanceNetworks(settings.instance_networks),
        reuse_s=settings.cache_refresh_time_s,
        stale_s=0,
        now=now,
        verify=None if verification is None else verification.verify,
    )


class _Agreed(Authorization):
    """Grants whatever is asked, as VISA might; each value that `setHeaders` may name is its own name."""

    @override
    def known(self, token: AccessToken, instance_id: int) -> Grant | None:
        names = ("computeId", "id", "uid", "owner")
        values = {name: f"{{{name}}}" for name in names}
        instance = Instance(id=instance_id, host=ASSUMED_HOST, state="ACTIVE", owner=None, values=values)
        key = (token.digest, instance_id)
        return Grant(key, instance, ASSUMED_HOST, "", expires=math.inf, usable_until=math.inf)


class _Proxy(Proxy):
    """The straight line, seen from outside: what it has decided is kept."""

    def __init__(
        self,
        outcome: Outcome,
        settings: WorkerSettings,
        routes: Sequence[Route],
        *,
        authorization: Authorization,
        pool: Pool,
        hangups: Hangups,
    ) -> None:
        super().__init__(
            settings,
            routes,
            pages=Pages(error_pages.load(None, "/")),
            authorization=authorization,
            pool=pool,
            hangups=hangups,
            admission=Admission(0, 0, pause=_nothing, resume=_nothing),
            counts=Counts(routes),
            tell=_tell_nobody,
            told=_nothing,
        )
        self._outcome = outcome
        self.is_done = asyncio.Event()

    @override
    def forward(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        to_wait_for = super().forward(exchange)
        if to_wait_for is not None:
            return self._waiting(exchange, to_wait_for)
        self._forwarded(exchange)
        return None

    async def _waiting(self, exchange: Exchange, forwarding: Coroutine[Any, Any, None]) -> None:
        await forwarding
        self._forwarded(exchange)

    def _forwarded(self, exchange: Exchange) -> None:
        self._outcome.match, self._outcome.grant = exchange.match, exchange.grant
        if exchange.request.websocket or exchange.request.has_body:
            self.is_done.set()  # what would follow are frames, or a body: there is none, and no answer

    @override
    def exchange_ended(self, exchange: Exchange) -> None:
        self._outcome.match, self._outcome.grant = exchange.match, exchange.grant
        self._outcome.error = exchange.error
        self.is_done.set()

    @override
    def refuse(self, peer: str, error: ProxyError, head: bytes) -> bytes:
        self._outcome.error = error
        self.is_done.set()
        return super().refuse(peer, error, head)


class _Pool(Pool):
    """Has no connection, and gives one that ends here."""

    def __init__(
        self,
        outcome: Outcome,
        settings: WorkerSettings,
        hangups: Hangups,
        splices: Splices,
        *,
        connect: bool,
        sample: Sample,
    ) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            set(),
            hangups,
            splices,
            connect_timeout_s=settings.connect_timeout_s,
            response_timeout_s=settings.response_timeout_s,
        )
        self._outcome = outcome
        self._connects = connect
        self._sample = sample

    @override
    async def connect(self, address: Address) -> Upstream:
        self._outcome.address = address
        if self._connects:
            await self._try_to_connect(address)
        upstream = _Upstream(self, address)
        upstream.sample = self._sample(address)
        upstream.connection_made(_End(self._outcome, "sent", address.host))
        return upstream

    async def _try_to_connect(self, address: Address) -> None:
        """Connect for real. Here is no tick that would know a deadline."""
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                connection = await super().connect(address)
        except TimeoutError:
            raise InstanceTimeout("no connection in time") from None
        connection.abort()


class _Upstream(Upstream):
    sample = b""

    @override
    def request_sent(self) -> None:
        super().request_sent()
        if self._exchange is not None and not self._exchange.request.websocket:
            # In the next turn: no callback feeds a parser.
            asyncio.get_running_loop().call_soon(self.data_received, self.sample)


class _End(asyncio.Transport):
    """The far end of a connection: keeps what is written to it."""

    def __init__(self, outcome: Outcome, kept_as: str, peer: str) -> None:
        super().__init__({"peername": (peer, 0)})
        self._outcome = outcome
        self._kept_as = kept_as

    @override
    def write(self, data: Any) -> None:
        setattr(self._outcome, self._kept_as, getattr(self._outcome, self._kept_as) + bytes(data))

    @override
    def get_write_buffer_size(self) -> int:
        return 0

    @override
    def is_closing(self) -> bool:
        return False

    @override
    def can_write_eof(self) -> bool:
        return False

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Know nobody: what comes is given to whom it is for, without a crowd."""

    @override
    def pause_reading(self) -> None:
        """Nothing comes anyway."""

    @override
    def resume_reading(self) -> None:
        """Nothing comes anyway."""

    @override
    def close(self) -> None:
        """Nothing is open."""

    @override
    def abort(self) -> None:
        """Nothing is open."""


def _nothing() -> None:
    pass


def _tell_nobody(_message: Message) -> None:
    pass
