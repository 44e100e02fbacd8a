"""Notebook sessions: what one is, when it is open, and what is reported of it.

A session is (instance, kernel id, session id), open while at least one connection carries it, in this
process or in another one that writes to the same journal.

    tunnel opened, ended ──> ledger ──> backlog ──> journal ──> outbox ──> VISA API
                                              (one transaction)

1. A message becomes a record, at once. Nothing else happens while the worker's message is handled.
2. One task writes the records, all that have gathered in one transaction. The journal answers which
   reports they have made due: it knows whether another process carries the session, too.
3. While the journal cannot be written, what is due is decided by what this process knows, the records
   are marked so (`released`) and wait.
4. Every few seconds the same task counts this owner's heartbeat on, buries owners whose heartbeat
   stands still, and adopts the reports that stopped or dead owners have left.
5. When the journal says that this owner is dead itself (the process was suspended for long), it goes on
   as a new owner and declares what it still carries.
"""

import asyncio
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.backlog import LARGEST, Backlog
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable, OwnerGone, RecordRefused
from visa_jupyter_proxy.control.journal.records import (
    Kind,
    Opened,
    Progressed,
    Record,
    ReportState,
    Settled,
    new_id,
)
from visa_jupyter_proxy.control.ledger import Ledger
from visa_jupyter_proxy.control.owners import Watch
from visa_jupyter_proxy.control.reports import Delivery, Outbox, Report
from visa_jupyter_proxy.mailbox import TunnelEnded, TunnelOpened
from visa_jupyter_proxy.visa_api import VisaApi

HEARTBEAT_S: Final = 3.0
"""Between two heartbeats: four may be late before the time-out has passed."""

OWNER_TIMEOUT_S: Final = 15.0
"""How long a heartbeat may stand still before its owner counts as dead."""

_BATCH: Final = 200
"""Records in one transaction: less than half a second, during which another process has to wait."""

_FIRST_RETRY_S: Final = 0.5
_LARGEST_RETRY_S: Final = 5.0
"""A third of `OWNER_TIMEOUT_S`: when a store comes back, all must beat before one is taken for dead."""

_STOPPED: Final = "proxy stopped"
_WORKER_LOST: Final = "worker lost"

_log = logs.get()


class Notebooks:
    """The notebook sessions of one control process.

    The caller owns `api` and closes it after `stop`; `journal` is closed by `stop`. Make it inside the
    running loop that will use it. `tunnel_opened`, `tunnel_ended` and `worker_lost` may be called before
    `start`. Times in seconds.
    """

    def __init__(
        self,
        journal: Journal,
        api: VisaApi,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        owner_timeout_s: float = OWNER_TIMEOUT_S,
        largest_backlog: int = LARGEST,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.owner = new_id()
        """Id of this process's row among the owners; a new one when it was declared dead."""
        self._journal = journal
        self._heartbeat_s = heartbeat_s
        self._monotonic = monotonic
        self._wall = wall
        self._ledger = Ledger()
        self._backlog = Backlog(largest_backlog)
        self._watch = Watch(owner_timeout_s)
        self._outbox = Outbox()
        self._delivery = Delivery(api, self._outbox, self._settled, monotonic=monotonic, jitter=jitter)
        self._fault: str | None = None
        self._retry_s = 0.0
        self._next_beat = monotonic()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # --- what the workers say; never waits, never raises --------------------------------------

    def tunnel_opened(self, worker: int, message: TunnelOpened) -> None:
        """Take note that a connection of a session has begun."""
        record = self._ledger.opened(worker, message)
        if record is None:
            _log.error("a tunnel was opened twice", worker=worker, tunnel=message.tunnel)
        else:
            self._add(record)

    def tunnel_ended(self, worker: int, message: TunnelEnded) -> None:
        """Take note that a connection of a session is over."""
        record = self._ledger.ended(worker, message)
        if record is None:
            _log.error("an unknown tunnel has ended", worker=worker, tunnel=message.tunnel)
        else:
            self._add(record)

    def worker_lost(self, worker: int, at: float) -> None:
        """Take note that every connection of this worker process is over; `at` is Unix time."""
        for record in self._ledger.lost(worker, _WORKER_LOST, at):
            self._add(record)

    # --- how things are ----------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many connections of notebook sessions are open on the workers of this process."""
        return len(self._ledger)

    @property
    def records_waiting(self) -> int:
        """How many records are not in the journal yet."""
        return len(self._backlog)

    @property
    def reports_pending(self) -> int:
        """How many reports are to be delivered by this process."""
        return len(self._outbox)

    @property
    def journal_state(self) -> str:
        """`starting` until `start` has returned, then `written`, or `failing` since a fault."""
        if not self._tasks:
            return "starting"
        return "written" if self._fault is None else "failing"

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Register this owner, and begin to write, beat, bury and deliver. Never fails.

        To be called when the proxy listens already: the connections of a predecessor are ended only
        after its clients could have come back here.
        """
        await self.step()
        self._tasks = [
            asyncio.create_task(self._run(), name="journal"),
            asyncio.create_task(self._delivery.run(), name="reports"),
        ]

    async def stop(self, seconds: float) -> None:
        """End what is open, write everything, deliver what can be delivered, close the journal.

        Takes `seconds` at most, apart from a write that hangs in the system. What could not be delivered
        stays pending in the journal, for the next process.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        for record in self._ledger.lost(None, _STOPPED, self._wall()):
            self._add(record)
        await self._stop_writing()
        await self._flush()
        await self._last_deliveries(deadline)
        await self._flush()
        await self._sign_off()
        await self._journal.close()

    async def _stop_writing(self) -> None:
        self._stopping.set()
        self._wake.set()
        # Not cancelled: a transaction that is under way comes to its end.
        await asyncio.gather(*self._tasks[:1], return_exceptions=True)

    async def _flush(self) -> None:
        while self._backlog and await self.write():
            if self._monotonic() >= self._next_beat and not self._stopping.is_set():
                return  # a long queue must not make us look dead

    async def _last_deliveries(self, deadline: float) -> None:
        self._outbox.hurry()
        self._delivery.wake()
        delivery = self._tasks[1:]
        if delivery:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._delivery.empty()
            except TimeoutError:
                _log.warning("stopping with reports that are not delivered", pending=len(self._outbox))
            delivery[0].cancel()
            await asyncio.gather(*delivery, return_exceptions=True)

    async def _sign_off(self) -> None:
        if self._backlog:
            _log.error("stopping with records that could not be written", records=len(self._backlog))
        try:
            await self._journal.stop(self.owner, self._wall())
        except JournalUnavailable as error:
            self._failed(error)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            await self._sleep()
            if not self._stopping.is_set():
                await self.step()

    async def _sleep(self) -> None:
        """Until there is a record to write or a heartbeat is due; after a fault, until the next try."""
        delay = max(0.0, self._next_beat - self._monotonic())
        event = self._wake
        if self._retry_s:
            delay, event = self._retry_s, self._stopping
        elif self._backlog:
            return
        try:
            async with asyncio.timeout(delay):
                await event.wait()
        except TimeoutError:
            pass  # it is time

    # --- the steps; tests may drive them without `start` ---------------------------------------

    async def step(self) -> None:
        """Beat when it is time, and write what has gathered. Never fails."""
        self._wake.clear()
        try:
            if self._monotonic() >= self._next_beat and not await self.beat():
                return
            await self._flush()
        except Exception:  # noqa: BLE001 -- a defect of ours must not end the only writer
            _log.error("writing the journal failed", exc_info=True)
            self._back_off()

    async def beat(self) -> bool:
        """Count the heartbeat on, bury the dead, adopt what they have left; False when it failed."""
        now = self._monotonic()
        if now - self._next_beat > self._heartbeat_s:
            # We stood still ourselves: others may have been unable to beat for the same reason.
            self._watch.reset()
        self._next_beat = now + self._heartbeat_s
        return await self._guarded(self._beat)

    async def _beat(self) -> None:
        others = await self._journal.beat(self.owner, self._wall())
        for owner, beats in self._watch.observe(others, self._monotonic()):
            ended = await self._journal.bury(owner, beats, self.owner, self._wall())
            if ended is not None:
                _log.warning("another control process is dead", owner=owner, connections_ended=ended)
        for due in await self._journal.adopt(self.owner):
            token = self._ledger.token(due.key) if due.kind == "open" else None
            self._send(Report.of(due, token, self._monotonic()), adopted=True)
        waiting = self._outbox.blocked()
        if waiting:
            self._outbox.unblock(await self._journal.blocked(self.owner, waiting))
            self._delivery.wake()

    async def write(self) -> bool:
        """Write the oldest records in one transaction; False when the journal cannot be written."""
        return await self._guarded(self._write)

    async def deliver(self) -> None:
        """Deliver what is due; for those who do not call `start`."""
        await self._delivery.deliver()

    async def _write(self) -> None:
        batch = self._backlog.take(_BATCH)
        try:
            await self._write_all(batch)
        except RecordRefused as error:
            await self._write_singly(batch, error)
        except BaseException:  # cancelled, or the journal is away: nothing is lost
            self._gone(self._backlog.put_back(batch))
            raise

    async def _write_all(self, records: list[Record]) -> None:
        for record, due in zip(records, await self._journal.write(self.owner, records), strict=True):
            if due is not None:
                self._send(Report.of(due, _token(record), self._monotonic()))

    async def _write_singly(self, batch: list[Record], error: RecordRefused) -> None:
        """Find the record that can never be written, so that it does not hold up all others."""
        if len(batch) == 1:
            _log.error("a record cannot be written", record=type(batch[0]).__name__, cause=str(error))
            self._release(batch[0])
            return
        for position, record in enumerate(batch):
            try:
                await self._write_all([record])
            except RecordRefused as single:
                await self._write_singly([record], single)
            except BaseException:  # likewise
                self._gone(self._backlog.put_back(batch[position:]))
                raise

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
        await self._journal.register(self.owner, socket.gethostname(), os.getpid(), self._wall())
        unwritten = {record.connection for record in self._backlog if isinstance(record, Opened)}
        declared = self._ledger.declare(but=unwritten, anew=gone.declared_dead)
        if gone.declared_dead:
            self._outbox.forget()
        for record in declared:
            self._add(record)

    def _failed(self, error: Exception) -> None:
        self._back_off()
        if self._fault is None:
            _log.error(
                "the journal cannot be written; records wait in memory",
                cause=str(error),
                journal=self._journal.name,
            )
        self._fault = str(error)
        for record in list(self._backlog):
            self._release(record)

    def _back_off(self) -> None:
        self._retry_s = min(_LARGEST_RETRY_S, max(_FIRST_RETRY_S, 2 * self._retry_s))

    def _recovered(self) -> None:
        self._retry_s = 0.0
        if self._fault is not None:
            self._fault = None
            _log.warning(
                "the journal can be written again", waiting=len(self._backlog), lost=self._backlog.dropped
            )

    def _add(self, record: Record) -> None:
        if self._fault is not None:
            self._release(record)
        self._gone(self._backlog.add(record))
        self._wake.set()

    def _gone(self, records: list[Record]) -> None:
        """Log the records for which there was no room; their reports are sent all the same."""
        for record in records:
            self._release(record)
        if records:
            _log.error("records are lost: too many wait for the journal", lost=self._backlog.dropped)

    # --- reports ------------------------------------------------------------------------------

    def _release(self, record: Record) -> None:
        """Decide without the journal whether a record makes a report due."""
        if isinstance(record, Settled | Progressed) or record.released:
            return
        record.released = True
        is_due = record.first if isinstance(record, Opened) else record.last
        if not is_due:
            record.report = None
        elif record.report is not None:
            kind: Kind = "open" if isinstance(record, Opened) else "close"
            self._send(Report(record.report, kind, record.key, _token(record), self._monotonic()))

    def _send(self, report: Report, *, adopted: bool = False) -> None:
        if self._outbox.put(report, adopted=adopted):
            self._delivery.wake()
            return
        _log.error("too many reports wait for VISA: one is left out", kind=report.kind)
        if report.kind == "open":
            self._settled(report, ReportState.NOT_DELIVERED)

    def _settled(self, report: Report, state: ReportState) -> None:
        if state is not ReportState.DELIVERED:
            _log.warning(
                "the opening of a notebook session was not reported",
                instance=report.key.instance_id,
                outcome=str(state),
            )
        self._add(Settled(report.id, state, report.attempts, self._wall()))


def _token(record: Record) -> str | None:
    return record.token if isinstance(record, Opened) else None
