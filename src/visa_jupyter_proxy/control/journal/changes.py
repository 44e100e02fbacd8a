"""What records change, given what the journal holds. Plain code: no store, no loop, no clock.

The rules of what a session is stand here: the first connection of a key opens one, others join it,
whoever they belong to, and the end of the last one closes it.
"""

from dataclasses import dataclass, field
from typing import Final

from visa_jupyter_proxy.control.journal.figures import NOTHING, SUMS, Row, join, tell
from visa_jupyter_proxy.control.journal.records import (
    Ended,
    Kind,
    Opened,
    Progressed,
    Record,
    ReportState,
    Settled,
)
from visa_jupyter_proxy.control.journal.schema import FIGURES
from visa_jupyter_proxy.mailbox import NotebookKey, Traffic

PROGRESS: Final = (*FIGURES, "left_at", "reason")
"""What is kept of a `Progressed`."""


@dataclass(slots=True)
class Held:
    """What the journal holds of the connections and sessions that some records speak of."""

    sessions: dict[str, str] = field(default_factory=dict)
    """Connection -> the session it belongs to."""
    figures: dict[str, Row] = field(default_factory=dict)
    """Connection -> what is known of it."""
    sums: dict[str, Row] = field(default_factory=dict)
    """Session -> that of all its connections, and their number."""
    over: set[str] = field(default_factory=set)
    """Connections that have ended."""
    open: dict[NotebookKey, str] = field(default_factory=dict)
    """Key -> the session that is open."""
    carriers: dict[str, int] = field(default_factory=dict)
    """Session -> how many connections carry it, of any owner."""
    untold: set[str] = field(default_factory=set)
    """Open sessions whose opening was given up, for want of a token."""
    pending: set[str] = field(default_factory=set)
    """Reports that were written before, and are pending."""


class Changes:
    """The rows that come of some records of one owner, in the order of writing them."""

    def __init__(self, owner: str, held: Held) -> None:
        """`held` is used up."""
        self._owner = owner
        self._held = held
        self.closed: list[Row] = []
        """Sessions that were open before, and are closed. A key may be open once: these come first."""
        self.sessions: dict[str, Row] = {}
        self.connections: dict[str, Row] = {}
        self.progressed: list[Row] = []
        self.ended: list[Row] = []
        self.reports: list[Row] = []
        self.settled: list[Row] = []
        self._touched: dict[str, None] = {}
        self.over: dict[str, None] = {}
        """Sessions that are closed, new ones among them."""

    @property
    def summed(self) -> list[Row]:
        """The sessions that were there before, with their new figures."""
        return [
            {"session": session, **{f"to_{name}": self._held.sums[session][name] for name in SUMS}}
            for session in self._touched
            if session not in self.sessions
        ]

    def add(self, record: Record) -> str | None:
        """Take one more record; give the id of the report that it makes due, if any."""
        match record:
            case Opened():
                return self._opened(record)
            case Progressed():
                self._progressed(record)
            case Ended():
                return self._ended(record)
            case Settled(report, state, attempts, at):
                self.settled.append(
                    {"report": report, "to_state": state.value, "to_attempts": attempts, "to_settled_at": at}
                )
        return None

    def _opened(self, record: Opened) -> str | None:
        if record.connection in self._held.sessions:
            return self._again(record)
        session = self._held.open.get(record.key)
        is_new = session is None
        if session is None:
            session = self._new_session(record)
        join(self._held.sums[session])
        self._touched[session] = None
        self._held.sessions[record.connection] = session
        self._held.carriers[session] = self._held.carriers.get(session, 0) + 1
        self.connections[record.connection] = {
            "id": record.connection,
            "session": session,
            "owner": self._owner,
            "worker": record.worker,
            "tunnel": record.tunnel,
            "opened_at": record.at,
            "ended_at": None,
            **dict.fromkeys(PROGRESS),
        }
        # Whoever opens a connection has a token, also for what could not be told without one.
        is_untold = session in self._held.untold
        self._held.untold.discard(session)
        return self._due("open", record, session) if is_new or is_untold or record.released else None

    def _new_session(self, record: Opened) -> str:
        self.sessions[record.session] = {
            "id": record.session,
            "instance_id": record.key.instance_id,
            "kernel_id": record.key.kernel_id,
            "session_id": record.key.session_id,
            "user_id": record.user,
            "opened_at": record.at,
            "closed_at": None,
            "reason": None,
            "connections": 0,
            **NOTHING,
        }
        self._held.sums[record.session] = self.sessions[record.session]
        self._held.open[record.key] = record.session
        return record.session

    def _progressed(self, record: Progressed) -> None:
        session = self._carried(record.connection)
        if session is None:
            return
        row = {**_figures(record.traffic), "left_at": record.left_at, "reason": record.reason}
        self._tell(session, record.connection, row)
        new = self.connections.get(record.connection)
        if new is None:
            self.progressed.append(_update(record.connection, row))
        else:
            new |= _known(row)

    def _ended(self, record: Ended) -> str | None:
        session = self._carried(record.connection)
        if session is None:
            return self._again(record)
        self._held.over.add(record.connection)
        self._end(session, record)
        self._held.carriers[session] -= 1
        is_last = self._held.carriers[session] == 0
        if is_last:
            self._close(session, record)
        return self._due("close", record, session) if is_last or record.released else None

    def _end(self, session: str, record: Ended) -> None:
        figures = _figures(record.traffic)
        self._tell(session, record.connection, figures)
        row = {**figures, "left_at": record.at, "ended_at": record.at, "reason": record.reason}
        new = self.connections.get(record.connection)
        if new is None:
            self.ended.append(_update(record.connection, row))
        else:
            new |= _known(row)

    def _tell(self, session: str, connection: str, figures: Row) -> None:
        tell(self._held.sums[session], self._held.figures.setdefault(connection, dict(NOTHING)), figures)
        self._touched[session] = None

    def _close(self, session: str, record: Ended) -> None:
        self.over[session] = None
        self._held.open.pop(record.key, None)
        new = self.sessions.get(session)
        if new is None:
            self.closed.append({"session": session, "to_closed_at": record.at, "to_reason": record.reason})
        else:
            new |= {"closed_at": record.at, "reason": record.reason}

    def _carried(self, connection: str) -> str | None:
        """Give the session that a connection carries; None when it has ended, or was never there."""
        return None if connection in self._held.over else self._held.sessions.get(connection)

    def _due(self, kind: Kind, record: Opened | Ended, session: str) -> str | None:
        if record.report is None:
            return None
        self.reports.append(
            {
                "id": record.report,
                "session": session,
                "owner": self._owner,
                "kind": kind,
                "state": ReportState.PENDING.value,
                "attempts": 0,
                "created_at": record.at,
            }
        )
        return None if record.released else record.report

    def _again(self, record: Opened | Ended) -> str | None:
        """Tell again of a report whose transaction was committed, but whose answer was lost."""
        is_pending = record.report in self._held.pending
        return record.report if is_pending and not record.released else None


def _figures(traffic: Traffic | None) -> Row:
    return {name: None if traffic is None else getattr(traffic, name) for name in FIGURES}


def _known(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None}


def _update(connection: str, row: Row) -> Row:
    return {"connection": connection} | {f"to_{name}": value for name, value in row.items()}
