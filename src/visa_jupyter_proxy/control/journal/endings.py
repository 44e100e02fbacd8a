"""Orders to end connections, from one node to another: written by who is asked, found by who has them.

And what has to be known to give them: which connections carry a session, and who is alive.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import BindParameter, Connection, bindparam, delete, distinct, func, insert, or_, select

from visa_jupyter_proxy.control.journal.records import new_id
from visa_jupyter_proxy.control.journal.schema import connections, endings, owners, sessions

KEPT_S: Final = 3600.0
"""An order that nobody has found for so long is for an owner that is dead."""


class Ending(NamedTuple):
    """One order: a tunnel of a worker, or all tunnels of a user."""

    worker: int | None
    tunnel: int | None
    user: str | None
    asked_by: str


_owner: BindParameter[Any] = bindparam("owner")
_mine = select(endings).where(endings.c.owner == _owner).order_by(endings.c.asked_at)
_obeyed = delete(endings).where(or_(endings.c.owner == _owner, endings.c.asked_at < bindparam("before")))
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
        *(connections.c[name].label(f"its_{name}") for name in ("bytes_up", "bytes_down")),
        *(connections.c[name].label(f"its_{name}") for name in ("messages_up", "messages_down")),
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


def order(connection: Connection, given: Iterable[tuple[str, Ending]], at: float) -> None:
    """Write orders, each for an owner."""
    rows = [
        {
            "id": new_id(),
            "owner": owner,
            "worker": ending.worker,
            "tunnel": ending.tunnel,
            "user_id": ending.user,
            "asked_by": ending.asked_by,
            "asked_at": at,
        }
        for owner, ending in given
    ]
    if rows:
        connection.execute(insert(endings), rows)


def take(connection: Connection, owner: str, at: float) -> list[Ending]:
    """Take out the orders for an owner, the oldest first; it obeys them at once."""
    found = [
        Ending(row.worker, row.tunnel, row.user_id, row.asked_by)
        for row in connection.execute(_mine, {"owner": owner})
    ]
    if found:
        connection.execute(_obeyed, {"owner": owner, "before": at - KEPT_S})
    return found
