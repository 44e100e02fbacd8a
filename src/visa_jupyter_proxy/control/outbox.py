"""The reports that are not settled, and which of them are due. Plain code: `now` is a monotonic clock.

Reports of one session key are due one after the other, in the order of the journal. The first that is
not settled holds back the rest. Different keys do not wait for each other.
"""

import heapq
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, override

from visa_jupyter_proxy.circuit import back_off
from visa_jupyter_proxy.control.journal.records import Due, Kind
from visa_jupyter_proxy.control.tokens import Holder, holder
from visa_jupyter_proxy.mailbox import NotebookKey

CONCURRENT: Final = 16
"""Deliveries at once: half of what a small API server's pool of database connections holds."""

LARGEST: Final = 100_000
"""Reports kept in memory."""

LARGEST_OF_AN_INSTANCE: Final = LARGEST // 4
"""Of one instance: its owner can have it say that it opens kernels as fast as it likes."""

type _Entry = tuple[float, int, Report]
"""When a report may be sent, a number that tells apart those of the same time, and the report."""


@dataclass(slots=True, eq=False)
class Report:
    """One message to the API, on its way."""

    id: str
    kind: Kind
    key: NotebookKey
    user: str = ""
    """Whose session it is; an open needs a token of theirs."""
    token: str | None = None
    """The one that opened the session, if this process has it."""
    number: int | None = None
    """Its place in the journal's order; None when the journal does not know it yet."""
    blocked: bool = False
    since: float = 0.0
    """When this process was told of it."""
    attempts: int = 0
    not_before: float = 0.0
    refused_at: float | None = None
    """When the API refused a token for the first time."""
    under_way: bool = False
    forgotten: bool = False
    """Another owner has taken it over while it was under way."""

    @classmethod
    def of(cls, due: Due, user: str = "", token: str | None = None) -> "Report":
        """Make the report that the journal says is due."""
        return cls(due.report, due.kind, due.key, due.user or user, token, due.number, due.blocked)

    @property
    def holder(self) -> Holder:
        """Whose tokens can deliver it, if it is an open."""
        return holder(self.user, self.key.instance_id)

    @override
    def __repr__(self) -> str:
        return f"Report({self.id}, {self.kind}, {self.key}, attempts={self.attempts})"


class Outbox:
    """The reports of all sessions."""

    def __init__(
        self,
        *,
        concurrent: int = CONCURRENT,
        largest: int = LARGEST,
        largest_of_an_instance: int = LARGEST_OF_AN_INSTANCE,
    ) -> None:
        self._concurrent = concurrent
        self._largest = largest
        self._largest_of_an_instance = largest_of_an_instance
        self._queues: dict[NotebookKey, deque[Report]] = {}
        # A dict whose first ones go steps over all that have gone, whenever it is asked for its first.
        self._all: OrderedDict[Report, None] = OrderedDict()
        """In the order in which they came."""
        self._blocked: dict[Report, None] = {}
        self._under_way = 0
        self._refused: dict[Holder, set[Report]] = {}
        """Opens whose token was refused, and that wait for another one."""
        # When the first report of a key may be sent. An entry that is overtaken by events stays, and is
        # thrown away when its turn comes.
        self._times: list[_Entry] = []
        self._entries = itertools.count()
        self._ready: OrderedDict[int, deque[_Entry]] = OrderedDict()
        """By instance, in the order of their turns: what was due already, and has to be looked at again."""
        self._of_instance: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def deliverable(self) -> int:
        """How many wait for nothing but the API, and for each other."""
        return len(self._all) - len(self._blocked)

    @property
    def oldest_since(self) -> float | None:
        """When the report came that has waited longest; None when there is none."""
        return next((report.since for report in self._all), None)

    # --- what is due ---------------------------------------------------------------------------

    def put(self, report: Report, *, adopted: bool = False) -> bool:
        """Add a report in its place; False when there are too many already.

        Our own come in their order. One that was adopted may be older than what waits here.
        """
        instance = report.key.instance_id
        if len(self._all) >= self._largest or self._of_instance[instance] >= self._largest_of_an_instance:
            return False
        queue = self._queues.setdefault(report.key, deque())
        queue.insert(_place(queue, report) if adopted else len(queue), report)
        self._all[report] = None
        if report.blocked:
            self._blocked[report] = None
        self._of_instance[instance] += 1
        self._schedule(queue[0])
        return True

    def due(self, now: float, most: int | None = None) -> list[Report]:
        """Take the reports that are to be sent now; each comes back by one of the three calls below.

        Instances take turns: thousands of reports of one hold up nobody else's.
        """
        while self._times and self._times[0][0] <= now:
            entry = heapq.heappop(self._times)
            self._ready.setdefault(entry[2].key.instance_id, deque()).append(entry)
        due: list[Report] = []
        while (most is None or len(due) < most) and self._under_way < self._concurrent:
            self._drop_overtaken()
            if not self._ready:
                break
            report = self._take_turn()
            report.under_way = True
            self._under_way += 1
            due.append(report)
        return due

    def next_at(self) -> float | None:
        """When the next report is due; None while that depends on something else than time."""
        if self._under_way >= self._concurrent:
            return None
        self._drop_overtaken()
        if self._ready:
            return next(iter(self._ready.values()))[0][0]
        while self._times and not self._is_valid(*self._times[0]):
            heapq.heappop(self._times)
        return self._times[0][0] if self._times else None

    def _drop_overtaken(self) -> None:
        """See to it that what is ready first, if anything is, is still to be sent."""
        while self._ready:
            instance, entries = next(iter(self._ready.items()))
            while entries and not self._is_valid(*entries[0]):
                entries.popleft()
            if entries:
                return
            del self._ready[instance]

    def _take_turn(self) -> Report:
        """Take the first report of the instance whose turn it is, which then comes last."""
        instance, entries = next(iter(self._ready.items()))
        del self._ready[instance]
        _, _, report = entries.popleft()
        if entries:
            self._ready[instance] = entries
        return report

    # --- what became of it ---------------------------------------------------------------------

    def settled(self, report: Report) -> None:
        """Take a report out for good."""
        self._returned(report)
        queue = self._queues[report.key]
        queue.remove(report)
        del self._all[report]
        self._less(report.key.instance_id, 1)
        if queue:
            self._schedule(queue[0])
        else:
            del self._queues[report.key]

    def failed(self, report: Report, now: float, jitter: float) -> None:
        """Put a report back, due after its back-off; `jitter` is a random number from 0 to 1."""
        report.attempts += 1
        report.not_before = now + back_off(report.attempts, jitter)
        self.broken_off(report)

    def refused(self, report: Report, now: float, jitter: float) -> None:
        """Put an open back whose token was refused; due early when there is a new one (`renew`)."""
        if report.refused_at is None:
            report.refused_at = now
        self._refused.setdefault(report.holder, set()).add(report)
        self.failed(report, now, jitter)

    def broken_off(self, report: Report) -> None:
        """Put a report back whose attempt has come to no end."""
        if report.forgotten:
            self.settled(report)
            return
        self._returned(report, waits=True)
        self._schedule(self._queues[report.key][0])

    # --- what changes meanwhile ----------------------------------------------------------------

    def renew(self, whose: Holder) -> None:
        """Let the opens go that wait for a token of theirs."""
        for report in self._refused.pop(whose, ()):
            report.not_before = 0.0
            self._schedule(self._queues[report.key][0])

    def blocked(self) -> list[str]:
        """Give the ids of the reports that wait for another owner's."""
        return [report.id for report in self._blocked]

    def unblock(self, but: Collection[str]) -> None:
        """Let all blocked reports go, except these."""
        for report in [one for one in self._blocked if one.id not in but]:
            report.blocked = False
            del self._blocked[report]
            self._schedule(self._queues[report.key][0])

    def hurry(self) -> None:
        """Forget all back-off: this is the last chance."""
        for queue in self._queues.values():
            queue[0].not_before = 0.0
            self._schedule(queue[0])

    def forget(self) -> None:
        """Drop all: another owner has taken it over. What is under way is not repeated."""
        self._refused.clear()
        self._blocked.clear()
        for key, queue in list(self._queues.items()):
            kept = deque(report for report in queue if report.under_way)
            self._less(key.instance_id, len(queue) - len(kept))
            for report in queue:
                if report.under_way:
                    report.forgotten = True
                else:
                    del self._all[report]
            if kept:
                self._queues[key] = kept
            else:
                del self._queues[key]

    def _returned(self, report: Report, *, waits: bool = False) -> None:
        report.under_way = False
        self._under_way -= 1
        if not waits and (others := self._refused.get(report.holder)):
            others.discard(report)
            if not others:
                del self._refused[report.holder]

    def _less(self, instance: int, count: int) -> None:
        self._of_instance[instance] -= count
        if not self._of_instance[instance]:
            del self._of_instance[instance]

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
