"""What can still be read of a damaged database, carried over to the one that is begun in its place.

A table is read from its beginning to the first fault, then from its end to the last one; what refers to a
row that is lost is lost with it. Processes that live declare anew what they carry (`Sqlite.is_another`);
sessions whose connections are lost, and that nobody declares, end as those of a process that has stopped.
"""

import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from itertools import batched
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, exists, insert, literal, select
from sqlalchemy.exc import OperationalError, StatementError

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal.records import new_id
from visa_jupyter_proxy.control.journal.schema import connections, metadata, owners, sessions

_STEP: Final = 1000

_log = logs.get()


def carry_over(connection: Connection, damaged: Path) -> None:
    """Write what can be read of `damaged` to the new database, in the caller's transaction. Blocks.

    The damaged files are left as they are. Raises what writing raises, and nothing of what reading does.
    """
    carried = dict.fromkeys((table.name for table in metadata.sorted_tables), 0)
    with suppress(sqlite3.Error), closing(_opened(damaged)) as source:
        for table in metadata.sorted_tables:
            carried[table.name] = _carry_table_over(connection, source, table)
    lost = _leave_to_others(connection)
    _log.warning(
        "what could be read of the damaged journal has been carried over",
        owners=carried["owners"],
        sessions=carried["sessions"],
        connections=carried["connections"],
        reports=carried["reports"],
        ending=lost,
    )


def _opened(damaged: Path) -> sqlite3.Connection:
    # Without a log beside it, it is all there is, and nothing needs to be made beside it.
    how = "mode=ro" if damaged.with_name(f"{damaged.name}-wal").exists() else "immutable=1"
    source = sqlite3.connect(f"{damaged.absolute().as_uri()}?{how}", uri=True)
    # Otherwise nothing at all is read of a file that is shorter than it should be: sqlite.org/recovery.html.
    source.execute("PRAGMA writable_schema=ON")
    source.text_factory = lambda text: text.decode("utf-8", "replace")
    return source


def _carry_table_over(connection: Connection, source: sqlite3.Connection, table: Table) -> int:
    there = {row[1] for row in source.execute(f"PRAGMA table_info({table.name})")}
    names = [column.name for column in table.columns if column.name in there]
    if not names:
        return 0  # an older program has made it
    statement = _statement(table, names)
    count = 0
    for rows in batched(_readable(source, table.name, names), _STEP):
        count += _write(connection, statement, [dict(zip(names, row, strict=True)) for row in rows])
    return count


def _write(connection: Connection, statement: Any, rows: list[dict[str, Any]]) -> int:
    """Write rows, except those that are nonsense, as what is read of a damaged page may be."""
    try:
        with connection.begin_nested():
            return connection.execute(statement, rows).rowcount
    except OperationalError:  # the disk is full, say: all is to be tried again
        raise
    except StatementError as error:
        if len(rows) > 1:
            return sum(_write(connection, statement, [row]) for row in rows)
        _log.warning("a row of the damaged journal is left out", cause=type(error).__name__)
        return 0


def _statement(table: Table, names: Sequence[str]) -> Any:
    """Insert a row if all that it refers to is there, and nothing that contradicts it."""
    values = select(*(bindparam(name, type_=table.c[name].type) for name in names))
    for name in names:
        for key in table.c[name].foreign_keys:
            theirs = key.column
            values = values.where(exists(select(literal(1)).where(theirs == bindparam(name))))
    return insert(table).prefix_with("OR IGNORE").from_select(list(names), values)


def _readable(source: sqlite3.Connection, table: str, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    # By the row's number, not by an index: that may be what is damaged.
    query = f"SELECT rowid, {', '.join(names)} FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid"  # noqa: S608 -- names of ours
    last = -1
    for order in ("", " DESC"):
        with suppress(sqlite3.Error):
            for number, *row in source.execute(query + order, [last]):
                if not order:
                    last = number
                yield tuple(row)
            return


def _leave_to_others(connection: Connection) -> int:
    """Have the open sessions that no connection carries any more end, unless somebody declares one."""
    is_carried = exists().where(connections.c.session == sessions.c.id, connections.c.ended_at.is_(None))
    lost = connection.execute(
        select(sessions.c.id, sessions.c.opened_at).where(sessions.c.closed_at.is_(None), ~is_carried)
    ).all()
    if lost:
        now, owner = time.time(), new_id()
        row = {
            "node": socket.gethostname(),
            "pid": os.getpid(),
            "beats": 0,
            "beat_at": now,
            "started_at": now,
        }
        connection.execute(insert(owners), {"id": owner, "stopped_at": now, **row})
        connection.execute(insert(connections), [_placeholder(owner, *session) for session in lost])
    return len(lost)


def _placeholder(owner: str, session: str, opened_at: float) -> dict[str, Any]:
    row = {"id": new_id(), "session": session, "owner": owner, "opened_at": opened_at}
    return {"worker": 0, "tunnel": 0, **row}
