"""The statements of the journal: what one record, a death, an adoption change. Each inside a transaction."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, case, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from visa_jupyter_proxy.control.journal.records import (
    Due,
    Ended,
    Kind,
    Opened,
    Progressed,
    Record,
    ReportState,
    Settled,
    is_reportable,
    new_id,
)
from visa_jupyter_proxy.control.journal.schema import connections, owners, reports, sessions
from visa_jupyter_proxy.mailbox import NotebookKey

OWNER_LOST = "owner lost"
"""Why a connection of a dead control process ended."""


_pending = reports.c.state == ReportState.PENDING
_running = connections.c.ended_at.is_(None)

# Statements are made once: making one costs more than executing it.
_others_pending = select(reports.c.number).where(_pending, reports.c.owner != bindparam("me")).limit(1)
_known = select(connections.c.id).where(connections.c.id.in_(bindparam("ids", expanding=True)))
_open_session = select(sessions.c.id).where(
    sessions.c.instance_id == bindparam("instance_id"),
    sessions.c.kernel_id == bindparam("kernel_id"),
    sessions.c.session_id == bindparam("session_id"),
    sessions.c.closed_at.is_(None),
)
_session_of = select(connections.c.session).where(connections.c.id == bindparam("connection"), _running)
_end = (
    update(connections)
    .where(connections.c.id == bindparam("connection"))
    .values(
        ended_at=bindparam("at"),
        reason=bindparam("why"),
        bytes_up=bindparam("up"),
        bytes_down=bindparam("down"),
    )
)
_close_if_idle = (
    update(sessions)
    .where(
        sessions.c.id == bindparam("session"),
        sessions.c.closed_at.is_(None),
        # Whosever connection it is that carries it.
        ~exists().where(connections.c.session == sessions.c.id, _running),
    )
    .values(closed_at=bindparam("at"))
)
# Only once: a report that another owner has settled meanwhile stays as that found it.
_settle = (
    update(reports)
    .where(reports.c.id == bindparam("report"), _pending)
    .values(state=bindparam("final"), attempts=bindparam("tries"), settled_at=bindparam("at"))
)
_insert_session = insert(sessions)
_insert_connection = insert(connections)
_insert_report = insert(reports)


class Batch:
    """Writes records one after the other, in one transaction of one owner."""

    def __init__(self, connection: AsyncConnection, owner: str) -> None:
        self._connection = connection
        self._owner = owner
        self._known: set[str] = set()
        self._others_pending = False

    async def write(self, records: Sequence[Record]) -> list[Due | None]:
        """Write all; give for each the report that it has made due, unless that was released already."""
        ids = [record.connection for record in records if isinstance(record, Opened)]
        self._known = set((await self._connection.scalars(_known, {"ids": ids})).all())
        self._others_pending = (
            await self._connection.scalar(_others_pending, {"me": self._owner})
        ) is not None
        return [await self._write(record) for record in records]

    async def _write(self, record: Record) -> Due | None:
        match record:
            case Opened():
                return await self._opened(record)
            case Ended():
                return await self._ended(record)
            case Progressed():
                return None
            case Settled(report, state, attempts, at):
                values = {"report": report, "final": state, "tries": attempts, "at": at}
                await self._connection.execute(_settle, values)
                return None

    async def _opened(self, record: Opened) -> Due | None:
        if record.connection in self._known:
            return None
        session = await self._connection.scalar(_open_session, _columns(record.key))
        is_new = session is None
        if session is None:
            session = record.session
            row = {"id": session, "user_id": record.user, "opened_at": record.at}
            await self._connection.execute(_insert_session, row | _columns(record.key))
        row = {
            "id": record.connection,
            "session": session,
            "owner": self._owner,
            "worker": record.worker,
            "tunnel": record.tunnel,
            "opened_at": record.at,
        }
        await self._connection.execute(_insert_connection, row)
        if record.report is None or not (is_new or record.released):
            return None
        due = await self._report(_New("open", record.report, session, record.key, record.at))
        return None if record.released else due

    async def _ended(self, record: Ended) -> Due | None:
        session = await self._connection.scalar(_session_of, {"connection": record.connection})
        if session is None:
            return None
        values = {
            "connection": record.connection,
            "at": record.at,
            "why": record.reason,
            "up": record.bytes_up,
            "down": record.bytes_down,
        }
        await self._connection.execute(_end, values)
        is_over = await _close(self._connection, session, record.at)
        if record.report is None or not (is_over or record.released):
            return None
        due = await self._report(_New("close", record.report, session, record.key, record.at))
        return None if record.released else due

    async def _report(self, new: "_New") -> Due:
        number = await _report(self._connection, self._owner, new)
        waits = self._others_pending and await blocked(self._connection, self._owner, new.id)
        return Due(new.id, new.kind, new.key, number, blocked=waits)


class _New(NamedTuple):
    kind: Kind
    id: str
    session: str
    key: NotebookKey
    at: float


def _columns(key: NotebookKey) -> dict[str, object]:
    return {"instance_id": key.instance_id, "kernel_id": key.kernel_id, "session_id": key.session_id}


async def _close(connection: AsyncConnection, session: str, at: float) -> bool:
    """Close a session that no connection carries; say whether it was."""
    closed = await connection.execute(_close_if_idle, {"session": session, "at": at})
    return closed.rowcount == 1


async def _report(connection: AsyncConnection, owner: str, new: _New) -> int:
    """Make a report pending; give its number."""
    row = {
        "id": new.id,
        "session": new.session,
        "owner": owner,
        "kind": new.kind,
        "state": ReportState.PENDING,
        "attempts": 0,
        "created_at": new.at,
    }
    made = await connection.execute(_insert_report, row)
    number: int = made.inserted_primary_key[0]  # type: ignore[index]  # one row has a key
    return number


async def blocked(connection: AsyncConnection, owner: str, report: str) -> bool:
    """Whether an earlier report of the same key is pending with another owner."""
    mine, my_session = reports.alias(), sessions.alias()
    earlier = (
        select(reports.c.number)
        .join(sessions, sessions.c.id == reports.c.session)
        .join(
            my_session,
            and_(
                my_session.c.instance_id == sessions.c.instance_id,
                my_session.c.kernel_id == sessions.c.kernel_id,
                my_session.c.session_id == sessions.c.session_id,
            ),
        )
        .join(mine, mine.c.session == my_session.c.id)
        .where(
            mine.c.id == report,
            reports.c.number < mine.c.number,
            reports.c.owner != owner,
            reports.c.state == ReportState.PENDING,
        )
        .limit(1)
    )
    return await connection.scalar(earlier) is not None


async def bury(connection: AsyncConnection, dead: str, beats: int, at: float) -> int | None:
    """See `Journal.bury`."""
    last = await connection.execute(
        update(owners)
        .where(owners.c.id == dead, owners.c.beats == beats, owners.c.stopped_at.is_(None))
        .values(stopped_at=at)
    )
    if last.rowcount != 1:
        return None
    # Its last heartbeat is the best that is known of when its connections ended.
    seen = await connection.scalar(select(owners.c.beat_at).where(owners.c.id == dead))
    running = (connections.c.owner == dead, _running)
    carried = await connection.execute(select(connections.c.session).where(*running).distinct())
    ended = await connection.execute(
        update(connections).where(*running).values(ended_at=_not_before(seen), reason=OWNER_LOST)
    )
    for session in carried.scalars().all():
        await _close_lost(connection, session, dead, at)
    return ended.rowcount


def _not_before(seen: float | None) -> ColumnElement[float]:
    """Give the time `seen`; for a connection that is younger, its own beginning."""
    return case((connections.c.opened_at > seen, connections.c.opened_at), else_=seen)


async def _close_lost(connection: AsyncConnection, session: str, dead: str, at: float) -> None:
    last = select(func.max(connections.c.ended_at)).where(connections.c.session == session)
    ended_at = await connection.scalar(last)
    if not await _close(connection, session, at if ended_at is None else ended_at):
        return
    row = (await connection.execute(select(sessions).where(sessions.c.id == session))).one()
    key = NotebookKey(row.instance_id, row.kernel_id, row.session_id)
    if is_reportable(key):
        # It is the dead owner's, like all that it has left, until somebody adopts it.
        await _report(connection, dead, _New("close", new_id(), session, key, at))


async def adopt(connection: AsyncConnection, owner: str) -> list[Due]:
    """See `Journal.adopt`."""
    stopped = select(owners.c.id).where(owners.c.stopped_at.is_not(None), owners.c.id != owner)
    pending = (reports.c.state == ReportState.PENDING, reports.c.owner.in_(stopped))
    query = (
        select(reports.c.id, reports.c.kind, reports.c.number, sessions)
        .join(sessions, sessions.c.id == reports.c.session)
        .where(*pending)
        .order_by(reports.c.number)
    )
    rows = (await connection.execute(query)).all()
    await connection.execute(update(reports).where(*pending).values(owner=owner))
    return [
        Due(
            row.id,
            row.kind,
            NotebookKey(row.instance_id, row.kernel_id, row.session_id),
            row.number,
            blocked=await blocked(connection, owner, row.id),
        )
        for row in rows
    ]
