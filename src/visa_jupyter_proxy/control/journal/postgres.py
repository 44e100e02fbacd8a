"""The journal in PostgreSQL: for a fleet, whose nodes know of each other only through it.

One writer at a time in the whole fleet, as SQLite has it: every transaction that writes takes one advisory
lock first, and holds it for some milliseconds. So what is read before something is decided still holds when
that is written, whoever else writes, and reports get their numbers in the order of their commits. A
transaction holds all that has gathered: a fleet writes a few of them in a second.

A peer that vanishes (its machine, or the network) must not keep the lock, and a database that vanishes
must not keep us: either side gives up after a while, see below.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import asyncpg
from sqlalchemy import Connection, event, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from visa_jupyter_proxy import failures, logs
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable, RecordRefused
from visa_jupyter_proxy.control.journal.migrations import migrate, verify
from visa_jupyter_proxy.control.journal.schema import REPORTED

_LOCK: Final = int.from_bytes(b"visajup")
"""The advisory lock; any number will do that no other program takes in the same database."""

_CONNECT_S: Final = 5
_TRANSACTION_S: Final = 10
"""How long a transaction may take until its connection is cut; a thousand records take a tenth of one."""

_MIGRATION_S: Final = 600

_SESSION: Final = {
    "application_name": "visa-jupyter-proxy",
    # How long we wait for another writer, as with SQLite: after that the write is tried again.
    "lock_timeout": "2s",
    # When the server takes a silent writer for dead, and gives its lock free.
    "idle_in_transaction_session_timeout": "15s",
    # A summary groups a year in memory, instead of sorting it on disk; what writes needs next to none.
    "work_mem": "32MB",
    # A compiler for statements that run for seconds; ours do not.
    "jit": "off",
}

_READING: Final = {
    "journal_reading": True,
    "isolation_level": "REPEATABLE READ",
    "postgresql_readonly": True,
}
"""Options of a connection that sees one state of everything, and takes no lock."""

_log = logs.get()


class Postgres:
    """The database behind a URL."""

    is_shared: Final = True
    is_another = False

    def __init__(self, url: str) -> None:
        """Nothing is opened yet. `url` is `postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE`."""
        self._url = make_url(url).set(drivername="postgresql+asyncpg")
        self.name = self._url.render_as_string(hide_password=True)
        self._engine: AsyncEngine | None = None

    async def transact[T](self, work: Callable[[Connection], T]) -> T:
        """Do work that writes, alone; commit at the end. Raises `JournalUnavailable` and `RecordRefused`."""
        async with self._translated():
            engine = self._engine or await self._open(migrate, _MIGRATION_S)
            async with _begun(engine, _TRANSACTION_S) as connection:
                return await connection.run_sync(work)

    async def read[T](self, work: Callable[[Connection], T]) -> T:
        """Do work that reads, and hold nobody up. Raises `JournalUnavailable`, also without a journal."""
        async with self._translated():
            engine = self._engine or await self._open(
                partial(verify, tables=REPORTED), _TRANSACTION_S, **_READING
            )
            async with _begun(engine, None, **_READING) as connection:
                return await connection.run_sync(work)

    async def look(self) -> None:
        """See that the database can be used, and leave it as it is."""
        await self.read(lambda _: None)

    async def close(self) -> None:
        """Close the connection. A later call opens another."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await _dispose(engine)

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (SQLAlchemyError, asyncpg.PostgresError, OSError, UnicodeError) as error:
            if _is_refusal(error):
                raise RecordRefused(type(error).__name__) from error
            await self.close()
            raise JournalUnavailable(_describe(error)) from error

    async def _open(
        self, prepare: Callable[[Connection], None], seconds: float, **options: object
    ) -> AsyncEngine:
        engine = create_async_engine(
            self._url,
            pool_size=1,
            max_overflow=0,
            hide_parameters=True,
            # What was read under the lock must be newer than the lock, whatever the server's default.
            isolation_level="READ COMMITTED",
            connect_args={"timeout": _CONNECT_S, "server_settings": _SESSION},
        )
        event.listen(engine.sync_engine, "begin", _begin)
        try:
            async with _begun(engine, seconds, **options) as connection:
                await connection.run_sync(prepare)
        except BaseException:  # also when cancelled: nobody else knows of the engine
            await _dispose(engine)
            raise
        self._engine = engine
        return engine


@asynccontextmanager
async def _begun(
    engine: AsyncEngine, seconds: float | None, **options: object
) -> AsyncIterator[AsyncConnection]:
    """Begin a transaction; after `seconds` its connection is cut, and whatever waits for it fails.

    To cancel it instead would mean to tell the server so, and to wait for its answer.
    """
    async with engine.connect() as connection:
        if options:
            await connection.execution_options(**options)
        raw = await connection.get_raw_connection()
        driver: asyncpg.Connection = raw.driver_connection
        cut = None if seconds is None else asyncio.get_running_loop().call_later(seconds, driver.terminate)
        try:
            async with connection.begin():
                yield connection
        finally:
            if cut is not None:
                cut.cancel()


def _begin(connection: Connection) -> None:
    if not connection.get_execution_options().get("journal_reading", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


async def _dispose(engine: AsyncEngine) -> None:
    try:
        await engine.dispose()
    except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        _log.debug("closing the journal failed", cause=type(error).__name__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = (error.orig if isinstance(error, DBAPIError) else None) or error.__cause__


def _is_refusal(error: BaseException) -> bool:
    """Whether a value is to blame: the driver cannot encode it, or the server refuses it."""
    refusals = (IntegrityError, DataError, asyncpg.DataError, UnicodeError)
    return any(isinstance(cause, refusals) for cause in _causes(error))


def _describe(error: BaseException) -> str:
    """Give the reason without values: the server's own words name files, users and databases."""
    for cause in _causes(error):
        if isinstance(cause, asyncpg.PostgresError):
            return f"the server says: {cause.args[0] if cause.args else cause.sqlstate}"
        if isinstance(cause, OSError):
            return failures.of_connection(cause)
        if isinstance(cause, asyncpg.InterfaceError):
            return "the connection was closed"
    return f"the database cannot be used ({type(error).__name__})"
