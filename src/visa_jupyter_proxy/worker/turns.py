"""How many questions are under way at a time: in all, and of one client. The others wait, in order."""

import asyncio
from typing import Final

from visa_jupyter_proxy.errors import VisaBusy

MOST_QUESTIONS: Final = 20
MOST_QUESTIONS_OF_A_CLIENT: Final = 4
MOST_WAITING: Final = 2000
MOST_WAITING_OF_A_CLIENT: Final = 500
"""Questions that wait for their turn (a client's: with those under way); beyond it is 503 at once."""


class Turns:
    """Gives turns: `async with turns.of(client)`, which raises `VisaBusy` when there is none in time."""

    def __init__(self, patience_s: float, workers: int) -> None:
        """Whoever waits for `patience_s` has waited in vain. The bounds are divided among `workers`."""
        self._patience_s = patience_s
        self._most_of_a_client = max(1, MOST_QUESTIONS_OF_A_CLIENT // workers)
        self._all = asyncio.Semaphore(max(1, MOST_QUESTIONS // workers))
        self._clients: dict[str, tuple[asyncio.Semaphore, int]] = {}
        self._waiting = 0

    def of(self, client: str) -> "_Turn":
        """Return a turn of this address, to be entered."""
        return _Turn(self, client)

    async def take(self, client: str) -> None:
        """Wait for a turn. Raises `VisaBusy`."""
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
        """Let the next one have the turn."""
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

    def __init__(self, turns: Turns, client: str) -> None:
        self._turns = turns
        self._client = client

    async def __aenter__(self) -> None:
        await self._turns.take(self._client)

    async def __aexit__(self, *_: object) -> None:
        self._turns.give_back(self._client)
