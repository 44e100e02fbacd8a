"""The journal in a file: SQLite, for one machine.

WAL mode, every transaction that writes begun with BEGIN IMMEDIATE: a second control process on the same
directory (an upgrade without a gap) waits its turn instead of failing half-way. synchronous=FULL: a
committed record survives a power cut as well as a kill -9. In WAL mode NORMAL would survive only the
kill, and a lost `opened` is a session that stays open at VISA for ever. It costs one fsync per
transaction, and one transaction holds all that has been waiting.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal import damage, filesystems
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable, RecordRefused, StorageRefused
from visa_jupyter_proxy.control.journal.migrations import migrate, verify

FILE: Final = "journal.sqlite3"

_BUSY_MS: Final = 2000
"""How long SQLite waits for another process; after that the write fails and is tried again."""

_log = logs.get()


class Sqlite:
    """The database of one directory, which is made when it is not there."""

    is_shared: Final = False

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Nothing is opened yet. Raises `StorageRefused` for a directory on a network file system."""
        self.path = Path(directory) / FILE
        self.name = str(self.path)
        self._engine: AsyncEngine | None = None
        self._there = _File()
        kind = filesystems.network_type(self.path.parent)
        if kind is not None:
            raise StorageRefused(
                f"{self.path.parent} is on a network file system ({kind}), where SQLite loses records: "
                "write a local directory, or use PostgreSQL"
            )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Begin to write, alone; commit at the end. Raises `JournalUnavailable` and `RecordRefused`."""
        async with self._translated():
            engine = await self._opened()
            async with engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Begin to read, without holding anybody up. Raises `JournalUnavailable`, also when there is none."""
        async with self._translated():
            if not await asyncio.to_thread(self.path.exists):
                raise JournalUnavailable(f"there is no journal at {self.path}")
            engine = self._engine or await self._open(verify)
            async with engine.connect() as connection:
                await connection.execution_options(journal_reading=True)
                async with connection.begin():
                    yield connection

    async def close(self) -> None:
        """Close the file. A later call opens it again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await _dispose(engine)

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (IntegrityError, DataError, OverflowError, UnicodeError) as error:
            raise RecordRefused(type(error).__name__) from error
        except (SQLAlchemyError, CommandError, sqlite3.Error, OSError) as error:
            await self.close()
            if damage.is_damage(error):
                await asyncio.to_thread(damage.set_aside, self.path)
            # The driver's text names statements and files, never values: those are masked below.
            raise JournalUnavailable(damage.describe(error)) from error

    async def _opened(self) -> AsyncEngine:
        """Give the engine; open anew when the file is no longer what was opened."""
        if self._engine is not None:
            # In a thread, like all that touches the disk: a slow one must not hold up the loop.
            there = await asyncio.to_thread(_look, self.path)
            if there == self._there or there.is_longer_than(self._there):
                self._there = there
                return self._engine
            await self.close()
            if there.is_shorter_than(self._there):
                # SQLite would not notice before it reads what is missing.
                await asyncio.to_thread(damage.set_aside, self.path)
        await asyncio.to_thread(self.path.parent.mkdir, parents=True, exist_ok=True)
        return await self._open(migrate)

    async def _open(self, prepare: Callable[[Connection], None]) -> AsyncEngine:
        url = URL.create("sqlite+aiosqlite", database=str(self.path))
        engine = create_async_engine(url, pool_size=1, max_overflow=0, hide_parameters=True)
        event.listen(engine.sync_engine, "connect", _prepare)
        event.listen(engine.sync_engine, "begin", _begin)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(prepare)
        except BaseException:  # also when cancelled: nobody else knows of the engine
            await _dispose(engine)
            raise
        self._engine, self._there = engine, await asyncio.to_thread(_look, self.path)
        return engine


async def _dispose(engine: AsyncEngine) -> None:
    try:
        await engine.dispose()
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        _log.debug("closing the journal failed", cause=type(error).__name__)


class _File(NamedTuple):
    """What is at a path."""

    device: int = 0
    inode: int = 0
    size: int = 0

    def is_longer_than(self, before: "_File") -> bool:
        return self[:2] == before[:2] and self.size > before.size

    def is_shorter_than(self, before: "_File") -> bool:
        return self[:2] == before[:2] and self.size < before.size


def _look(path: Path) -> _File:
    try:
        status = path.stat()
    except OSError:
        return _File()
    return _File(status.st_dev, status.st_ino, status.st_size)


def _prepare(connection: Any, _record: object) -> None:
    # Transactions are begun by `_begin`, not behind our back by the driver.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    is_reading = connection.get_execution_options().get("journal_reading", False)
    connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")
