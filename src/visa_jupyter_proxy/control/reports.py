"""Telling the VISA API which notebook sessions are open: what is due, and its delivery.

Rules:

1. Reports of one session key are delivered one after the other, in the order of the journal. The
   first that is not settled holds back the rest. Different keys do not wait for each other.
2. A close is settled only by a 200, and tried for ever: it is idempotent, needs no token, and the
   contract knows no other answer. Whatever else comes back (also a 4xx) is taken for an API that is not
   itself, or a wrong `API_URL`; one attempt a minute harms nobody.
3. An open is settled by a 200, or by 403 and 404: not this user's instance, so nothing is to be opened.
   A 401 can be transient (contract section 2) and is tried again; once the report is an hour old it
   is given up. Without a token an open cannot be delivered at all.
4. Between attempts: exponential back-off with full jitter, up to 60 s.
"""

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, override

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal.records import Due, Kind, ReportState
from visa_jupyter_proxy.errors import InstanceNotFound, ProxyError, TokenRejected
from visa_jupyter_proxy.mailbox import NotebookKey
from visa_jupyter_proxy.visa_api import VisaApi

_FIRST_DELAY_S: Final = 1.0
_LARGEST_DELAY_S: Final = 60.0

TOKEN_PATIENCE_S: Final = 3600.0
"""For how long an open whose token is refused is tried again."""

CONCURRENT: Final = 16
"""Deliveries at once: half of what a small API server's pool of database connections holds."""

LARGEST: Final = 100_000
"""Reports kept in memory."""

_log = logs.get()


@dataclass(slots=True, eq=False)
class Report:
    """One message to the API, on its way."""

    id: str
    kind: Kind
    key: NotebookKey
    token: str | None
    created: float
    """On the monotonic clock."""
    number: int | None = None
    """Its place in the journal's order; None when the journal does not know it yet."""
    blocked: bool = False
    attempts: int = 0
    not_before: float = field(default=0.0)
    under_way: bool = False

    @classmethod
    def of(cls, due: Due, token: str | None, now: float) -> "Report":
        """Make the report that the journal says is due."""
        return cls(due.report, due.kind, due.key, token, now, due.number, due.blocked)

    @override
    def __repr__(self) -> str:
        return f"Report({self.id}, {self.kind}, {self.key}, attempts={self.attempts})"


class Outbox:
    """The reports that are not settled, and which of them are due. `now` is a monotonic clock."""

    def __init__(self, *, concurrent: int = CONCURRENT, largest: int = LARGEST) -> None:
        self._concurrent = concurrent
        self._largest = largest
        self._queues: dict[NotebookKey, deque[Report]] = {}
        self._count = 0
        self._under_way = 0
        # When the first report of a key may be sent. An entry that is overtaken by events stays, and is
        # thrown away when its turn comes.
        self._times: list[tuple[float, int, Report]] = []
        self._entries = itertools.count()

    def __len__(self) -> int:
        return self._count

    def put(self, report: Report, *, adopted: bool = False) -> bool:
        """Add a report in its place; False when there are too many already.

        Our own come in their order. One that was adopted may be older than what waits here.
        """
        if self._count >= self._largest:
            return False
        queue = self._queues.setdefault(report.key, deque())
        queue.insert(_place(queue, report) if adopted else len(queue), report)
        self._count += 1
        self._schedule(queue[0])
        return True

    def due(self, now: float) -> list[Report]:
        """Take the reports that are to be sent now; each comes back by one of the three calls below."""
        due = []
        while self._under_way < self._concurrent and (at := self.next_at()) is not None and at <= now:
            _, _, report = heapq.heappop(self._times)
            report.under_way = True
            self._under_way += 1
            due.append(report)
        return due

    def next_at(self) -> float | None:
        """When the next report is due; None while that depends on something else than time."""
        if self._under_way >= self._concurrent:
            return None
        while self._times and not self._is_valid(*self._times[0]):
            heapq.heappop(self._times)
        return self._times[0][0] if self._times else None

    def settled(self, report: Report) -> None:
        """Take a report out for good."""
        self._returned(report)
        queue = self._queues[report.key]
        queue.remove(report)
        self._count -= 1
        if queue:
            self._schedule(queue[0])
        else:
            del self._queues[report.key]

    def failed(self, report: Report, now: float, jitter: float) -> None:
        """Put a report back, due after its back-off; `jitter` is a random number from 0 to 1."""
        report.attempts += 1
        delay = min(_LARGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(report.attempts - 1, 16))
        report.not_before = now + jitter * delay
        self.broken_off(report)

    def broken_off(self, report: Report) -> None:
        """Put a report back whose attempt has come to no end."""
        self._returned(report)
        self._schedule(self._queues[report.key][0])

    def blocked(self) -> list[str]:
        """Give the ids of the reports that wait for another owner's."""
        return [report.id for queue in self._queues.values() for report in queue if report.blocked]

    def unblock(self, but: Collection[str]) -> None:
        """Let all blocked reports go, except these."""
        for queue in self._queues.values():
            for report in queue:
                report.blocked = report.blocked and report.id in but
            self._schedule(queue[0])

    def hurry(self) -> None:
        """Forget all back-off: this is the last chance."""
        for queue in self._queues.values():
            queue[0].not_before = 0.0
            self._schedule(queue[0])

    def forget(self) -> None:
        """Drop all that is not under way: another owner has taken it over."""
        for key, queue in list(self._queues.items()):
            kept = deque(report for report in queue if report.under_way)
            self._count -= len(queue) - len(kept)
            if kept:
                self._queues[key] = kept
            else:
                del self._queues[key]

    def _returned(self, report: Report) -> None:
        report.under_way = False
        self._under_way -= 1

    def _schedule(self, report: Report) -> None:
        if not report.under_way and not report.blocked:
            heapq.heappush(self._times, (report.not_before, next(self._entries), report))

    def _is_valid(self, at: float, _entry: int, report: Report) -> bool:
        queue = self._queues.get(report.key)
        is_first = queue is not None and queue[0] is report
        return is_first and at == report.not_before and not report.under_way and not report.blocked


def _place(queue: deque[Report], adopted: Report) -> int:
    """Where an adopted report belongs: before all that have a larger number, or none yet."""
    place = len(queue)
    while place > 0 and not queue[place - 1].under_way and _is_later(queue[place - 1], adopted):
        place -= 1
    return place


def _is_later(report: Report, adopted: Report) -> bool:
    return report.number is None or adopted.number is None or report.number > adopted.number


class Delivery:
    """Sends what is due in the outbox, in the background."""

    def __init__(
        self,
        api: VisaApi,
        outbox: Outbox,
        settled: Callable[[Report, ReportState], None],
        *,
        monotonic: Callable[[], float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`settled` is called once for each report that reaches a final state, and must not raise."""
        self._api = api
        self._outbox = outbox
        self._settled = settled
        self._monotonic = monotonic
        self._jitter = jitter
        self._changed = asyncio.Event()
        self._progress = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_failing = False

    def wake(self) -> None:
        """Look again what is due: the outbox has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Deliver until cancelled; then attempts that are under way are broken off."""
        try:
            while True:
                self._changed.clear()
                self._begin()
                await self._wait()
        finally:
            await self._break_off()

    async def deliver(self) -> None:
        """Send what is due now, and what becomes due by that; returns when nothing is under way."""
        while due := self._outbox.due(self._monotonic()):
            async with asyncio.TaskGroup() as group:
                for report in due:
                    group.create_task(self._send(report))

    async def empty(self) -> None:
        """Return when nothing is left that this process could deliver; needs `run`."""
        while len(self._outbox) > len(self._outbox.blocked()):
            self._progress.clear()
            await self._progress.wait()

    def _begin(self) -> None:
        for report in self._outbox.due(self._monotonic()):
            task = asyncio.create_task(self._send(report))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._progress.set()
        self._changed.set()

    async def _wait(self) -> None:
        at = self._outbox.next_at()
        delay = None if at is None else max(0.0, at - self._monotonic())
        try:
            async with asyncio.timeout(delay):
                await self._changed.wait()
        except TimeoutError:
            pass  # something is due

    async def _break_off(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, report: Report) -> None:
        try:
            state = await self._attempt(report)
        except asyncio.CancelledError:
            self._outbox.broken_off(report)
            raise
        except Exception:  # noqa: BLE001 -- a defect of ours must not stop the other reports
            _log.error("reporting a notebook session failed", kind=report.kind, exc_info=True)
            state = ReportState.PENDING
        if state is ReportState.PENDING:
            self._outbox.failed(report, self._monotonic(), self._jitter())
        else:
            self._outbox.settled(report)
            self._settled(report, state)

    async def _attempt(self, report: Report) -> ReportState:
        try:
            await self._call(report)
        except _NoTokenError:
            return ReportState.NOT_DELIVERED
        except ProxyError as error:
            return self._judge(report, error)
        report.attempts += 1
        self._works()
        return ReportState.DELIVERED

    async def _call(self, report: Report) -> None:
        key = report.key
        if report.kind == "close":
            await self._api.close_notebook(key.instance_id, key.kernel_id, key.session_id)
        elif report.token is None:
            raise _NoTokenError
        else:
            await self._api.open_notebook(report.token, key.instance_id, key.kernel_id, key.session_id)

    def _judge(self, report: Report, error: ProxyError) -> ReportState:
        """Say what an attempt that failed means; PENDING: try again."""
        match error:
            case InstanceNotFound() if report.kind == "open":
                return ReportState.REFUSED
            case TokenRejected() if report.kind == "open":
                is_late = self._monotonic() - report.created >= TOKEN_PATIENCE_S
                return ReportState.NOT_DELIVERED if is_late else ReportState.PENDING
            case _:
                self._fails(error)
                return ReportState.PENDING

    def _fails(self, error: ProxyError) -> None:
        if not self._is_failing:
            self._is_failing = True
            _log.warning(
                "notebook sessions cannot be reported to VISA; trying again",
                reason=error.error,
                cause=str(error),
                pending=len(self._outbox),
            )

    def _works(self) -> None:
        if self._is_failing:
            self._is_failing = False
            _log.info("notebook sessions are reported to VISA again", pending=len(self._outbox))


class _NoTokenError(Exception):
    pass
