"""`Journal`: the only place that speaks to the database, and where its errors are translated.

SQLite in `STORAGE_DIR`, in WAL mode, every transaction begun with BEGIN IMMEDIATE: a second control
process on the same directory (an upgrade without a gap) waits its turn instead of failing half-way.
synchronous=FULL: a committed record survives a power cut as well as a kill -9. In WAL mode NORMAL would
survive only the kill, and a lost `opened` is a session that stays open at VISA for ever. It costs one
fsync per transaction, and one transaction holds all that has been waiting.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from alembic.util.exc import CommandError
from sqlalchemy import URL, bindparam, event, insert, select, update
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal import damage, writing
from visa_jupyter_proxy.control.journal.migrations import migrate
from visa_jupyter_proxy.control.journal.records import Due, Record
from visa_jupyter_proxy.control.journal.schema import owners

FILE: Final = "journal.sqlite3"

_BUSY_MS: Final = 2000
"""How long SQLite waits for another process; after that the write fails and is tried again."""

_log = logs.get()


class JournalError(Exception):
    """The journal has not done what it was asked; nothing of the transaction has been kept."""


class JournalUnavailable(JournalError):
    """The store cannot be used now. Try again later."""


class RecordRefused(JournalError):
    """One of the records can never be written, whatever the state of the store; none of them was."""


class OwnerGone(JournalError):
    """The journal does not count this owner among the living; nothing was written.

    `declared_dead`: another process has ended its connections and taken its reports over. Otherwise
    the owner is not there at all: it is new, or the database is.
    """

    def __init__(self, *, declared_dead: bool) -> None:
        super().__init__("declared dead" if declared_dead else "not in the journal")
        self.declared_dead = declared_dead


class Journal:
    """The store of owners, sessions, connections and reports in one directory.

    Every call is one transaction and raises `JournalUnavailable` when that fails; the next call opens
    the store anew. `RecordRefused` would be a defect of ours. One call at a time: whoever owns the
    journal calls it from one task.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Nothing is opened yet; `directory` is made when it is not there."""
        self.path = Path(directory) / FILE
        self.name = str(self.path)
        """Where the journal is, for the log."""
        self._engine: AsyncEngine | None = None
        self._identity: tuple[int, int] | None = None

    # --- owners ---------------------------------------------------------------------------

    async def register(self, owner: str, node: str, pid: int, at: float) -> None:
        """Add an owner, unless it is there already."""
        row = {"node": node, "pid": pid, "beats": 0, "beat_at": at, "started_at": at}
        async with self._transaction() as connection:
            if await connection.scalar(select(owners.c.id).where(owners.c.id == owner)) is None:
                await connection.execute(insert(owners).values(id=owner, **row))

    async def beat(self, owner: str, at: float) -> dict[str, int]:
        """Count `owner`'s heartbeat on; give those of all others that have not stopped.

        Raises `OwnerGone`.
        """
        async with self._transaction() as connection:
            await _check(connection, owner)
            await connection.execute(
                update(owners).where(owners.c.id == owner).values(beats=owners.c.beats + 1, beat_at=at)
            )
            others = select(owners.c.id, owners.c.beats).where(
                owners.c.id != owner, owners.c.stopped_at.is_(None)
            )
            return {row.id: row.beats for row in await connection.execute(others)}

    async def bury(self, dead: str, beats: int, by: str, at: float) -> int | None:
        """End a dead owner and its connections; None when it was not dead, or buried by another.

        `beats` is the heartbeat that has stood still: an owner that has beaten since is left alone.
        Sessions that nobody else carries are closed; `adopt` gives what is to be reported of them.
        `by` is who says so, and must be alive itself. Returns how many connections were ended.
        """
        async with self._transaction() as connection:
            await _check(connection, by)
            return await writing.bury(connection, dead, beats, at)

    async def adopt(self, owner: str) -> list[Due]:
        """Take over the pending reports of all owners that have stopped, in their order."""
        async with self._transaction() as connection:
            await _check(connection, owner)
            return await writing.adopt(connection, owner)

    async def stop(self, owner: str, at: float) -> None:
        """Record that an owner has stopped; what it left pending is for others to adopt."""
        async with self._transaction() as connection:
            alive = (owners.c.id == owner, owners.c.stopped_at.is_(None))
            await connection.execute(update(owners).where(*alive).values(stopped_at=at))

    # --- records --------------------------------------------------------------------------

    async def write(self, owner: str, records: Sequence[Record]) -> list[Due | None]:
        """Write all of `records`, or nothing; say for each which report it has made due, if any.

        Writing again what was written before changes nothing. Raises `OwnerGone`.
        """
        async with self._transaction() as connection:
            await _check(connection, owner)
            return await writing.Batch(connection, owner).write(records)

    async def blocked(self, owner: str, reports: Iterable[str]) -> set[str]:
        """Of these reports of `owner`, those that still wait for an earlier one of another owner."""
        async with self._transaction() as connection:
            return {report for report in reports if await writing.blocked(connection, owner, report)}

    # --- the connection -------------------------------------------------------------------

    async def close(self) -> None:
        """Close the database. A later call opens it again."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            try:
                await engine.dispose()
            except (SQLAlchemyError, sqlite3.Error, OSError) as error:
                _log.debug("closing the journal failed", cause=type(error).__name__)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            engine = await self._opened()
            async with engine.begin() as connection:
                yield connection
        except (IntegrityError, DataError, OverflowError, UnicodeError) as error:
            raise RecordRefused(type(error).__name__) from error
        except (SQLAlchemyError, CommandError, sqlite3.Error, OSError) as error:
            await self.close()
            if damage.is_damage(error):
                await asyncio.to_thread(damage.set_aside, self.path)
            # The driver's text names statements and files, never values: those are masked below.
            raise JournalUnavailable(damage.describe(error)) from error

    async def _opened(self) -> AsyncEngine:
        """Give the engine; open anew when the file is no longer the one that was opened."""
        if self._engine is not None:
            if self._identity == _identity(self.path):
                return self._engine
            await self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        url = URL.create("sqlite+aiosqlite", database=str(self.path))
        self._engine = create_async_engine(url, pool_size=1, max_overflow=0, hide_parameters=True)
        event.listen(self._engine.sync_engine, "connect", _prepare)
        event.listen(self._engine.sync_engine, "begin", _begin)
        async with self._engine.begin() as connection:
            await connection.run_sync(migrate)
        self._identity = _identity(self.path)
        return self._engine


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _prepare(connection: Any, _record: object) -> None:
    # Transactions are begun by `_begin`, not behind our back by the driver.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


_stopped_at = select(owners.c.stopped_at).where(owners.c.id == bindparam("owner"))


async def _check(connection: AsyncConnection, owner: str) -> None:
    row = (await connection.execute(_stopped_at, {"owner": owner})).one_or_none()
    if row is None or row.stopped_at is not None:
        raise OwnerGone(declared_dead=row is not None)
