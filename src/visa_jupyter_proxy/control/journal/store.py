"""`Journal`: what can be asked of the store, each a transaction of its own."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from sqlalchemy import BindParameter, Connection, bindparam, insert, select, update

from visa_jupyter_proxy.control.journal import endings, takeover, writing
from visa_jupyter_proxy.control.journal.endings import Ending
from visa_jupyter_proxy.control.journal.errors import OwnerGone
from visa_jupyter_proxy.control.journal.records import Due, Record
from visa_jupyter_proxy.control.journal.schema import owners
from visa_jupyter_proxy.control.journal.sqlite import Sqlite


class Database(Protocol):
    """An engine: how transactions are begun there, and what its errors mean.

    Both raise `JournalUnavailable`, after which the next call opens the database anew.
    """

    is_another: bool
    """Whether it is another one than before; whoever has looked sets it to False."""

    @property
    def name(self) -> str:
        """Where it is, without a password."""

    @property
    def is_shared(self) -> bool:
        """Whether other nodes write there as well."""

    async def transact[T](self, work: Callable[[Connection], T]) -> T:
        """Do work that writes, alone; raises `RecordRefused`, too."""

    async def read[T](self, work: Callable[[Connection], T]) -> T:
        """Do work that reads, without holding anybody up."""

    async def look(self) -> None:
        """See that it can be used, and change nothing; raises `SchemaIncomplete`, too."""

    async def close(self) -> None:
        """Close what is open."""


class Journal:
    """The store of owners, sessions, connections and reports.

    Every call is one transaction and raises `JournalUnavailable` when that fails; the next call opens
    the store anew. `RecordRefused` would be a defect of ours. One call at a time: whoever owns the
    journal calls it from one task.
    """

    def __init__(
        self, directory: str | os.PathLike[str], url: str | None = None, *, is_guest: bool = False
    ) -> None:
        """Nothing is opened yet: PostgreSQL at `url`, or SQLite in `directory`, which is made when missing.

        A guest is no proxy, and leaves it to one to set a damaged file aside. Raises `StorageRefused`.
        """
        self._database: Database = Sqlite(directory, is_guest=is_guest) if url is None else _postgres(url)

    @property
    def name(self) -> str:
        """Where the journal is, for the log."""
        return self._database.name

    @property
    def is_shared(self) -> bool:
        """Whether other nodes may carry the same sessions, and only the journal knows."""
        return self._database.is_shared

    async def transact[T](self, work: Callable[[Connection], T]) -> T:
        """Do work that writes with statements of its own, as the only writer; committed when it returns.

        Work is plain code that executes its statements one after the other: with SQLite in a thread, with
        PostgreSQL on the loop. So it touches nothing that others use meanwhile.
        """
        return await self._database.transact(work)

    async def read[T](self, work: Callable[[Connection], T]) -> T:
        """Do work that reads, likewise; it sees one state of everything, and holds nobody up.

        Makes no journal: where there is none, or one that lacks something, it raises `JournalUnavailable`.
        """
        return await self._database.read(work)

    async def look(self) -> None:
        """See that there is a journal which can be used, and change nothing.

        Raises `JournalUnavailable`; as `SchemaIncomplete` where the next start makes what is missing.
        """
        await self._database.look()

    async def close(self) -> None:
        """Close the database. A later call opens it again."""
        await self._database.close()

    # --- owners ---------------------------------------------------------------------------

    async def register(self, owner: str, node: str, pid: int, at: float) -> None:
        """Add an owner, unless it is there already."""
        row = {"id": owner, "node": node, "pid": pid, "beats": 0, "beat_at": at, "started_at": at}

        def work(connection: Connection) -> None:
            self._database.is_another = False
            if connection.scalar(select(owners.c.id).where(owners.c.id == owner)) is None:
                connection.execute(insert(owners), row)

        await self.transact(work)

    async def beat(self, owner: str, at: float) -> dict[str, int]:
        """Count `owner`'s heartbeat on; give those of all others that have not stopped.

        Raises `OwnerGone`.
        """

        def work(connection: Connection) -> dict[str, int]:
            self._check(connection, owner)
            connection.execute(_beat, {"owner": owner, "at": at})
            return {row.id: row.beats for row in connection.execute(_others, {"owner": owner})}

        return await self.transact(work)

    async def bury(self, dead: str, beats: int, by: str, at: float) -> int | None:
        """End a dead owner and its connections; None when it was not dead, or buried by another.

        `beats` is the heartbeat that has stood still: an owner that has beaten since is left alone.
        Sessions that nobody else carries are closed; `adopt` gives what is to be reported of them.
        `by` is who says so, and must be alive itself. Returns how many connections were ended.
        """

        def work(connection: Connection) -> int | None:
            self._check(connection, by)
            return takeover.bury(connection, dead, beats, at)

        return await self.transact(work)

    async def left(self, owner: str) -> set[str]:
        """Give the owners that have stopped and whose connections still carry sessions.

        Their browsers have a while to come back to another process. Then `clear` them.
        """
        return await self.transact(lambda connection: takeover.left(connection, owner))

    async def clear(self, stopped: str, by: str, at: float) -> int:
        """End the connections of an owner that has stopped, as `bury` does; say how many there were."""

        def work(connection: Connection) -> int:
            self._check(connection, by)
            return takeover.clear(connection, stopped, at)

        return await self.transact(work)

    async def adopt(self, owner: str) -> list[Due]:
        """Take over the pending reports of all owners that have stopped, in their order.

        Not an open that another living owner can deliver better, for that carries the session.
        """

        def work(connection: Connection) -> list[Due]:
            self._check(connection, owner)
            return takeover.adopt(connection, owner)

        return await self.transact(work)

    async def endings(self, owner: str, at: float) -> list[Ending]:
        """Take out what somebody has ordered `owner` to end."""
        return await self.transact(lambda connection: endings.take(connection, owner, at))

    async def stop(self, owner: str, at: float) -> None:
        """Record that an owner has stopped; what it left pending is for others to adopt."""

        def work(connection: Connection) -> None:
            connection.execute(_stop, {"owner": owner, "at": at})

        await self.transact(work)

    # --- records --------------------------------------------------------------------------

    async def write(self, owner: str, records: Sequence[Record]) -> list[Due | None]:
        """Write all of `records`, or nothing; say for each which report it has made due, if any.

        Writing again what was written before changes nothing, and is answered as then, except for reports
        that have been settled since. Raises `OwnerGone`.
        """

        def work(connection: Connection) -> list[Due | None]:
            self._check(connection, owner)
            return writing.write(connection, owner, records)

        return await self.transact(work)

    async def blocked(self, owner: str, reports: Iterable[str]) -> set[str]:
        """Of these reports of `owner`, those that still wait for an earlier one of another owner."""
        return await self.transact(lambda connection: takeover.blocked(connection, owner, reports))

    def _check(self, connection: Connection, owner: str) -> None:
        row = connection.execute(_stopped_at, {"owner": owner}).one_or_none()
        if row is None or row.stopped_at is not None:
            raise OwnerGone(declared_dead=row is not None)
        if self._database.is_another:
            # The owner was carried over from a damaged journal, but perhaps not all that it carries.
            raise OwnerGone(declared_dead=False)


def _postgres(url: str) -> Database:
    # Not at the top: whoever uses SQLite needs no driver for PostgreSQL in memory.
    from visa_jupyter_proxy.control.journal.postgres import Postgres  # noqa: PLC0415

    return Postgres(url)


# Statements are made once: making one costs more than executing it.
_owner: BindParameter[Any] = bindparam("owner")
_stopped_at = select(owners.c.stopped_at).where(owners.c.id == _owner)
_others = select(owners.c.id, owners.c.beats).where(owners.c.id != _owner, owners.c.stopped_at.is_(None))
_beat = update(owners).where(owners.c.id == _owner).values(beats=owners.c.beats + 1, beat_at=bindparam("at"))
_stop = (
    update(owners)
    .where(owners.c.id == _owner, owners.c.stopped_at.is_(None))
    .values(stopped_at=bindparam("at"))
)
