"""What becomes of an owner that is dead or has stopped: its connections end, its reports are taken over."""

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
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

from visa_jupyter_proxy.control.journal import ends, lists
from visa_jupyter_proxy.control.journal.records import Due, ReportState, is_reportable, new_id
from visa_jupyter_proxy.control.journal.schema import (
    IS_PENDING,
    PENDING,
    connections,
    owners,
    reports,
    sessions,
)
from visa_jupyter_proxy.mailbox import NotebookKey

OWNER_LOST: Final = "owner lost"
"""Why a connection of a dead control process ended."""

_is_carrying = connections.c.ended_at.is_(None)
# Statements that are executed with every heartbeat are made once.
_me: BindParameter[Any] = bindparam("me")

_idle = select(sessions).where(
    sessions.c.id.in_(bindparam("values", expanding=True)),
    sessions.c.closed_at.is_(None),
    # Whosever connection it is that carries it.
    ~exists().where(connections.c.session == sessions.c.id, _is_carrying),
)
# That of the connection that was over last, of perhaps thousands: an index ends with when they were.
_reason = (
    select(connections.c.reason)
    .where(connections.c.session == sessions.c.id)
    .order_by(connections.c.ended_at.desc())
    .limit(1)
    .scalar_subquery()
)
_close = (
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values(closed_at=bindparam("at"), reason=_reason)
)


def bury(connection: Connection, dead: str, beats: int, at: float) -> int | None:
    """See `Journal.bury`."""
    # Who counts this row comes first, and is alone: this is the only place that decides.
    last = connection.execute(
        update(owners)
        .where(owners.c.id == dead, owners.c.beats == beats, owners.c.stopped_at.is_(None))
        .values(stopped_at=at)
    )
    if last.rowcount != 1:
        return None
    return _end(connection, dead, owners.c.beat_at, at)


_left = select(owners.c.id).where(
    owners.c.stopped_at.is_not(None),
    owners.c.id != _me,
    exists().where(connections.c.owner == owners.c.id, _is_carrying),
)


def left(connection: Connection, owner: str) -> set[str]:
    """See `Journal.left`."""
    return set(connection.scalars(_left, {"me": owner}))


def clear(connection: Connection, stopped: str, at: float) -> int:
    """See `Journal.clear`."""
    return _end(connection, stopped, owners.c.stopped_at, at)


def _end(connection: Connection, dead: str, last_sign: Column[Any], at: float) -> int:
    """End its connections and the sessions that nobody else carries; say how many connections there were."""
    seen = connection.scalar(select(last_sign).where(owners.c.id == dead, owners.c.stopped_at.is_not(None)))
    if seen is None:
        return 0
    of_the_dead = (connections.c.owner == dead, _is_carrying)
    carried = connection.scalars(select(connections.c.session).where(*of_the_dead)).all()
    connection.execute(
        update(connections)
        .where(*of_the_dead)
        .values(ended_at=_over(seen), reason=func.coalesce(connections.c.reason, OWNER_LOST))
    )
    idle = lists.rows(connection, _idle, set(carried))
    if idle:
        connection.execute(_close, [{"session": row.id, "at": at} for row in idle])
        _report(connection, dead, idle, at)
        ends.correct(connection, [row.id for row in idle])
    return len(carried)


def _over(seen: float) -> ColumnElement[float]:
    """When a connection of the dead was over: its last sign of life is the best that is known, mostly."""
    return case(
        (connections.c.left_at.is_not(None), connections.c.left_at),
        (connections.c.opened_at > seen, connections.c.opened_at),
        else_=seen,
    )


def _report(connection: Connection, dead: str, closed: list[Any], at: float) -> None:
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
        connection.execute(insert(reports), rows)


# They are looked for first: nearly always there are none, and all that is pending need not be read for it.
_with_reports = select(owners.c.id).where(
    owners.c.stopped_at.is_not(None),
    owners.c.id != _me,
    exists().where(reports.c.owner == owners.c.id, IS_PENDING),
)
_alive = select(owners.c.id).where(owners.c.stopped_at.is_(None), owners.c.id != _me)
_of_its_session = connections.c.session == reports.c.session
# An open needs a token: whoever carries the session has one.
_is_left = (
    IS_PENDING,
    reports.c.owner.in_(bindparam("stopped", expanding=True)),
    or_(
        reports.c.kind == "close",
        ~exists().where(_of_its_session, connections.c.owner.in_(_alive), _is_carrying),
        exists().where(_of_its_session, connections.c.owner == _me, _is_carrying),
    ),
)
_adoptable = (
    select(reports.c.id.label("report"), reports.c.kind, reports.c.number, sessions)
    .join(sessions, sessions.c.id == reports.c.session)
    .where(*_is_left)
    .order_by(reports.c.number)
)
_adopt = update(reports).where(*_is_left).values(owner=_me)


def adopt(connection: Connection, owner: str) -> list[Due]:
    """See `Journal.adopt`."""
    stopped = connection.scalars(_with_reports, {"me": owner}).all()
    if not stopped:
        return []
    rows = connection.execute(_adoptable, {"me": owner, "stopped": stopped}).all()
    if not rows:
        return []
    connection.execute(_adopt, {"me": owner, "stopped": stopped})
    waiting = blocked(connection, owner, [row.report for row in rows])
    return [
        Due(row.report, row.kind, _key(row), row.number, blocked=row.report in waiting, user=row.user_id)
        for row in rows
    ]


# Two looks at the ends of an index: one for `!=` would go over all that are ours.
_first_and_last = select(
    *(select(end(reports.c.owner)).where(IS_PENDING).scalar_subquery() for end in (func.min, func.max))
)


def _waiting() -> Select[str]:
    mine, my_session, earlier = reports.alias("mine"), sessions.alias("my_session"), reports.alias("earlier")
    same_key = (sessions.c[name] == my_session.c[name] for name in ("instance_id", "kernel_id", "session_id"))
    return (
        select(mine.c.id)
        .join(my_session, my_session.c.id == mine.c.session)
        .join(sessions, and_(*same_key))
        .join(earlier, earlier.c.session == sessions.c.id)
        .where(
            mine.c.id.in_(bindparam("values", expanding=True)),
            earlier.c.owner != _me,
            earlier.c.state == PENDING,
            earlier.c.number < mine.c.number,
        )
        .distinct()
    )


_blocked = _waiting()


def blocked(connection: Connection, owner: str, of: Iterable[str]) -> set[str]:
    """Give those of these pending reports of `owner` that wait for another's earlier one of the same key."""
    if all(one in (None, owner) for one in connection.execute(_first_and_last).one()):
        return set()
    return {row.id for row in lists.rows(connection, _blocked, of, me=owner)}


def _key(session: Any) -> NotebookKey:
    return NotebookKey(session.instance_id, session.kernel_id, session.session_id)
