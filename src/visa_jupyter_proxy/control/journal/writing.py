"""The statements of the journal: what one record, a death, an adoption change. Each inside a transaction."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, case, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from visa_jupyter_proxy.control.journal.records import (
    Due,
    Ended,
    Kind,
    Opened,
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


async def write(connection: AsyncConnection, owner: str, record: Record) -> Due | None:
    """Write one record; give the report that it has made due, unless that was released already."""
    match record:
        case Opened():
            return await _opened(connection, owner, record)
        case Ended():
            return await _ended(connection, owner, record)
        case Settled():
            await _settled(connection, record)
            return None


async def _opened(connection: AsyncConnection, owner: str, record: Opened) -> Due | None:
    known = select(connections.c.id).where(connections.c.id == record.connection)
    if await connection.scalar(known) is not None:
        return None
    session = await connection.scalar(
        select(sessions.c.id).where(_has_key(record.key), sessions.c.closed_at.is_(None))
    )
    is_new = session is None
    if session is None:
        session = record.session
        await _insert_session(connection, record)
    await connection.execute(
        insert(connections).values(
            id=record.connection,
            session=session,
            owner=owner,
            worker=record.worker,
            tunnel=record.tunnel,
            opened_at=record.at,
        )
    )
    if record.report is None or not (is_new or record.released):
        return None
    due = await _report(connection, owner, _New("open", record.report, session, record.key, record.at))
    return None if record.released else due


async def _insert_session(connection: AsyncConnection, record: Opened) -> None:
    await connection.execute(
        insert(sessions).values(
            id=record.session,
            instance_id=record.key.instance_id,
            kernel_id=record.key.kernel_id,
            session_id=record.key.session_id,
            user_id=record.user,
            opened_at=record.at,
        )
    )


async def _ended(connection: AsyncConnection, owner: str, record: Ended) -> Due | None:
    running = (connections.c.id == record.connection, connections.c.ended_at.is_(None))
    session = await connection.scalar(select(connections.c.session).where(*running))
    if session is None:
        return None
    await connection.execute(
        update(connections)
        .where(*running)
        .values(
            ended_at=record.at,
            reason=record.reason,
            bytes_up=record.bytes_up,
            bytes_down=record.bytes_down,
        )
    )
    is_over = await _close_if_idle(connection, session, record.at)
    if record.report is None or not (is_over or record.released):
        return None
    due = await _report(connection, owner, _New("close", record.report, session, record.key, record.at))
    return None if record.released else due


async def _settled(connection: AsyncConnection, record: Settled) -> None:
    # Only once: a report that another owner has settled meanwhile stays as that found it.
    pending = (reports.c.id == record.report, reports.c.state == ReportState.PENDING)
    values = {"state": record.state, "attempts": record.attempts, "settled_at": record.at}
    await connection.execute(update(reports).where(*pending).values(values))


async def _close_if_idle(connection: AsyncConnection, session: str, at: float) -> bool:
    """Close a session that no connection carries, whosever that would be; say whether it was."""
    carried = exists().where(connections.c.session == session, connections.c.ended_at.is_(None))
    closed = await connection.execute(
        update(sessions)
        .where(sessions.c.id == session, sessions.c.closed_at.is_(None), ~carried)
        .values(closed_at=at)
    )
    return closed.rowcount == 1


class _New(NamedTuple):
    kind: Kind
    id: str
    session: str
    key: NotebookKey
    at: float


async def _report(connection: AsyncConnection, owner: str, new: _New) -> Due:
    made = await connection.execute(
        insert(reports).values(
            id=new.id,
            session=new.session,
            owner=owner,
            kind=new.kind,
            state=ReportState.PENDING,
            attempts=0,
            created_at=new.at,
        )
    )
    number = made.inserted_primary_key[0]  # type: ignore[index]  # one row has a key
    return Due(new.id, new.kind, new.key, number, blocked=await blocked(connection, owner, new.id))


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
    running = (connections.c.owner == dead, connections.c.ended_at.is_(None))
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
    if not await _close_if_idle(connection, session, at if ended_at is None else ended_at):
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


def _has_key(key: NotebookKey) -> ColumnElement[bool]:
    return and_(
        sessions.c.instance_id == key.instance_id,
        sessions.c.kernel_id == key.kernel_id,
        sessions.c.session_id == key.session_id,
    )
