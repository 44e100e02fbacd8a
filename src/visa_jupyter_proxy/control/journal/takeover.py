"""What becomes of an owner that is dead or has stopped: its connections end, its reports are taken over."""

from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from visa_jupyter_proxy.control.journal import lists
from visa_jupyter_proxy.control.journal.figures import sum_up
from visa_jupyter_proxy.control.journal.records import Due, ReportState, is_reportable, new_id
from visa_jupyter_proxy.control.journal.schema import connections, owners, reports, sessions
from visa_jupyter_proxy.mailbox import NotebookKey

OWNER_LOST: Final = "owner lost"
"""Why a connection of a dead control process ended."""

_is_carrying = connections.c.ended_at.is_(None)
_is_pending = reports.c.state == ReportState.PENDING.value

_idle = select(sessions).where(
    sessions.c.id.in_(bindparam("values", expanding=True)),
    sessions.c.closed_at.is_(None),
    # Whosever connection it is that carries it.
    ~exists().where(connections.c.session == sessions.c.id, _is_carrying),
)
_close = (
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values(closed_at=bindparam("at"), reason=bindparam("why"))
)
_reasons = (
    select(connections.c.session, connections.c.reason)
    .where(connections.c.session.in_(bindparam("values", expanding=True)))
    .order_by(connections.c.ended_at)
)


async def bury(connection: AsyncConnection, dead: str, beats: int, at: float) -> int | None:
    """See `Journal.bury`."""
    # Who counts this row comes first, and is alone: this is the only place that decides.
    last = await connection.execute(
        update(owners)
        .where(owners.c.id == dead, owners.c.beats == beats, owners.c.stopped_at.is_(None))
        .values(stopped_at=at)
    )
    if last.rowcount != 1:
        return None
    return await _end(connection, dead, owners.c.beat_at, at)


def left(owner: str) -> Select[str]:
    """See `Journal.left`."""
    return (
        select(connections.c.owner)
        .join(owners, owners.c.id == connections.c.owner)
        .where(_is_carrying, owners.c.stopped_at.is_not(None), owners.c.id != owner)
        .distinct()
    )


async def clear(connection: AsyncConnection, stopped: str, at: float) -> int:
    """See `Journal.clear`."""
    return await _end(connection, stopped, owners.c.stopped_at, at)


async def _end(connection: AsyncConnection, dead: str, last_sign: Column[Any], at: float) -> int:
    """End its connections and the sessions that nobody else carries; say how many connections there were."""
    seen = await connection.scalar(
        select(last_sign).where(owners.c.id == dead, owners.c.stopped_at.is_not(None))
    )
    if seen is None:
        return 0
    of_the_dead = (connections.c.owner == dead, _is_carrying)
    carried = (await connection.scalars(select(connections.c.session).where(*of_the_dead))).all()
    await connection.execute(
        update(connections)
        .where(*of_the_dead)
        .values(ended_at=_over(seen), reason=func.coalesce(connections.c.reason, OWNER_LOST))
    )
    idle = await lists.rows(connection, _idle, set(carried))
    if idle:
        # That of the connection that was over last.
        reasons = dict(map(tuple, await lists.rows(connection, _reasons, [row.id for row in idle])))
        await connection.execute(
            _close, [{"session": row.id, "at": at, "why": reasons[row.id]} for row in idle]
        )
        await _report(connection, dead, idle, at)
    await sum_up(connection, set(carried))
    return len(carried)


def _over(seen: float) -> ColumnElement[float]:
    """When a connection of the dead was over: its last sign of life is the best that is known, mostly."""
    return case(
        (connections.c.left_at.is_not(None), connections.c.left_at),
        (connections.c.opened_at > seen, connections.c.opened_at),
        else_=seen,
    )


async def _report(connection: AsyncConnection, dead: str, closed: list[Any], at: float) -> None:
    """Make closes pending: the dead owner's, like all that it has left, until somebody adopts them."""
    rows = [
        {
            "id": new_id(),
            "session": row.id,
            "owner": dead,
            "kind": "close",
            "state": ReportState.PENDING.value,
            "attempts": 0,
            "created_at": at,
        }
        for row in closed
        if is_reportable(_key(row))
    ]
    if rows:
        await connection.execute(insert(reports), rows)


async def adopt(connection: AsyncConnection, owner: str) -> list[Due]:
    """See `Journal.adopt`."""
    stopped = select(owners.c.id).where(owners.c.stopped_at.is_not(None), owners.c.id != owner)
    # An open needs a token: whoever carries the session has one.
    theirs = exists().where(
        connections.c.session == reports.c.session,
        connections.c.owner.in_(
            select(owners.c.id).where(owners.c.stopped_at.is_(None), owners.c.id != owner)
        ),
        _is_carrying,
    )
    mine = exists().where(
        connections.c.session == reports.c.session, connections.c.owner == owner, _is_carrying
    )
    left = (_is_pending, reports.c.owner.in_(stopped), or_(reports.c.kind == "close", ~theirs, mine))
    query = (
        select(reports.c.id.label("report"), reports.c.kind, reports.c.number, sessions)
        .join(sessions, sessions.c.id == reports.c.session)
        .where(*left)
        .order_by(reports.c.number)
    )
    rows = (await connection.execute(query)).all()
    if not rows:
        return []
    await connection.execute(update(reports).where(*left).values(owner=owner))
    waiting = await blocked(connection, owner)
    return [
        Due(row.report, row.kind, _key(row), row.number, blocked=row.report in waiting, user=row.user_id)
        for row in rows
    ]


async def blocked(connection: AsyncConnection, owner: str) -> set[str]:
    """Give the pending reports of `owner` that wait for an earlier one of the same key and another owner."""
    others = select(reports.c.number).where(_is_pending, reports.c.owner != owner).limit(1)
    if await connection.scalar(others) is None:
        return set()
    mine, my_session, earlier = reports.alias("mine"), sessions.alias("my_session"), reports.alias("earlier")
    query = (
        select(mine.c.id)
        .join(my_session, my_session.c.id == mine.c.session)
        .join(
            sessions,
            and_(
                sessions.c.instance_id == my_session.c.instance_id,
                sessions.c.kernel_id == my_session.c.kernel_id,
                sessions.c.session_id == my_session.c.session_id,
            ),
        )
        .join(earlier, earlier.c.session == sessions.c.id)
        .where(
            mine.c.owner == owner,
            mine.c.state == ReportState.PENDING.value,
            earlier.c.owner != owner,
            earlier.c.state == ReportState.PENDING.value,
            earlier.c.number < mine.c.number,
        )
        .distinct()
    )
    return set((await connection.scalars(query)).all())


def _key(session: Any) -> NotebookKey:
    return NotebookKey(session.instance_id, session.kernel_id, session.session_id)
