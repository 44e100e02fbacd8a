"""Ending live connections for an administrator: here at once, on other nodes with their next heartbeat.

What is ended is a connection, not a right: a browser that VISA still lets in may come back. So the grants
are forgotten, too, and VISA is asked again.
"""

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from sqlalchemy import Connection

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.close_codes import POLICY_VIOLATION
from visa_jupyter_proxy.control.admin.turns import Turns
from visa_jupyter_proxy.control.journal import endings, under_way
from visa_jupyter_proxy.control.journal.endings import Ending
from visa_jupyter_proxy.control.notebooks import Notebooks
from visa_jupyter_proxy.control.supervisor import Supervisor
from visa_jupyter_proxy.control.vigil import Vigil
from visa_jupyter_proxy.mailbox import EndTunnels

_NUL: Final = "\0"
"""No id has one, and PostgreSQL takes no question about it."""

REASON: Final = "ended by an administrator"


def end_here(supervisor: Supervisor, ordered: Iterable[Ending]) -> None:
    """Have the workers of this node end what is ordered, and say so in the log.

    A worker looks through all its tunnels for each message, and a session may have thousands: those that are
    ordered one by one are in one message for each worker.
    """
    tunnels: defaultdict[int | None, set[int]] = defaultdict(set)
    for ending in ordered:
        logs.get().notice(
            "connections are ended for an administrator",
            asked_by=ending.asked_by,
            user=ending.user,
            worker=ending.worker,
            tunnel=ending.tunnel,
        )
        if ending.tunnel is None:
            supervisor.end_tunnels(_message(user=ending.user))
        else:
            tunnels[ending.worker].add(ending.tunnel)
    for worker, numbers in tunnels.items():
        supervisor.end_tunnels(_message(notebooks=frozenset(numbers)), worker)


def _message(*, user: str | None = None, notebooks: frozenset[int] | None = None) -> EndTunnels:
    return EndTunnels(
        user=user, notebooks=notebooks, code=POLICY_VIOLATION, reason=REASON, forget_grants=True
    )


class UserEnded(NamedTuple):
    """Whom an order about a user goes to, and what is known to be ended by it: nothing, where both are 0."""

    nodes: list[str]
    instances: int
    """To which the user had WebSockets of any kind on this node."""
    sessions_elsewhere: int
    """With a connection on other nodes, as the journal has it; terminals are not in there."""


class Endings:
    """Orders of administrators."""

    def __init__(self, journal: Turns, notebooks: Notebooks, supervisor: Supervisor, vigil: Vigil) -> None:
        self._journal = journal
        self._notebooks = notebooks
        self._supervisor = supervisor
        self._vigil = vigil

    async def session(self, session: str, asked_by: str) -> list[str] | None:
        """End the connections of an open session; give the nodes that have them, None without such a session.

        Raises `JournalUnavailable`.
        """
        if _NUL in session:
            return None

        def work(connection: Connection) -> list[tuple[str, str, Ending]] | None:
            rows = under_way.running(connection, session)
            found = [
                (row.node, row.owner, Ending(row.worker, row.tunnel, None, asked_by))
                for row in rows
                if row.left_at is None
            ]
            elsewhere = [(owner, ending) for _, owner, ending in found if owner != self._notebooks.owner]
            endings.order(connection, elsewhere, time.time())
            return found if rows else None

        found = await self._journal.transact(work)
        if found is None:
            return None
        ours = [ending for _, owner, ending in found if owner == self._notebooks.owner]
        end_here(self._supervisor, ours)
        return sorted({node for node, _, _ in found})

    async def user(self, user: str, asked_by: str) -> UserEnded:
        """End all connections of a user: here at once, whatever the journal does; say what is known of them.

        Raises `JournalUnavailable` when other nodes could not be told.
        """
        ending = Ending(None, None, user, asked_by)
        instances = self._vigil.instances(user)  # before they are ended
        end_here(self._supervisor, [ending])

        def work(connection: Connection) -> UserEnded:
            alive = under_way.alive(connection)
            others = [(owner, ending) for owner in alive if owner != self._notebooks.owner]
            endings.order(connection, others, time.time())
            elsewhere = under_way.sessions_of(connection, user, [owner for owner, _ in others])
            return UserEnded(sorted({*alive.values()}), instances, elsewhere)

        return await self._journal.transact(work)
