"""The only one in this process who writes the journal: records, heartbeats, deaths of others.

1. A record is put into the backlog, at once. All that have gathered are written in one transaction. The
   journal answers which reports they have made due: it knows whether another process carries a session.
2. While the journal cannot be written, records wait. If no other process may carry a session of ours,
   what is due is decided by what this process knows, and the records are marked so (`released`). With
   others about, a close that was decided so could end a session that lives there: it waits, too.
3. Every few seconds this owner's heartbeat is counted on, owners whose heartbeat stands still are buried,
   and the reports that stopped or dead owners have left are adopted.
4. When the journal says that this owner is dead itself (the process was suspended for long), it goes on
   as a new owner and declares what it still carries.
"""

import math
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.author import Author
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.backlog import LARGEST, Backlog
from visa_jupyter_proxy.control.journal.endings import Ending
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable, OwnerGone, RecordRefused
from visa_jupyter_proxy.control.journal.records import Ended, Opened, Record, new_id
from visa_jupyter_proxy.control.neighbours import Neighbours
from visa_jupyter_proxy.control.owners import heartbeat_s

OWNER_TIMEOUT_S: Final = 15.0
"""How long a heartbeat may stand still before its owner counts as dead."""

_BATCH: Final = 200
"""Records in one transaction: less than half a second, during which another process has to wait."""

_PACE_S: Final = 0.1
"""From one transaction to the next, at least. What comes alone is written at once; what a crowd does is
written together: a transaction costs as much as thirty more records in it."""

_PATIENCE_S: Final = 0.5
"""How long a record that makes nothing due waits for others: with a transaction for each report that was
delivered, 100 of them a second took a third of a CPU."""

_FIRST_RETRY_S: Final = 0.5
_LARGEST_RETRY_S: Final = 5.0
"""A third of `OWNER_TIMEOUT_S`: when a store comes back, all must beat before one is taken for dead."""

_log = logs.get()


class Writer:
    """Writes for one author, in steps that its owner takes one after the other. Times in seconds."""

    def __init__(
        self,
        journal: Journal,
        author: Author,
        *,
        linger_s: float,
        owner_timeout_s: float,
        largest_backlog: int = LARGEST,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        end: Callable[[Iterable[Ending]], None],
    ) -> None:
        """`linger_s`: how long the connections of an owner that has stopped carry their sessions on.

        `end` is called with what another node was asked to have ended here; it must not raise.
        """
        self.owner = new_id()
        """Id of this process's row among the owners; a new one when it was declared dead."""
        self._journal = journal
        self._author = author
        self._heartbeat_s = heartbeat_s(owner_timeout_s)
        self._lease_s = owner_timeout_s / 2
        self._end = end
        self._monotonic = monotonic
        self._wall = wall
        self._backlog = Backlog(largest_backlog)
        # Who is dead has been gone for a while: for the linger, too.
        timeout_s = max(owner_timeout_s, linger_s + self._heartbeat_s)
        self._neighbours = Neighbours(
            journal, timeout_s=timeout_s, linger_s=linger_s, monotonic=monotonic, wall=wall
        )
        self._is_undecided = False
        """Whether something may wait that nobody has decided about without the journal."""
        self._fault: str | None = None
        self._retry_s = 0.0
        self._retry_at = 0.0
        self._next_beat = monotonic()
        self._write_at = math.inf
        """When what has gathered is to be written."""
        self._pace_at = -math.inf
        """When the next transaction may begin."""
        self._waiting_since = math.inf
        """When the first of the records came that wait, or one was written since."""
        self._beaten_at = -math.inf
        self._is_alone = True
        self._was_declared_dead = False
        """And is not registered anew yet."""
        self._registered_as = ""
        self.replaced = 0
        """How often the journal was another one than before."""

    # --- how things are ----------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many records are not in the journal yet."""
        return len(self._backlog)

    @property
    def lag_s(self) -> float:
        """How long records have waited without any being written; 0 when none waits."""
        return self._monotonic() - self._waiting_since if self._backlog else 0.0

    @property
    def lost(self) -> int:
        """How many records were given up because too many waited."""
        return self._backlog.dropped

    @property
    def is_failing(self) -> bool:
        """Whether the journal could not be written the last time."""
        return self._fault is not None

    @property
    def decides(self) -> bool:
        """Whether what this process knows is enough to decide: nobody else may carry our sessions."""
        return self._is_alone and not self._journal.is_shared

    @property
    def is_trusted(self) -> bool:
        """Whether no other owner can have taken this one for dead, and its reports over."""
        return self.decides or self._monotonic() - self._beaten_at < self._lease_s

    def next_at(self) -> float:
        """When the next step is due."""
        if self._retry_s:
            return self._retry_at
        return min(self._write_at, self._next_beat)

    # --- writing --------------------------------------------------------------------------------

    def add(self, *records: Record) -> None:
        """Have records written. Never waits, never fails."""
        for record in records:
            is_urgent = isinstance(record, Opened | Ended)
            at = self._pace_at if is_urgent else self._monotonic() + _PATIENCE_S
            self._write_at = min(self._write_at, at)
            if self._fault is not None and self.decides:
                self._author.release(record)
            else:
                self._is_undecided = True
            if not self._backlog:
                self._waiting_since = self._monotonic()
            self._gone(self._backlog.add(record))

    async def step(self) -> None:
        """Beat when it is time, and write what has gathered. Never fails."""
        try:
            if self._monotonic() >= self._next_beat and not await self.beat():
                return
            await self._write_gathered()
        except Exception:  # noqa: BLE001 -- a defect of ours must not end the only writer
            _log.error("writing the journal failed", exc_info=True)
            self._back_off()

    async def _write_gathered(self) -> None:
        self._write_at = math.inf
        gathered = len(self._backlog)
        if gathered:
            self._pace_at = self._monotonic() + _PACE_S
        # What comes meanwhile is for the next time; and a long queue must not make us look dead.
        while gathered > 0 and await self.write() and self._monotonic() < self._next_beat:
            gathered -= _BATCH
        if self._backlog:
            self._write_at = self._pace_at

    async def flush(self) -> None:
        """Write all that can be written, for the last time but one."""
        while self._backlog and await self.write():
            pass

    async def stop(self) -> None:
        """Sign off: what was left here is for others to take over."""
        if self._backlog:
            _log.error("stopping with records that could not be written", records=len(self._backlog))
        try:
            await self._journal.stop(self.owner, self._wall())
        except JournalUnavailable as error:
            self._failed(error)
        await self._journal.close()

    async def write(self) -> bool:
        """Write the oldest records in one transaction; False when the journal cannot be written."""
        return await self._guarded(self._write)

    async def _write(self) -> None:
        began, since = self._monotonic(), self._waiting_since
        batch = self._backlog.take(_BATCH)
        try:
            await self._write_all(batch)
        except RecordRefused as error:
            await self._write_singly(batch, error)
        except BaseException:  # also when cancelled: no record is lost
            self._gone(self._backlog.put_back(batch))
            self._waiting_since = since
            raise
        self._waiting_since = began

    async def _write_all(self, records: list[Record]) -> None:
        for record, due in zip(records, await self._journal.write(self.owner, records), strict=True):
            if due is not None:
                self._author.due(record, due)

    async def _write_singly(self, batch: list[Record], error: RecordRefused) -> None:
        """Find the record that can never be written, so that it does not hold up all others."""
        if len(batch) == 1:
            _log.error("a record cannot be written", record=type(batch[0]).__name__, cause=str(error))
            self._lose(batch[0])
            return
        for position, record in enumerate(batch):
            try:
                await self._write_all([record])
            except RecordRefused as single:
                await self._write_singly([record], single)
            except BaseException:  # likewise
                self._gone(self._backlog.put_back(batch[position:]))
                raise

    # --- owners, alive and dead -----------------------------------------------------------------

    async def beat(self) -> bool:
        """Count the heartbeat on, bury the dead, adopt what they have left; False when it failed."""
        began = self._monotonic()
        if not await self._guarded(self._beat):
            return False  # and is due as soon as there is another try
        self._next_beat = began + self._heartbeat_s
        return True

    async def _beat(self) -> None:
        began = self._monotonic()
        others = await self._journal.beat(self.owner, self._wall())
        self._beaten_at, self._is_alone = began, not others
        await self._neighbours.look(self.owner, others)
        for due in await self._journal.adopt(self.owner):
            self._author.adopted(due)
        waiting = self._author.blocked()
        if waiting:
            self._author.unblock(await self._journal.blocked(self.owner, waiting))
        self._author.beaten()
        self._end(await self._journal.endings(self.owner, self._wall()))

    # --- when the journal does not do what we want ---------------------------------------------

    async def _guarded(self, action: Callable[[], Awaitable[None]]) -> bool:
        """Run one of the two above, as a new owner if need be; False when the journal is away."""
        try:
            try:
                await action()
            except OwnerGone as gone:
                await self._register(gone)
                await action()
        except (JournalUnavailable, OwnerGone) as error:
            self._failed(error)
            return False
        self._recovered()
        return True

    async def _register(self, gone: OwnerGone) -> None:
        if gone.declared_dead:
            _log.error("this process was declared dead, and goes on as a new owner", owner=self.owner)
            self.owner = new_id()
            self._was_declared_dead = True
            self._author.reborn()
        elif self._registered_as == self.owner:
            self.replaced += 1
            _log.error(
                "the journal is another one than before: its file was deleted, replaced or set aside",
                journal=self._journal.name,
            )
        await self._journal.register(self.owner, socket.gethostname(), os.getpid(), self._wall())
        self._registered_as = self.owner
        unwritten = {record.connection for record in self._backlog if isinstance(record, Opened)}
        self.add(*self._author.declare(but=unwritten, anew=self._was_declared_dead))
        self._was_declared_dead = False

    def _failed(self, error: Exception) -> None:
        self._back_off()
        if self._fault is None:
            _log.error(
                "the journal cannot be written; records wait in memory",
                cause=str(error),
                journal=self._journal.name,
            )
        self._fault = str(error)
        # Once: a hundred thousand may wait, and there is a failure every few seconds.
        if self.decides and self._is_undecided:
            self._is_undecided = False
            for record in list(self._backlog):
                self._author.release(record)

    def _back_off(self) -> None:
        self._retry_s = min(_LARGEST_RETRY_S, max(_FIRST_RETRY_S, 2 * self._retry_s))
        self._retry_at = self._monotonic() + self._retry_s

    def _recovered(self) -> None:
        self._retry_s = 0.0
        if self._fault is not None:
            self._fault = None
            _log.warning(
                "the journal can be written again", waiting=len(self._backlog), lost=self._backlog.dropped
            )

    def _gone(self, records: list[Record]) -> None:
        """Log the records for which there was no room; their reports are sent all the same, if possible."""
        for record in records:
            self._lose(record)
        if records:
            _log.error("records are lost: too many wait for the journal", lost=self._backlog.dropped)

    def _lose(self, record: Record) -> None:
        if self.decides:
            self._author.release(record)
