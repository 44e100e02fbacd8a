"""Questions about what goes on at the moment: which connections carry open sessions, and who is alive."""

from typing import Any

from sqlalchemy import Connection, bindparam, distinct, func, select

from visa_jupyter_proxy.control.journal.schema import COUNTS, connections, owners, sessions

_alive = select(owners.c.id, owners.c.node).where(owners.c.stopped_at.is_(None))
_running = (
    select(
        sessions,
        connections.c.id.label("connection"),
        connections.c.owner,
        connections.c.worker,
        connections.c.tunnel,
        connections.c.left_at,
        owners.c.node,
        *(connections.c[name].label(f"its_{name}") for name in COUNTS),
    )
    .join(connections, connections.c.session == sessions.c.id)
    .join(owners, owners.c.id == connections.c.owner)
    .where(sessions.c.closed_at.is_(None), connections.c.ended_at.is_(None))
    .order_by(sessions.c.opened_at.desc(), sessions.c.id, connections.c.opened_at)
)
_sessions_of = (
    select(func.count(distinct(sessions.c.id)))
    .join(connections, connections.c.session == sessions.c.id)
    .where(
        sessions.c.user_id == bindparam("user"),
        sessions.c.closed_at.is_(None),
        connections.c.ended_at.is_(None),
        connections.c.left_at.is_(None),
        connections.c.owner.in_(bindparam("owners", expanding=True)),
    )
)


def running(connection: Connection, session: str | None = None, most: int = 10_000) -> list[Any]:
    """Give the connections of all open sessions, or of one, session by session; the newest first."""
    query = _running.limit(most)
    return [*connection.execute(query if session is None else query.where(sessions.c.id == session))]


def sessions_of(connection: Connection, user: str, of: list[str]) -> int:
    """Count the open sessions of a user that have a connection with one of these owners."""
    return connection.execute(_sessions_of, {"user": user, "owners": of}).scalar_one()


def alive(connection: Connection) -> dict[str, str]:
    """Give the owners that have not stopped, and the node of each."""
    return {row.id: row.node for row in connection.execute(_alive)}
