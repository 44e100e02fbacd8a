"""Orders to end connections, from one node to another: written by who is asked, found by who has them."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, or_, select

from visa_jupyter_proxy.control.journal.records import new_id
from visa_jupyter_proxy.control.journal.schema import endings

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
