"""The statements that write records: what the journal holds is read, then all changes are written at once.

One statement for each kind of row, with many rows: one for each record would cost ten times as much.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Update,
    bindparam,
    case,
    func,
    insert,
    select,
    update,
)

from visa_jupyter_proxy.control.journal import ends, lists, takeover
from visa_jupyter_proxy.control.journal.changes import PROGRESS, Changes, Held
from visa_jupyter_proxy.control.journal.figures import SUMS
from visa_jupyter_proxy.control.journal.records import Due, Ended, Opened, Record, ReportState, Settled
from visa_jupyter_proxy.control.journal.schema import FIGURES, IS_PENDING, connections, reports, sessions
from visa_jupyter_proxy.mailbox import NotebookKey

# Statements are made once: making one costs more than executing it.
_values: BindParameter[Any] = bindparam("values", expanding=True)

_held = select(*(connections.c[name] for name in ("id", "session", "ended_at", *FIGURES))).where(
    connections.c.id.in_(_values)
)
_sums = select(*(sessions.c[name] for name in ("id", *SUMS))).where(sessions.c.id.in_(_values))
_key = (sessions.c.instance_id, sessions.c.kernel_id, sessions.c.session_id)
_open = lists.Among(select(sessions.c.id, *_key).where(sessions.c.closed_at.is_(None)), _key)
_carriers = (
    select(connections.c.session, func.count().label("carriers"))
    .where(connections.c.session.in_(_values), connections.c.ended_at.is_(None))
    .group_by(connections.c.session)
)
_untold = (
    select(reports.c.session)
    .where(reports.c.session.in_(_values), reports.c.kind == "open")
    .group_by(reports.c.session)
    .having(func.count(case((reports.c.state != ReportState.NOT_DELIVERED.value, 1))) == 0)
)
_pending = select(reports.c.id).where(reports.c.id.in_(_values), IS_PENDING)
_numbers = select(reports.c.id, reports.c.number).where(reports.c.id.in_(_values))

_new_sessions, _new_connections, _new_reports = insert(sessions), insert(connections), insert(reports)
_close = (
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values(closed_at=bindparam("to_closed_at"), reason=bindparam("to_reason"))
)


def _update(*names: str) -> Update:
    """Set columns of a connection; None leaves one as far as it was known."""
    return (
        update(connections)
        .where(connections.c.id == bindparam("connection"))
        .values(
            {
                name: func.coalesce(
                    bindparam(f"to_{name}", type_=connections.c[name].type), connections.c[name]
                )
                for name in names
            }
        )
    )


_sum_up = (
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values({name: bindparam(f"to_{name}") for name in SUMS})
)
_progress = _update(*PROGRESS)
_end = _update(*PROGRESS, "ended_at")
# Only once: a report that another owner has settled meanwhile stays as that found it.
_settle = (
    update(reports)
    .where(reports.c.id == bindparam("report"), IS_PENDING)
    .values({name: bindparam(f"to_{name}") for name in ("state", "attempts", "settled_at")})
)


def write(connection: Connection, owner: str, records: Sequence[Record]) -> list[Due | None]:
    """Write all; give for each the report that it has made due, unless that was released already."""
    changes = Changes(owner, _load(connection, records))
    due = [changes.add(record) for record in records]
    _store(connection, changes)
    numbered = lists.rows(connection, _numbers, [report for report in due if report is not None])
    numbers = {row.id: row.number for row in numbered}
    waiting = takeover.blocked(connection, owner, numbers) if numbers else set()
    return [
        None
        if report is None or not isinstance(record, Opened | Ended)
        else Due(
            report,
            "open" if isinstance(record, Opened) else "close",
            record.key,
            numbers[report],
            blocked=report in waiting,
        )
        for record, report in zip(records, due, strict=True)
    ]


def _load(connection: Connection, records: Sequence[Record]) -> Held:
    held = Held()
    named = {record.connection for record in records if not isinstance(record, Settled)}
    for row in lists.rows(connection, _held, named):
        held.sessions[row.id] = row.session
        held.figures[row.id] = {name: getattr(row, name) for name in FIGURES}
        if row.ended_at is not None:
            held.over.add(row.id)
    new = [r for r in records if isinstance(r, Opened) and r.connection not in held.sessions]
    keys = {(r.key.instance_id, r.key.kernel_id, r.key.session_id) for r in new}
    for row in _open.rows(connection, keys):
        held.open[NotebookKey(row.instance_id, row.kernel_id, row.session_id)] = row.id
    held.untold = {row.session for row in lists.rows(connection, _untold, held.open.values())}
    carried = {*held.sessions.values(), *held.open.values()}
    held.carriers = {row.session: row.carriers for row in lists.rows(connection, _carriers, carried)}
    held.sums = {row.id: row._asdict() for row in lists.rows(connection, _sums, carried)}
    again = [r.report for r in records if isinstance(r, Opened | Ended) and r.report and _is_written(r, held)]
    held.pending = {row.id for row in lists.rows(connection, _pending, again)}
    return held


def _is_written(record: Opened | Ended, held: Held) -> bool:
    return record.connection in (held.sessions if isinstance(record, Opened) else held.over)


def _store(connection: Connection, changes: Changes) -> None:
    for statement, rows in (
        (_close, changes.closed),
        (_new_sessions, [*changes.sessions.values()]),
        (_new_connections, [*changes.connections.values()]),
        (_progress, changes.progressed),
        (_end, changes.ended),
        (_new_reports, changes.reports),
        (_settle, changes.settled),
        (_sum_up, changes.summed),
    ):
        if rows:
            connection.execute(statement, rows)
    ends.correct(connection, changes.over)
