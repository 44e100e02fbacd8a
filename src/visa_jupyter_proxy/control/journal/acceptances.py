"""How often nodes have seen the VISA API accept a token of a user for an instance; never the token."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from visa_jupyter_proxy.control.journal import lists
from visa_jupyter_proxy.control.journal.schema import acceptances

type Key = tuple[str, int]

_key = (acceptances.c.user_id, acceptances.c.instance_id)
_there = lists.Among(select(*_key, acceptances.c.writer, acceptances.c.accepted), _key)
_again = (
    update(acceptances)
    .where(acceptances.c.user_id == bindparam("user"), acceptances.c.instance_id == bindparam("instance"))
    .values(
        accepted=acceptances.c.accepted + 1, writer=bindparam("to_writer"), accepted_at=bindparam("to_at")
    )
)
_forget = delete(acceptances).where(acceptances.c.accepted_at < bindparam("before"))


def record(
    connection: Connection,
    *,
    writer: str,
    keys: Sequence[Key],
    at: float,
    forget_before: float | None = None,
) -> None:
    """Count an acceptance for each key. `writer` names the process, among those that run.

    What nobody has counted on since `forget_before` is deleted.
    """
    there = {(row.user_id, row.instance_id) for row in _there.rows(connection, keys)}
    again = [
        {"user": user, "instance": instance, "to_writer": writer, "to_at": at}
        for user, instance in keys
        if (user, instance) in there
    ]
    new = [
        {"user_id": user, "instance_id": instance, "accepted": 1, "writer": writer, "accepted_at": at}
        for user, instance in keys
        if (user, instance) not in there
    ]
    for statement, rows in ((_again, again), (insert(acceptances), new)):
        if rows:
            connection.execute(statement, rows)
    if forget_before is not None:
        connection.execute(_forget, {"before": forget_before})


def counts(connection: Connection, *, writer: str, keys: Iterable[Key]) -> dict[Key, int]:
    """Say how often each was accepted, leaving out those that `writer` has counted last."""
    return {
        (row.user_id, row.instance_id): row.accepted
        for row in _there.rows(connection, {*keys})
        if row.writer != writer
    }


_forget_user = delete(acceptances).where(acceptances.c.user_id == bindparam("user"))


def forget_user(connection: Connection, user: str) -> None:
    """Delete what is kept of a user; who is at work is counted anew."""
    connection.execute(_forget_user, {"user": user})
