"""Notebook sessions: what one is, when it is open, and what is reported of it.

A session is (instance, kernel id, session id), open while at least one connection carries it, in this
process or in another one that writes to the same journal, and for `SESSION_LINGER_S` after the last.

    tunnel opened, ended ──> ledger ──> writer ──> journal ──> reporting ──> outbox ──> delivery ──> VISA API
                                              (one transaction)

A message becomes a record, at once. Nothing else happens while the worker's message is handled; one task
writes the records (`writer`), another delivers the reports (`reports`).
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.backlog import LARGEST
from visa_jupyter_proxy.control.journal.endings import Ending
from visa_jupyter_proxy.control.journal.records import Kind, Record
from visa_jupyter_proxy.control.ledger import Ledger
from visa_jupyter_proxy.control.reporting import Reporting
from visa_jupyter_proxy.control.tokens import Tokens, holder
from visa_jupyter_proxy.control.writer import OWNER_TIMEOUT_S, Writer
from visa_jupyter_proxy.mailbox import TokenAccepted, Traffic, TunnelEnded, TunnelOpened, TunnelProgressed
from visa_jupyter_proxy.visa_api import VisaApi
from visa_jupyter_proxy.waiting import happens

LINGER_S: Final = 5.0
"""JupyterLab tries to reconnect after 1 s, and again after 2."""

_STOPPED: Final = "proxy stopped"
_WORKER_LOST: Final = "worker lost"

_log = logs.get()


class Notebooks:
    """The notebook sessions of one control process.

    The caller owns `api` and closes it after `stop`; `journal` is closed by `stop`. Make it inside the
    running loop that will use it. What the workers say may be told before `start`. Times in seconds.
    In `tokens` it keeps those that the API has accepted, for all of this process.
    """

    def __init__(
        self,
        journal: Journal,
        api: VisaApi,
        *,
        tokens: Tokens | None = None,
        linger_s: float = LINGER_S,
        owner_timeout_s: float = OWNER_TIMEOUT_S,
        largest_backlog: int = LARGEST,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        end: Callable[[Iterable[Ending]], None] = lambda _: None,
    ) -> None:
        """`end` is called with what another node has ordered to be ended here; it must not raise."""
        self._monotonic = monotonic
        self._wall = wall
        self._ledger = Ledger(linger_s)
        self._reporting = Reporting(
            api,
            self._ledger,
            Tokens(monotonic) if tokens is None else tokens,
            self._add,
            may_send=lambda: self._writer.is_trusted,
            monotonic=monotonic,
            wall=wall,
            jitter=jitter,
        )
        self._delivery = self._reporting.delivery
        self._writer = Writer(
            journal,
            self._reporting,
            linger_s=linger_s,
            owner_timeout_s=owner_timeout_s,
            largest_backlog=largest_backlog,
            monotonic=monotonic,
            wall=wall,
            end=end,
        )
        self._wake = asyncio.Event()
        self._wakes_at = -math.inf
        """When the one who sleeps wakes by himself; while nobody sleeps, nobody is to be woken."""
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    # --- what the workers say; never waits, never raises --------------------------------------

    def tunnel_opened(self, worker: int, message: TunnelOpened) -> None:
        """Take note that a connection of a session has begun."""
        whose = holder(message.user, message.notebook.instance_id)
        self._reporting.token_accepted(whose, message.token)
        records = self._ledger.opened(worker, message)
        if records is None:
            _log.error("a tunnel was opened twice", worker=worker, tunnel=message.tunnel)
        else:
            self._add(*records)

    def tunnel_progressed(self, worker: int, message: TunnelProgressed) -> None:
        """Take note of what has passed through a connection."""
        record = self._ledger.progressed(worker, message)
        if message.is_for_a_look:
            return
        # Another one comes in a minute: what waits for the journal is what cannot be said again.
        if record is not None and not self._writer.is_failing:
            self._add(record)

    def tunnel_ended(self, worker: int, message: TunnelEnded) -> None:
        """Take note that a connection of a session is over."""
        record = self._ledger.ended(worker, message, self._monotonic())
        if record is None:
            _log.error("an unknown tunnel has ended", worker=worker, tunnel=message.tunnel)
        else:
            self._add(record)

    def worker_lost(self, worker: int, at: float) -> None:
        """Take note that every connection of this worker process is over; `at` is Unix time."""
        self._add(*self._ledger.lost(worker, _WORKER_LOST, at, self._monotonic()))

    def token_accepted(self, message: TokenAccepted) -> None:
        """Keep a token that the API has accepted, for opens that wait for one."""
        self._reporting.token_accepted(message.user, message.token)

    # --- how things are ----------------------------------------------------------------------

    @property
    def owner(self) -> str:
        """Id of this process's row among the owners of the journal."""
        return self._writer.owner

    @property
    def connections(self) -> int:
        """How many connections of notebook sessions are open on the workers of this process."""
        return len(self._ledger)

    def traffic(self, worker: int, tunnel: int) -> Traffic | None:
        """Give what has passed through an open connection; None when it is not here, or all is unknown."""
        return self._ledger.traffic(worker, tunnel)

    @property
    def lingering(self) -> int:
        """How many sessions have lost their last connection here, and may come back."""
        return self._ledger.lingering

    @property
    def records_waiting(self) -> int:
        """How many records are not in the journal yet."""
        return self._writer.waiting

    @property
    def reports_pending(self) -> int:
        """How many reports are to be delivered by this process."""
        return self._reporting.pending

    @property
    def records_lost(self) -> int:
        """How many records were given up because too many waited."""
        return self._writer.lost

    @property
    def journals_replaced(self) -> int:
        """How often the journal was another one than before."""
        return self._writer.replaced

    @property
    def journal_lag_s(self) -> float:
        """How long records have waited without any being written; 0 when none waits."""
        return self._writer.lag_s

    @property
    def reports_age_s(self) -> float:
        """How long the oldest pending report has been with this process; 0 when there is none."""
        return self._reporting.oldest_age_s

    @property
    def reports_settled(self) -> Mapping[tuple[Kind, str], int]:
        """How many reports of a kind have come to which final state."""
        return self._reporting.outcomes

    @property
    def journal_state(self) -> str:
        """`starting` until `start` has returned, then `written`, or `failing` since a fault."""
        if not self._tasks:
            return "starting"
        return "failing" if self._writer.is_failing else "written"

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

        Sessions whose browser may still come back, to another process or to the next one here, stay
        open: that process ends them if it does not. Takes `seconds` at most, apart from a write that
        hangs in the system. What could not be delivered stays pending in the journal, likewise.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        self._add(*self._ledger.lost(None, _STOPPED, self._wall(), self._monotonic()))
        self._is_stopping = True
        self._wake.set()
        # Not cancelled: a transaction that is under way comes to its end.
        await asyncio.gather(*self._tasks[:1], return_exceptions=True)
        await self._writer.flush()
        if self._writer.is_failing and self._writer.decides:
            # Nobody could find in the journal what lingers here.
            self._add(*self._ledger.lapsed(math.inf))
        await self._last_deliveries(deadline)
        await self._writer.flush()
        await self._writer.stop()

    async def _last_deliveries(self, deadline: float) -> None:
        self._delivery.hurry()
        delivery = self._tasks[1:]
        if delivery:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._delivery.empty()
            except TimeoutError:
                _log.warning("stopping with reports that are not delivered", pending=self._reporting.pending)
            delivery[0].cancel()
            await asyncio.gather(*delivery, return_exceptions=True)

    async def _run(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            await self._sleep()
            if not self._is_stopping:
                await self.step()

    async def _sleep(self) -> None:
        """Until there is a record to write, a heartbeat is due, or a session has lingered long enough."""
        self._wakes_at = self._next_at()
        try:
            await happens(self._wake, max(0.0, self._wakes_at - self._monotonic()))
        finally:
            self._wakes_at = -math.inf

    def _next_at(self) -> float:
        lapse = self._ledger.next_lapse()
        return min(self._writer.next_at(), math.inf if lapse is None else lapse)

    # --- one step; tests may take it without `start` -------------------------------------------

    async def step(self) -> None:
        """Close what has lingered for long enough; beat and write. Never fails."""
        self._add(*self._ledger.lapsed(self._monotonic()))
        if not self._tasks or self._writer.next_at() <= self._monotonic():
            await self._writer.step()

    def _add(self, *records: Record) -> None:
        self._writer.add(*records)
        if self._next_at() < self._wakes_at:
            self._wake.set()
