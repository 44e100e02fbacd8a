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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal import damage, filesystems, privacy, salvage
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable, RecordRefused, StorageRefused
from visa_jupyter_proxy.control.journal.migrations import migrate, verify
from visa_jupyter_proxy.control.journal.schema import REPORTED

FILE: Final = "journal.sqlite3"

_BUSY_MS: Final = 2000
"""How long SQLite waits for another process; after that the write fails and is tried again."""

_NONE: Final = "there is none yet; a proxy with this STORAGE_DIR begins it when it starts"

_log = logs.get()


class Sqlite:
    """The database of one directory, which is made when it is not there.

    All that touches the disk happens in one thread of its own: a slow disk must not hold up the loop, and
    a transaction is one piece of work for it, not one for every statement.
    """

    is_shared: Final = False

    def __init__(self, directory: str | os.PathLike[str], *, is_guest: bool = False) -> None:
        """Nothing is opened yet. Raises `StorageRefused` for a directory on a network file system.

        A guest leaves a damaged file where it is.
        """
        self.path = Path(directory) / FILE
        self.name = str(self.path)
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Connection | None = None
        self._reading: Connection | None = None
        self._there = _File()
        self._read_there = _File()
        """What the other connection reads."""
        self.is_another = False
        """Whether the file is another one than before; whoever has looked sets it to False."""
        self._is_guest = is_guest
        kind = filesystems.network_type(self.path.parent)
        if kind is not None:
            raise StorageRefused(
                f"{self.path.parent} is on a network file system ({kind}), where SQLite loses records: "
                "write a local directory, or use PostgreSQL"
            )

    async def transact[T](self, work: Callable[[Connection], T]) -> T:
        """Do work that writes, alone; commit at the end. Raises `JournalUnavailable` and `RecordRefused`."""
        return await self._run(self._transact, work)

    async def read[T](self, work: Callable[[Connection], T]) -> T:
        """Do work that reads, and hold nobody up. Raises `JournalUnavailable`, also without a journal."""
        return await self._run(self._read, work)

    async def look(self) -> None:
        """See that the file can be used, and leave it as it is, even a damaged one."""
        await asyncio.to_thread(self._try)

    async def close(self) -> None:
        """Close the file. A later call opens it again."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            try:
                await asyncio.get_running_loop().run_in_executor(thread, self._close)
            finally:
                thread.shutdown(wait=False)

    async def _run[T](
        self, step: Callable[[Callable[[Connection], T]], T], work: Callable[[Connection], T]
    ) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        return await asyncio.get_running_loop().run_in_executor(self._thread, step, work)

    # --- in the thread ----------------------------------------------------------------------------

    def _transact[T](self, work: Callable[[Connection], T]) -> T:
        with self._translated():
            connection = self._opened()
            with connection.begin():
                return work(connection)

    def _read[T](self, work: Callable[[Connection], T]) -> T:
        with self._translated():
            connection = self._opened_for_reading()
            with connection.begin():
                return work(connection)

    def _try(self) -> None:
        try:
            _dispose(_open(self.path, "rw", verify))
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise JournalUnavailable(damage.describe(error)) from error

    def _close(self) -> None:
        for connection in (self._writing, self._reading):
            if connection is not None:
                _dispose(connection)
        self._writing = self._reading = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (IntegrityError, DataError, OverflowError, UnicodeError) as error:
            raise RecordRefused(type(error).__name__) from error
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            self._close()
            # The driver's text names statements and files, never values: those are masked below.
            what = damage.describe(error)
            if damage.is_damage(error):
                self._set_aside()
                what += "; the proxy sets the file aside, and begins a new one" if self._is_guest else ""
            raise JournalUnavailable(what) from error

    def _opened(self) -> Connection:
        """Give the connection; open anew when the file is no longer what was opened."""
        if self._writing is not None:
            there = _look(self.path)
            if there == self._there or there.is_longer_than(self._there):
                self._there = there
                return self._writing
            self._close()
            if there.is_shorter_than(self._there):
                # SQLite would not notice before it reads what is missing.
                self._set_aside()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        damaged = damage.waiting(self.path)
        privacy.begin(self.path)
        privacy.tighten(self.path)
        self._writing = _open(self.path, "rwc", partial(_prepare_tables, damaged=damaged))
        privacy.tighten(self.path)
        if damaged is not None:
            damage.carried_over(self.path)
        before, self._there = self._there, _look(self.path)
        self.is_another = self.is_another or before[:2] not in (_File()[:2], self._there[:2])
        return self._writing

    def _set_aside(self) -> None:
        if not self._is_guest:
            damage.set_aside(self.path)

    def _opened_for_reading(self) -> Connection:
        there = _look(self.path)
        if self._reading is not None:
            if there.is_where(self._read_there):
                return self._reading
            # Deleted, or another one in its place: SQLite would go on to read what nobody else sees.
            _dispose(self._reading)
            self._reading = None
        if there == _File():
            raise JournalUnavailable(_NONE)
        self._reading = _open(self.path, "rw", partial(verify, tables=REPORTED))
        self._read_there = _look(self.path)
        return self._reading


def _open(path: Path, mode: str, prepare: Callable[[Connection], None]) -> Connection:
    """Connect. Only a writer ever asks for the lock; a reader cannot make a database either."""

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)

    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool, hide_parameters=True)
    is_writer = mode == "rwc"
    event.listen(engine, "connect", _prepare_writer if is_writer else _prepare_reader)
    event.listen(engine, "begin", _begin_writing if is_writer else _begin)
    connection = engine.connect()
    try:
        with connection.begin():
            prepare(connection)
    except BaseException:  # nobody else knows of it
        _dispose(connection)
        raise
    return connection


def _prepare_tables(connection: Connection, damaged: Path | None) -> None:
    migrate(connection)
    if damaged is not None:
        # Two processes may come here with the same: it changes nothing that is there already.
        salvage.carry_over(connection, damaged)


def _dispose(connection: Connection) -> None:
    try:
        connection.close()
        connection.engine.dispose()
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        _log.debug("closing the journal failed", cause=type(error).__name__)


class _File(NamedTuple):
    """What is at a path."""

    device: int = 0
    inode: int = 0
    size: int = 0

    def is_where(self, before: "_File") -> bool:
        return self[:2] == before[:2]

    def is_longer_than(self, before: "_File") -> bool:
        return self.is_where(before) and self.size > before.size

    def is_shorter_than(self, before: "_File") -> bool:
        return self.is_where(before) and self.size < before.size


def _look(path: Path) -> _File:
    try:
        status = path.stat()
    except OSError:
        return _File()
    return _File(status.st_dev, status.st_ino, status.st_size)


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    # Transactions are begun by `_begin`, not behind our back by the driver.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    connection.execute("PRAGMA foreign_keys=ON")


def _prepare_writer(connection: sqlite3.Connection, record: object) -> None:
    _prepare(connection, record)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _prepare_reader(connection: sqlite3.Connection, record: object) -> None:
    _prepare(connection, record)
    connection.execute("PRAGMA query_only=ON")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_writing(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
