"""From what the journal says of sessions to what the VISA API is told of them.

What is due is decided by the journal, in the transaction that writes what made it due: it knows whether
another process carries the session. Without the journal it is decided by what this process knows, if that
is enough (`writer`).
"""

import random
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal.records import (
    Due,
    Kind,
    Opened,
    Progressed,
    Record,
    ReportState,
    Settled,
)
from visa_jupyter_proxy.control.ledger import Ledger
from visa_jupyter_proxy.control.outbox import Outbox, Report
from visa_jupyter_proxy.control.reports import Delivery
from visa_jupyter_proxy.control.tokens import Holder, Tokens
from visa_jupyter_proxy.visa_api import VisaApi

_log: Final = logs.get()


class Reporting:
    """The reports of one control process: the author whose records a `writer.Writer` writes."""

    def __init__(
        self,
        api: VisaApi,
        ledger: Ledger,
        tokens: Tokens,
        add: Callable[[Record], None],
        *,
        may_send: Callable[[], bool],
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`tokens` are kept here; `add` has a record written; for `may_send` see `reports.Delivery`."""
        self._ledger = ledger
        self._add = add
        self._wall = wall
        self._monotonic = monotonic
        self.outcomes: Counter[tuple[Kind, str]] = Counter()
        """How many reports of a kind have come to which final state."""
        self._tokens = tokens
        self._outbox = Outbox()
        self.delivery = Delivery(
            api,
            self._outbox,
            self._tokens,
            self._settled,
            may_send=may_send,
            monotonic=monotonic,
            jitter=jitter,
        )

    @property
    def pending(self) -> int:
        """How many reports are to be delivered by this process."""
        return len(self._outbox)

    @property
    def oldest_age_s(self) -> float:
        """How long the oldest of them has been with this process; 0 when there is none."""
        since = self._outbox.oldest_since
        return 0.0 if since is None else self._monotonic() - since

    def token_accepted(self, whose: Holder, token: str) -> None:
        """Keep a token that the API has accepted, for opens that wait for one."""
        if self._tokens.accepted(whose, token):
            self._outbox.renew(whose)
            self.delivery.wake()

    # --- what the writer says: see `author.Author` -----------------------------------------------

    def due(self, record: Record, due: Due) -> None:
        """See `author.Author`."""
        self._send(Report.of(due, *_whose(record)))

    def adopted(self, due: Due) -> None:
        """See `author.Author`."""
        token = self._ledger.token(due.key) if due.kind == "open" else None
        self._send(Report.of(due, token=token), adopted=True)

    def release(self, record: Record) -> None:
        """See `author.Author`."""
        if isinstance(record, Settled | Progressed) or record.released:
            return
        record.released = True
        is_due = record.first if isinstance(record, Opened) else record.last
        if not is_due:
            record.report = None
        elif record.report is not None:
            kind: Kind = "open" if isinstance(record, Opened) else "close"
            self._send(Report(record.report, kind, record.key, *_whose(record)))

    def declare(self, *, but: Collection[str], anew: bool) -> list[Record]:
        """See `author.Author`."""
        return self._ledger.declare(but=but, anew=anew)

    def reborn(self) -> None:
        """See `author.Author`."""
        self._outbox.forget()

    def beaten(self) -> None:
        """See `author.Author`."""
        self.delivery.wake()

    def blocked(self) -> list[str]:
        """See `author.Author`."""
        return self._outbox.blocked()

    def unblock(self, but: Collection[str]) -> None:
        """See `author.Author`."""
        self._outbox.unblock(but)

    # --- reports ------------------------------------------------------------------------------

    def _send(self, report: Report, *, adopted: bool = False) -> None:
        report.since = self._monotonic()
        if self._outbox.put(report, adopted=adopted):
            self.delivery.wake()
            return
        _log.error("too many reports wait for VISA: one is left out", kind=report.kind)
        if report.kind == "open":
            self._settled(report, ReportState.NOT_DELIVERED)

    def _settled(self, report: Report, state: ReportState) -> None:
        self.outcomes[report.kind, state.value] += 1
        if state is not ReportState.DELIVERED:
            _log.warning(
                "the opening of a notebook session was not reported",
                instance=report.key.instance_id,
                outcome=str(state),
            )
        self._add(Settled(report.id, state, report.attempts, self._wall()))


def _whose(record: Record) -> tuple[str, str | None]:
    return (record.user, record.token) if isinstance(record, Opened) else ("", None)
