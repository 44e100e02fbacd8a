"""What control does with the journal beside writing it: 3.5's sessions at the start, pruning once a day.

It has a connection of its own to the store, opened for each piece of work; its transactions are short,
and take turns with those of `writer`. What fails is tried again later.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control import original
from visa_jupyter_proxy.control.journal import Journal, upkeep
from visa_jupyter_proxy.control.journal.errors import JournalError
from visa_jupyter_proxy.control.journal.inheritance import inherit
from visa_jupyter_proxy.waiting import happens

_DAY_S: Final = 86_400.0
_RETRY_S: Final = 60.0
_PATIENCE_S: Final = 1.0

_log: Final = logs.get()


class Upkeep:
    """One task, from `start` to `stop`, whether there is something to do or not.

    `journal` is its own, and closed by it. Times in seconds.
    """

    def __init__(
        self,
        journal: Journal,
        directory: Path,
        *,
        linger_s: float,
        retention_days: int | None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`directory` is where 3.5 kept its sessions, whose browsers have `linger_s` to come back here."""
        self._journal = journal
        self._directory = directory
        self._linger_s = linger_s
        self._retention_days = retention_days
        self._wall = wall
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.is_at_work = False
        """Whether something is being done at the moment."""

    def start(self) -> None:
        """Begin; to be called when browsers can come back here."""
        self._task = asyncio.create_task(self._run(), name="upkeep")

    async def stop(self) -> None:
        """End, after the transaction that is under way, if it does not take long."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_PATIENCE_S)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        if await happens(self._stop, self._linger_s):
            return
        while not await self._done(self.take_over):
            if await happens(self._stop, _RETRY_S):
                return
        while self._retention_days is not None:
            done = await self._done(self.prune)
            if await happens(self._stop, _DAY_S if done else _RETRY_S):
                return
        await self._stop.wait()

    async def _done(self, work: Callable[[], Awaitable[None]]) -> bool:
        self.is_at_work = True
        try:
            await work()
        except (JournalError, OSError) as error:
            _log.warning("the journal's upkeep has to wait", work=work.__name__, cause=str(error))
            return False
        finally:
            await self._journal.close()
            self.is_at_work = False
        return True

    # --- what is done; tests may do it without `start` --------------------------------------------

    async def take_over(self) -> None:
        """Have the sessions closed that 3.5 has left. Raises `JournalError` and `OSError`."""
        for path in await asyncio.to_thread(original.find, self._directory):
            try:
                left = await asyncio.to_thread(original.read, path)
            except original.Damaged as damage:
                kept = await asyncio.to_thread(original.retire, path, "damaged")
                _log.error(
                    "the sessions of visa-jupyter-proxy 3.5 cannot be read: the file has been set aside",
                    file=str(path),
                    kept_as=str(kept),
                    cause=str(damage),
                )
                continue
            await self._take_over(path, left)

    async def _take_over(self, path: Path, left: original.Left) -> None:
        of_3_5 = partial(inherit, owner=left.id, keys=left.keys, at=left.at)
        closed = await self._journal.transact(partial(of_3_5, node=socket.gethostname(), now=self._wall()))
        # Only now: whoever is killed before finds it again, and the journal knows that it was read.
        kept = await asyncio.to_thread(original.retire, path, "taken-over")
        _log.notice(
            "the sessions that visa-jupyter-proxy 3.5 has left open are being closed",
            closed=closed or 0,
            alive=0 if closed is None else len(left.keys) - closed,
            unusable=left.unusable,
            kept_as=str(kept),
        )

    async def prune(self) -> None:
        """Delete the sessions that are too old to be kept. Raises `JournalError`."""
        days = self._retention_days
        if days is None:
            return
        deleted = 0
        async with aclosing(upkeep.prune(self._journal, self._wall() - days * _DAY_S)) as steps:
            async for step in steps:
                deleted += step
                if self._stop.is_set():
                    break
        if deleted:
            _log.info("old notebook sessions were deleted from the journal", deleted=deleted, days=days)
