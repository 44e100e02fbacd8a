"""What is taken out of the journal again: sessions that are old enough, and what identifies a user.

Safe beside proxies that write: only sessions that are closed, and all of whose reports are settled, are
touched. Nobody speaks of those any more. It happens in steps, each a transaction of its own and short,
so that a proxy never waits long for its turn.
"""

from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    bindparam,
    delete,
    exists,
    func,
    select,
    update,
)

from visa_jupyter_proxy.control.journal import acceptances
from visa_jupyter_proxy.control.journal.schema import IS_PENDING, connections, reports, sessions
from visa_jupyter_proxy.control.journal.store import Journal

_STEP: Final = 500
"""Sessions in one transaction: some ten milliseconds."""

_MOST_CONNECTIONS: Final = 4000
"""Of them in one transaction: a session that browsers came back to for weeks has tens of thousands."""

NOBODY: Final = 0
"""The instance of an anonymised session; VISA's ids begin with 1."""

_values: BindParameter[Any] = bindparam("values", expanding=True)


def _is_settled() -> tuple[ColumnElement[bool], ...]:
    pending = (reports.c.session == sessions.c.id, IS_PENDING)
    return (sessions.c.closed_at.is_not(None), ~exists().where(*pending))


_old = (
    select(sessions.c.id)
    # The second says nothing new, but is what an index understands.
    .where(sessions.c.closed_at < bindparam("before"), sessions.c.opened_at < bindparam("before"))
    .where(*_is_settled())
    .order_by(sessions.c.opened_at)
    .limit(_STEP)
)
# What refers to a session goes before it.
_some_connections = (
    select(connections.c.id).where(connections.c.session.in_(_values)).limit(bindparam("most"))
)
_delete_connections = delete(connections).where(connections.c.id.in_(_values))
_deletions = (
    delete(reports).where(reports.c.session.in_(_values)),
    delete(sessions).where(sessions.c.id.in_(_values)),
)


async def prune(journal: Journal, before: float) -> AsyncGenerator[int]:
    """Delete the sessions that were closed before that time; give how many, step by step, which may be 0.

    Raises `JournalUnavailable`; the steps before that stay done.
    """
    while (gone := await journal.transact(partial(_prune, before=before))) is not None:
        yield gone


def _prune(connection: Connection, before: float) -> int | None:
    """Delete some, or first some of their connections; say how many sessions have gone, None without any."""
    old = connection.scalars(_old, {"before": before}).all()
    if not old:
        return None
    # In two statements: PostgreSQL would rather read all connections than as many as an unknown limit allows.
    some = connection.scalars(_some_connections, {"values": old, "most": _MOST_CONNECTIONS}).all()
    connection.execute(_delete_connections, {"values": some})
    if len(some) == _MOST_CONNECTIONS:
        return 0  # there may be more
    for deletion in _deletions:
        connection.execute(deletion, {"values": old})
    return len(old)


_theirs = select(sessions.c.id).where(sessions.c.user_id == bindparam("user"), *_is_settled()).limit(_STEP)
_left = select(func.count()).where(sessions.c.user_id == bindparam("user"))


async def anonymise(journal: Journal, user: str, progress: Callable[[int], None]) -> tuple[int, int]:
    """Take out of a user's sessions what identifies them; say of how many, and how many there still are.

    That is the user, the instance, and the ids of kernel and session, which VISA's own records know. Times
    and figures stay. All sessions of the user get one new name, made at random, so that users can still be
    counted. What nodes tell each other of tokens that were accepted is of use to nobody later: it goes.
    `progress` is told of how many more, step by step. Raises `JournalUnavailable`.
    """
    await journal.transact(partial(acceptances.forget_user, user=user))
    name, done = f"anonymous-{uuid4().hex[:12]}", 0
    while some := await journal.transact(partial(_anonymise, user=user, name=name)):
        done += some
        progress(some)
    return done, await journal.read(lambda connection: connection.scalar(_left, {"user": user}) or 0)


def _anonymise(connection: Connection, user: str, name: str) -> int:
    some = connection.scalars(_theirs, {"user": user}).all()
    if some:
        connection.execute(_forget, [_nobody(session, name) for session in some])
    return len(some)


_forget = (
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values({f"{name}_id": bindparam(f"to_{name}") for name in ("user", "instance", "kernel", "session")})
)


def _nobody(session: str, name: str) -> dict[str, object]:
    ids = {"to_kernel": uuid4().hex, "to_session": uuid4().hex}
    return {"session": session, "to_user": name, "to_instance": NOBODY, **ids}
