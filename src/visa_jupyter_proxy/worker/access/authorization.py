"""Who may use which instance: grants, and the questions to the VISA API that make them.

A grant is kept for one whole token and one instance. The API alone decides; claims of a token may
shorten what it said (`exp`), and never give anything (contract section 3).

There is one question at a time for each token and instance, in a task of its own: it completes
although whoever asked first has gone (contract section 4, printing).

While the API does not answer, the last grant goes on for `CACHE_STALE_IF_ERROR_S` (RFC 5861 section 4). Its
user waits for the first question that fails, and for a second from then on: an API that is back has its say.
"""

import asyncio
import math
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from visa_jupyter_proxy.errors import (
    InstanceNotFound,
    InstanceNotReady,
    ProxyError,
    TokenRejected,
    VisaBusy,
    VisaInvalid,
    VisaTimeout,
    VisaUnreachable,
)
from visa_jupyter_proxy.visa_api import Access, Instance
from visa_jupyter_proxy.worker.access.claims import claims
from visa_jupyter_proxy.worker.access.flights import Flights
from visa_jupyter_proxy.worker.access.grant import Grant, InstanceNetworks, not_ready
from visa_jupyter_proxy.worker.access.questions import Key, Questions
from visa_jupyter_proxy.worker.http.credentials import AccessToken

BRIEF_S: Final = 2.0
"""How long a refusal, or a grant of an instance that is not up, is remembered: long enough for the
burst of requests of one page, short enough that nobody waits for it."""

PAST_EXP_S: Final = 10.0
"""How long a grant lives whose token the API accepted although `exp` is past by our clock (case 234)."""

MOST_REMEMBERED: Final = 100_000
"""Grants and refusals each; a grant takes about 1 KiB."""

DOUBT_S: Final = 1.0
"""For which a question is waited for whose user has a grant that can go on, after one that failed."""

STALE_S: Final = 5.0
"""For which a grant goes on each time that the API does not answer, less up to half of it: those whose API
failed together shall not ask together."""


class Authorization:
    """The grants of one worker."""

    def __init__(
        self,
        questions: Questions,
        networks: InstanceNetworks,
        *,
        reuse_s: float,
        stale_s: float,
        now: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        accepted: Callable[[AccessToken, str, Instance], None] | None = None,
        verify: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`reuse_s` bounds the life of a grant, and `stale_s` what follows while the API does not answer.

        `accepted` is called with a token, its user and the instance whenever the API has accepted it.
        `verify` raises `TokenRejected` for a token about which the API need not be asked.
        """
        self._questions = questions
        self._networks = networks
        self._reuse_s = reuse_s
        self._stale_s = stale_s
        self._now = now
        self._wall_clock = wall_clock
        self._jitter = jitter
        self._accepted = accepted
        self._verify = verify
        # A dict whose first ones go steps over all that have gone, whenever it is asked for its first.
        self._grants: OrderedDict[Key, Grant] = OrderedDict()
        self._refusals: OrderedDict[Key, tuple[float, ProxyError]] = OrderedDict()
        self._rejected: OrderedDict[bytes, float] = OrderedDict()
        """Digests of tokens that the API has rejected since, and until when that matters: none goes on."""
        self._under_way: Flights[Key, Grant] = Flights()
        self._looks: Flights[Key, Access] = Flights()
        self.hits = 0
        """How often an answer was remembered."""
        self.misses = 0
        """How often it was not."""
        self.stale_uses = 0
        """How often one that was over went on, because the API did not answer."""

    def known(self, token: AccessToken, instance_id: int) -> Grant | None:
        """Return a grant that still holds. Raises the `ProxyError` of a refusal that is still remembered."""
        key = (token.digest, instance_id)
        now = self._now()
        grant = self._grants.get(key)
        if grant is not None and grant.expires > now:
            self.hits += 1
            return grant
        refusal = self._refusals.get(key)
        if refusal is not None and refusal[0] > now:
            self.hits += 1
            raise refusal[1].with_traceback(None)
        self.misses += 1
        return None

    async def ask(self, token: AccessToken, instance_id: int, client: str) -> Grant:
        """Return what the API grants; when somebody is asking the same, wait for that answer.

        Raises `ProxyError`: what the API, or the way to it, refused. `client` is the network whose
        questions are bounded together.
        """
        key = (token.digest, instance_id)
        if self._may_go_on(key):
            grant = await self._soon(key, token, client)
            if grant is not None:
                self.stale_uses += grant.is_stale
                return grant
        return await self._under_way.share(key, lambda: self._ask(key, token, client))

    async def look(self, token: AccessToken, instance_id: int, client: str) -> tuple[Access, str]:
        """Ask how an instance is and where, without a side effect at VISA and without granting anything.

        Also one at a time for each token and instance; raises what `ask` raises.
        """
        key = (token.digest, instance_id)
        self.known(token, instance_id)
        access = await self._looks.share(key, lambda: self._look(key, token, client))
        if access.role != "OWNER":
            raise InstanceNotFound("a member, and not the owner")
        return access, self._address(access)

    @property
    def grants_remembered(self) -> int:
        """How many grants are kept, those that the next tick forgets included."""
        return len(self._grants)

    def forget(self, grant: Grant) -> None:
        """Ask again next time: the instance is not where the API said (case 135)."""
        if self._grants.get(grant.key) is grant:
            del self._grants[grant.key]

    def reload(
        self,
        networks: InstanceNetworks,
        *,
        reuse_s: float,
        stale_s: float,
        verify: Callable[[str], Awaitable[None]] | None,
    ) -> None:
        """Go by other rules from the next question on; grants are kept, for as long as they were given."""
        self._networks = networks
        self._reuse_s = reuse_s
        self._stale_s = stale_s
        self._verify = verify

    def forget_all(self, user: str | None, instance_id: int | None, not_host: str | None) -> None:
        """Ask again for all who fit what is given; `not_host` fits grants of another address.

        A question that is under way is not taken back.
        """
        for key, grant in [*self._grants.items()]:
            if (
                user in (None, grant.user)
                and instance_id in (None, grant.instance_id)
                and (not_host is None or grant.host != not_host)
            ):
                del self._grants[key]

    def tick(self, now: float) -> None:
        """Forget what is over."""
        for key in [key for key, grant in self._grants.items() if grant.usable_until <= now]:
            del self._grants[key]
        for key in [key for key, (until, _) in self._refusals.items() if until <= now]:
            del self._refusals[key]
        for digest in [digest for digest, until in self._rejected.items() if until <= now]:
            del self._rejected[digest]

    async def close(self) -> None:
        """Give up the questions that are under way."""
        await self._under_way.close()
        await self._looks.close()

    def _may_go_on(self, key: Key) -> bool:
        """Whether there is a grant that goes on unless the API has its say, and a question has failed."""
        stale = self._stale(key)
        return stale is not None and (stale.is_stale or self._questions.is_api_in_doubt)

    async def _soon(self, key: Key, token: AccessToken, client: str) -> Grant | None:
        """Return what the API says if it says so in a moment, or the grant that goes on, if it still may."""
        if key in self._under_way or self._questions.may_begin:
            try:
                async with asyncio.timeout(DOUBT_S):
                    return await self._under_way.share(key, lambda: self._ask(key, token, client))
            except TimeoutError:
                pass  # it goes on without anybody who waits
        stale = self._stale(key)
        if stale is not None:
            self._go_on(stale)
        return stale

    async def _look(self, key: Key, token: AccessToken, client: str) -> Access:
        await self._check(key, token)
        try:
            return await self._questions.look(token, key[1], client, is_known=key in self._grants)
        except (TokenRejected, InstanceNotFound) as refusal:
            self._refused(key, refusal)
            raise

    async def _check(self, key: Key, token: AccessToken) -> None:
        if self._verify is None:
            return
        try:
            await self._verify(token.text)
        except TokenRejected as refusal:
            self._remember(key, refusal)
            raise

    async def _ask(self, key: Key, token: AccessToken, client: str) -> Grant:
        await self._check(key, token)
        try:
            instance = await self._questions.ask(token, key[1], client, is_known=key in self._grants)
        except (TokenRejected, InstanceNotFound) as refusal:
            self._refused(key, refusal)
            raise
        except (VisaUnreachable, VisaTimeout, VisaInvalid, VisaBusy) as error:
            stale = self._stale(key)
            # Busy alone proves nothing: whoever has lost an instance could keep us busy, to keep it.
            if stale is None or (isinstance(error, VisaBusy) and not self._questions.is_api_in_doubt):
                raise
            self._go_on(stale)
            return stale
        said = claims(token.text)
        self._grants.pop(key, None)
        self._rejected.pop(token.digest, None)
        if self._accepted is not None:
            self._accepted(token, said.user, instance)
        host = self._address(instance)
        life, usable = self._lives(said.exp, BRIEF_S if not instance.is_up else math.inf)
        now = self._now()
        grant = Grant(key, instance, host, said.user, expires=now + life, usable_until=now + usable)
        if usable > 0:
            _bound(self._grants)
            self._grants[key] = grant
        return grant

    def _address(self, about: Instance | Access) -> str:
        try:
            return self._networks.check(about.host)
        except InstanceNotReady as error:
            raise not_ready(about, str(error)) from None

    def _refused(self, key: Key, refusal: ProxyError) -> None:
        self._remember(key, refusal)
        if isinstance(refusal, TokenRejected):
            _bound(self._rejected)
            self._rejected[key[0]] = self._now() + self._reuse_s + self._stale_s

    def _remember(self, key: Key, refusal: ProxyError) -> None:
        self._grants.pop(key, None)
        _bound(self._refusals)
        # A new one: the other's traceback holds frames, and they hold the token.
        self._refusals[key] = (self._now() + BRIEF_S, type(refusal)(str(refusal)))

    def _lives(self, exp: float | None, most: float) -> tuple[float, float]:
        """Return for how many seconds a grant is good, and for how many if the API does not answer then.

        Decided once, so that later jumps of the wall clock change nothing.
        """
        left = math.inf if exp is None else exp - self._wall_clock()
        if left <= 0:
            left = PAST_EXP_S
        life = min(self._reuse_s, most, left)
        return life, min(life + self._stale_s, left)

    def _stale(self, key: Key) -> Grant | None:
        """Return a grant that may go on while the API does not answer."""
        grant = self._grants.get(key)
        is_over = grant is None or grant.usable_until <= self._now()
        return None if is_over or key[0] in self._rejected else grant

    def _go_on(self, grant: Grant) -> None:
        grant.is_stale = True
        further = STALE_S * (1 - self._jitter() / 2)
        grant.expires = min(self._now() + further, grant.usable_until)


def _bound[K, V](remembered: OrderedDict[K, V]) -> None:
    """Make room for one more: the oldest goes."""
    if len(remembered) >= MOST_REMEMBERED:
        remembered.popitem(last=False)
