"""Who may use which instance: grants, and the questions to the VISA API that make them.

A grant is kept for one whole token and one instance. The API alone decides; claims of a token may
shorten what it said (`exp`), and never give anything (contract section 3).

There is one question at a time for each token and instance, in a task of its own: it completes
although whoever asked first has gone (contract section 4, printing).
"""

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from visa_jupyter_proxy.errors import InstanceNotFound, ProxyError, TokenRejected, VisaBusy
from visa_jupyter_proxy.visa_api import VisaApi
from visa_jupyter_proxy.worker.credentials import AccessToken
from visa_jupyter_proxy.worker.grant import Grant, InstanceNetworks

BRIEF_S: Final = 2.0
"""How long a refusal, or a grant of an instance that is not up, is remembered: long enough for the
burst of requests of one page, short enough that nobody waits for it."""

PAST_EXP_S: Final = 10.0
"""How long a grant lives whose token the API accepted although `exp` is past by our clock (case 234)."""

MOST_REMEMBERED: Final = 100_000
"""Grants and refusals each; a grant takes about 1 KiB."""

MOST_QUESTIONS: Final = 20
MOST_QUESTIONS_OF_A_CLIENT: Final = 4
MOST_WAITING: Final = 2000
MOST_WAITING_OF_A_CLIENT: Final = 500
"""Questions that wait for their turn (a client's: with those under way); beyond it is 503 at once."""

type Key = tuple[bytes, int]


class Authorization:
    """The grants of one worker."""

    def __init__(
        self,
        api: VisaApi,
        networks: InstanceNetworks,
        *,
        reuse_s: float,
        patience_s: float,
        now: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
        accepted: Callable[[AccessToken, str], None] | None = None,
        workers: int = 1,
    ) -> None:
        """`reuse_s` bounds the life of a grant; a question waits for its turn `patience_s` at most.

        `accepted` is called with a token and its user whenever the API has accepted it. What is allowed
        in questions at a time is divided among the `workers` of the proxy.
        """
        self._api = api
        self._networks = networks
        self._reuse_s = reuse_s
        self._now = now
        self._wall_clock = wall_clock
        self._accepted = accepted
        self._grants: dict[Key, Grant] = {}
        self._refusals: dict[Key, tuple[float, ProxyError]] = {}
        self._questions: dict[Key, asyncio.Task[Grant]] = {}
        self._turns = _Turns(patience_s, workers)

    def known(self, token: AccessToken, instance_id: int) -> Grant | None:
        """Return a grant that still holds. Raises the `ProxyError` of a refusal that is still remembered."""
        key = (token.digest, instance_id)
        now = self._now()
        grant = self._grants.get(key)
        if grant is not None and grant.expires > now:
            return grant
        refusal = self._refusals.get(key)
        if refusal is not None and refusal[0] > now:
            raise refusal[1].with_traceback(None)
        return None

    async def ask(self, token: AccessToken, instance_id: int, client: str) -> Grant:
        """Return what the API grants; when somebody is asking the same, wait for that answer.

        Raises `ProxyError`: what the API, or the way to it, refused. `client` is the address whose
        questions are bounded together.
        """
        key = (token.digest, instance_id)
        question = self._questions.get(key)
        if question is None:
            question = asyncio.create_task(self._ask(key, token, client))
            self._questions[key] = question
            question.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(question)

    @property
    def grants_remembered(self) -> int:
        """How many grants are kept, those that the next tick forgets included."""
        return len(self._grants)

    def forget(self, grant: Grant) -> None:
        """Ask again next time: the instance is not where the API said (case 135)."""
        if self._grants.get(grant.key) is grant:
            del self._grants[grant.key]

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
        for key in [key for key, grant in self._grants.items() if grant.expires <= now]:
            del self._grants[key]
        for key in [key for key, (until, _) in self._refusals.items() if until <= now]:
            del self._refusals[key]

    async def close(self) -> None:
        """Give up the questions that are under way."""
        questions = [*self._questions.values()]
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)

    async def _ask(self, key: Key, token: AccessToken, client: str) -> Grant:
        user, exp = _claims(token.text)
        try:
            async with self._turns.of(client):
                instance = await self._api.get_instance(token.text, key[1])
            if self._accepted is not None:
                self._accepted(token, user)
            host = self._networks.check(instance.host)
        except (TokenRejected, InstanceNotFound) as refusal:
            _bound(self._refusals)
            self._refusals[key] = (self._now() + BRIEF_S, refusal)
            raise
        life = self._life(exp) if instance.is_up else min(self._life(exp), BRIEF_S)
        grant = Grant(key, instance, host, user, self._now() + life)
        if life > 0:
            _bound(self._grants)
            self._grants[key] = grant
        return grant

    def _life(self, exp: float | None) -> float:
        """Seconds a grant lives: decided once, so that later jumps of the wall clock change nothing."""
        if exp is None:
            return self._reuse_s
        left = exp - self._wall_clock()
        return min(self._reuse_s, left if left > 0 else PAST_EXP_S)

    def _answered(self, key: Key, question: asyncio.Task[Grant]) -> None:
        del self._questions[key]
        if not question.cancelled():
            question.exception()  # seen: whoever asked may have gone


class _Turns:
    """Bounds the questions under way, in all and for each client; the others wait, in order."""

    def __init__(self, patience_s: float, workers: int) -> None:
        self._patience_s = patience_s
        self._most_of_a_client = max(1, MOST_QUESTIONS_OF_A_CLIENT // workers)
        self._all = asyncio.Semaphore(max(1, MOST_QUESTIONS // workers))
        self._clients: dict[str, tuple[asyncio.Semaphore, int]] = {}
        self._waiting = 0

    def of(self, client: str) -> "_Turn":
        return _Turn(self, client)

    async def take(self, client: str) -> None:
        semaphore, users = self._clients.get(client) or (asyncio.Semaphore(self._most_of_a_client), 0)
        if self._waiting >= MOST_WAITING or users >= MOST_WAITING_OF_A_CLIENT:
            raise VisaBusy("too many questions wait")
        self._clients[client] = (semaphore, users + 1)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience_s):
                await semaphore.acquire()
                try:
                    await self._all.acquire()
                except BaseException:  # cancelled or too late: it has to be given back in any case
                    semaphore.release()
                    raise
        except TimeoutError:
            self._leave(client)
            raise VisaBusy("no turn in time") from None
        except BaseException:  # cancelled: likewise
            self._leave(client)
            raise
        finally:
            self._waiting -= 1

    def give_back(self, client: str) -> None:
        self._all.release()
        self._clients[client][0].release()
        self._leave(client)

    def _leave(self, client: str) -> None:
        semaphore, users = self._clients[client]
        if users == 1:
            del self._clients[client]
        else:
            self._clients[client] = (semaphore, users - 1)


class _Turn:
    """One question's turn."""

    def __init__(self, turns: _Turns, client: str) -> None:
        self._turns = turns
        self._client = client

    async def __aenter__(self) -> None:
        await self._turns.take(self._client)

    async def __aexit__(self, *_: object) -> None:
        self._turns.give_back(self._client)


class _Claims(msgspec.Struct):
    """What is read of a token. Nothing of it may grant anything: nobody has verified it."""

    sub: str | None = None
    exp: float | None = None


_decoder = msgspec.json.Decoder(_Claims)


def _claims(token: str) -> tuple[str, float | None]:
    """Return the user and the expiry that a token states; an opaque token is its own user."""
    parts = token.split(".")
    claims = _Claims()
    if len(parts) == 3:
        # Anything may stand there, nested as deep as it likes.
        with suppress(ValueError, msgspec.DecodeError, RecursionError):
            claims = _decoder.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    digest = hashlib.sha256(token.encode("ascii")).hexdigest()[:16]
    return claims.sub or f"token:{digest}", claims.exp


def _bound[T](remembered: dict[Key, T]) -> None:
    """Make room for one more: the oldest goes."""
    if len(remembered) >= MOST_REMEMBERED:
        del remembered[next(iter(remembered))]
