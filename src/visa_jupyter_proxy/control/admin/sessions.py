"""The notebook sessions that are open at the moment, on all nodes, as the journal has them.

The journal is a minute behind with what passes through a connection. Of those that are on this node it is
known better: what the workers have told since is added. Who asks again and again is as far behind as the last
question.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from visa_jupyter_proxy.control.admin.turns import Turns
from visa_jupyter_proxy.control.journal import under_way
from visa_jupyter_proxy.control.notebooks import Notebooks
from visa_jupyter_proxy.control.supervisor import Supervisor
from visa_jupyter_proxy.mailbox import Traffic


class Session(msgspec.Struct, kw_only=True, rename="camel"):
    """One open session. Times are Unix time; what is None is not known."""

    id: str
    user: str
    instance: int
    kernel: str
    session: str
    since: float
    last_interaction: float | None
    messages_up: int
    """From the browser; data messages, as far as the stream was WebSocket."""
    messages_down: int
    bytes_up: int
    bytes_down: int
    connections: int
    """Open at the moment; 0 while its browser may come back."""
    nodes: list[str]
    """Where they are."""


class Instance(msgspec.Struct, kw_only=True, rename="camel"):
    """One instance with open sessions."""

    id: int
    users: list[str]
    sessions: int
    connections: int
    last_interaction: float | None
    bytes_up: int
    bytes_down: int


class OpenSessions:
    """Reads the journal for the admin listener."""

    def __init__(self, journal: Turns, notebooks: Notebooks, supervisor: Supervisor) -> None:
        self._journal = journal
        self._supervisor = supervisor
        self._notebooks = notebooks

    async def all(self) -> list[Session]:
        """Give all, the newest first. Raises `JournalUnavailable`.

        The workers are asked, too; what they say is there for the next question.
        """
        self._supervisor.look()
        sessions: dict[str, Session] = {}
        for row in await self._journal.read(under_way.running):
            session = sessions.get(row.id)
            if session is None:
                session = sessions[row.id] = _session(row)
            self._add(session, row)
        return [*sessions.values()]

    def _add(self, session: Session, row: Any) -> None:
        """Add a connection, and what is known here of it that the journal does not know yet."""
        if row.left_at is None:
            session.connections += 1
        if row.node not in session.nodes:
            session.nodes.append(row.node)
        known = self._traffic(row)
        if known is None:
            return
        session.bytes_up += known.bytes_up - (row.its_bytes_up or 0)
        session.bytes_down += known.bytes_down - (row.its_bytes_down or 0)
        session.messages_up += known.messages_up - (row.its_messages_up or 0)
        session.messages_down += known.messages_down - (row.its_messages_down or 0)
        session.last_interaction = _later(session.last_interaction, known.last_interaction_at)

    def _traffic(self, row: Any) -> Traffic | None:
        is_ours = row.owner == self._notebooks.owner and row.left_at is None
        return self._notebooks.traffic(row.worker, row.tunnel) if is_ours else None


def instances(sessions: Iterable[Session]) -> list[Instance]:
    """Group sessions by instance, in the order of their ids."""
    found: dict[int, Instance] = {}
    for session in sessions:
        one = found.setdefault(
            session.instance,
            Instance(
                id=session.instance,
                users=[],
                sessions=0,
                connections=0,
                last_interaction=None,
                bytes_up=0,
                bytes_down=0,
            ),
        )
        if session.user not in one.users:
            one.users.append(session.user)
        one.sessions += 1
        one.connections += session.connections
        one.bytes_up += session.bytes_up
        one.bytes_down += session.bytes_down
        one.last_interaction = _later(one.last_interaction, session.last_interaction)
    return [found[number] for number in sorted(found)]


def _session(row: Any) -> Session:
    return Session(
        id=row.id,
        user=row.user_id,
        instance=row.instance_id,
        kernel=row.kernel_id,
        session=row.session_id,
        since=row.opened_at,
        last_interaction=row.last_interaction_at,
        messages_up=row.messages_up or 0,
        messages_down=row.messages_down or 0,
        bytes_up=row.bytes_up or 0,
        bytes_down=row.bytes_down or 0,
        connections=0,
        nodes=[],
    )


def _later(one: float | None, other: float | None) -> float | None:
    times = [time for time in (one, other) if time is not None]
    return max(times, default=None)
