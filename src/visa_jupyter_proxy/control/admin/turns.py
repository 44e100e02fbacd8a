"""The journal as the admin listener uses it: a connection of its own, one question at a time.

It is closed behind each question, unless somebody goes on asking: who looks once leaves nothing open.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from visa_jupyter_proxy.control.journal import Journal


class Turns:
    """Has questions and orders take turns. Both raise `JournalUnavailable`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._turn = asyncio.Lock()
        self._watching = 0

    async def read[T](self, work: Callable[[Connection], T]) -> T:
        """See `Journal.read`."""
        async with self._turn:
            try:
                return await self._journal.read(work)
            finally:
                await self._rest()

    async def transact[T](self, work: Callable[[Connection], T]) -> T:
        """See `Journal.transact`."""
        async with self._turn:
            try:
                return await self._journal.transact(work)
            finally:
                await self._rest()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Leave the journal open meanwhile: there will be another question soon. `close` behind it."""
        self._watching += 1
        try:
            yield
        finally:
            self._watching -= 1

    async def close(self) -> None:
        """Close it, if nobody goes on asking."""
        async with self._turn:
            await self._rest()

    async def _rest(self) -> None:
        if not self._watching:
            await self._journal.close()
