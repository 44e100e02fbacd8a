"""What a session's connections come to, taken together."""

from collections.abc import Iterable

from sqlalchemy import BigInteger, Connection, bindparam, case, cast, func, select, update

from visa_jupyter_proxy.control.journal import lists
from visa_jupyter_proxy.control.journal.schema import COUNTS, connections, sessions

_sums = (
    select(
        connections.c.session,
        func.count().label("connections"),
        # PostgreSQL's sum of whole numbers is a decimal one.
        *(cast(func.sum(connections.c[name]), BigInteger).label(name) for name in COUNTS),
        func.min(connections.c.first_interaction_at).label("first_interaction_at"),
        func.max(connections.c.last_interaction_at).label("last_interaction_at"),
        func.max(connections.c.ended_at).label("ended_at"),
    )
    .where(connections.c.session.in_(bindparam("values", expanding=True)))
    .group_by(connections.c.session)
    .subquery("sums")
)
_sum_up = (
    update(sessions)
    .where(sessions.c.id == _sums.c.session)
    .values(
        {column.name: column for column in _sums.c if column.name not in ("session", "ended_at")}
        # When the connection was over that was so last, whichever was written last.
        | {"closed_at": case((sessions.c.closed_at.is_not(None), _sums.c.ended_at))}
    )
)


def sum_up(connection: Connection, touched: Iterable[str]) -> None:
    """Give these sessions the figures of all their connections; those that are closed, their end."""
    for some in lists.parts(touched):
        connection.execute(_sum_up, {"values": some})
