"""When a session was over: when the last of its connections was, whichever was written last."""

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, func, select, update

from visa_jupyter_proxy.control.journal import lists
from visa_jupyter_proxy.control.journal.schema import connections, sessions

_correct = (
    update(sessions)
    .where(sessions.c.id.in_(bindparam("values", expanding=True)))
    .values(
        closed_at=select(func.max(connections.c.ended_at))
        .where(connections.c.session == sessions.c.id)
        .scalar_subquery()
    )
)


def correct(connection: Connection, closed: Iterable[str]) -> None:
    """Give these sessions, which have just been closed, their true end; all their connections have ended."""
    for some in lists.parts(closed):
        connection.execute(_correct, {"values": some})
