"""How many questions are under way at a time: in all, and of one client. The others wait, in order.

Whoever guesses tokens can ask without end, and from many addresses. Some turns are not for strangers: whose
token the API has granted an instance before need not wait behind them, not even when they seem to be the same
client.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Final

from visa_jupyter_proxy.errors import VisaBusy

MOST_QUESTIONS: Final = 20
MOST_QUESTIONS_OF_STRANGERS: Final = 16
MOST_QUESTIONS_OF_A_CLIENT: Final = 4
MOST_WAITING: Final = 2000
MOST_WAITING_OF_A_CLIENT: Final = 500
"""Questions of strangers that wait for their turn (a client's: with those under way); beyond it is 503 at
once. Of those who are known there is one for each token and instance, at most."""


class Turns:
    """Gives turns, to be entered: `async with turns.of_stranger(client)`.

    Entering raises `VisaBusy` when there is no turn in time.
    """

    def __init__(self, patience_s: float, workers: int) -> None:
        """Whoever waits for `patience_s` has waited in vain. The bounds are divided among `workers`."""
        self._patience_s = patience_s
        self._most_of_a_client = max(1, MOST_QUESTIONS_OF_A_CLIENT // workers)
        self._all = asyncio.Semaphore(max(2, MOST_QUESTIONS // workers))
        self._strangers = asyncio.Semaphore(max(1, MOST_QUESTIONS_OF_STRANGERS // workers))
        self._clients: dict[str, tuple[asyncio.Semaphore, int]] = {}
        self._waiting = 0

    def of_known(self) -> AbstractAsyncContextManager[None]:
        """Return a turn of somebody who is known."""
        return _Turn(self, None)

    def of_stranger(self, client: str) -> AbstractAsyncContextManager[None]:
        """Return a turn of anybody else from `client`."""
        return _Turn(self, client)

    async def take(self, client: str | None) -> None:
        """Wait for a turn. Raises `VisaBusy`."""
        semaphores = [self._all] if client is None else [self._enter(client), self._strangers, self._all]
        self._waiting += client is not None
        taken: list[asyncio.Semaphore] = []
        try:
            async with asyncio.timeout(self._patience_s):
                for semaphore in semaphores:
                    await semaphore.acquire()
                    taken.append(semaphore)
        except BaseException as error:  # cancelled or too late: it has to be given back in any case
            for semaphore in taken:
                semaphore.release()
            self._leave(client)
            if isinstance(error, TimeoutError):
                raise VisaBusy("no turn in time") from None
            raise
        finally:
            self._waiting -= client is not None

    def give_back(self, client: str | None) -> None:
        """Let the next one have the turn."""
        self._all.release()
        if client is not None:
            self._strangers.release()
            self._clients[client][0].release()
        self._leave(client)

    def _enter(self, client: str) -> asyncio.Semaphore:
        semaphore, users = self._clients.get(client) or (asyncio.Semaphore(self._most_of_a_client), 0)
        if self._waiting >= MOST_WAITING or users >= MOST_WAITING_OF_A_CLIENT:
            raise VisaBusy("too many questions wait")
        self._clients[client] = (semaphore, users + 1)
        return semaphore

    def _leave(self, client: str | None) -> None:
        if client is None:
            return
        semaphore, users = self._clients[client]
        if users == 1:
            del self._clients[client]
        else:
            self._clients[client] = (semaphore, users - 1)


class _Turn(AbstractAsyncContextManager[None]):
    """One question's turn; of somebody who is known, without a client."""

    def __init__(self, turns: Turns, client: str | None) -> None:
        self._turns = turns
        self._client = client

    async def __aenter__(self) -> None:
        await self._turns.take(self._client)

    async def __aexit__(self, *_: object) -> None:
        self._turns.give_back(self._client)
