"""The sessions that visa-jupyter-proxy 3.5 has left open, entered as closed, to be told to VISA.

They enter as what a control process has left that has stopped: its reports are adopted and delivered like
any other's, in the order of their keys, and so before a session that opens with the same key later.
"""

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, bindparam, insert, or_, select

from visa_jupyter_proxy.control.journal import lists
from visa_jupyter_proxy.control.journal.records import ReportState, new_id
from visa_jupyter_proxy.control.journal.schema import owners, reports, sessions
from visa_jupyter_proxy.mailbox import NotebookKey

REASON: Final = "left by 3.5"

_key = (sessions.c.instance_id, sessions.c.kernel_id, sessions.c.session_id)
_is_newer = or_(sessions.c.closed_at.is_(None), sessions.c.closed_at >= bindparam("at"))
_newer = lists.Among(select(*_key).where(_is_newer), _key)


def inherit(
    connection: Connection,
    owner: str,
    keys: Collection[NotebookKey],
    *,
    node: str,
    at: float,
    now: float,
) -> int | None:
    """Enter these sessions; None when `owner` has done so before. Gives how many are to be closed.

    Those that live here, or that were closed here later than `at`, are left alone: whoever carried them
    has told VISA, or will. `at` is when it was last known that they were open, `now` is the time.
    """
    if connection.scalar(select(owners.c.id).where(owners.c.id == owner)) is not None:
        return None
    wanted = [(key.instance_id, key.kernel_id, key.session_id) for key in keys]
    known = {NotebookKey(*row) for row in _newer.rows(connection, wanted, at=at)}
    closed = {new_id(): key for key in keys if key not in known}
    row = {"pid": 0, "beats": 0, "beat_at": at, "started_at": at, "stopped_at": now}
    connection.execute(insert(owners).values(id=owner, node=node, **row))
    if closed:
        connection.execute(insert(sessions), [_session(*one, at) for one in closed.items()])
        connection.execute(insert(reports), [_report(session, owner, now) for session in closed])
    return len(closed)


def _session(session: str, key: NotebookKey, at: float) -> dict[str, object]:
    # Neither whose it was nor when it began is known.
    return {
        "id": session,
        "instance_id": key.instance_id,
        "kernel_id": key.kernel_id,
        "session_id": key.session_id,
        "user_id": "",
        "opened_at": at,
        "closed_at": at,
        "connections": 0,
        "reason": REASON,
    }


def _report(session: str, owner: str, now: float) -> dict[str, object]:
    return {
        "id": new_id(),
        "session": session,
        "owner": owner,
        "kind": "close",
        "state": ReportState.PENDING.value,
        "attempts": 0,
        "created_at": now,
    }
