"""Brings the journal's schema up to date, with alembic, inside the caller's transaction.

That transaction is the only one that writes (BEGIN IMMEDIATE, or an advisory lock), so one process
migrates while all others wait. Migrations only add, or put one index in another's place, so that the
version before this one works on the schema of this one, and an upgrade can be undone by going back to the
old program.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, inspect

from visa_jupyter_proxy import logs
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable
from visa_jupyter_proxy.control.journal.schema import metadata

_OLDER: Final = "; if an older program made it, the first start of this one completes it"

_HERE: Final = Path(__file__).parent

_log: Final = logs.get()


class SchemaUnfit(JournalUnavailable):
    """The journal's tables are not those that this program knows, nor those with something added."""


class SchemaIncomplete(SchemaUnfit):
    """The journal lacks tables or columns, as it does before the first start of this version."""


def migrate(connection: Connection, version: str = "head") -> None:
    """Make or complete the tables; a schema newer than this program is left as it is, if it only adds.

    `version` is for tests: the schema of an older program. Raises `SchemaUnfit`.
    """
    # Not at the top: whoever only reads waits for no alembic.
    from alembic import command  # noqa: PLC0415 -- see above
    from alembic.config import Config  # noqa: PLC0415 -- likewise
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415 -- likewise
    from alembic.script import ScriptDirectory  # noqa: PLC0415 -- likewise
    from alembic.util.exc import CommandError  # noqa: PLC0415 -- likewise

    config = Config()
    # The option is read by configparser, to which a percent sign means something.
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None or (current in known and current != script.get_current_head()):
        try:
            with _told(current, script.get_current_head()):
                command.upgrade(config, version)
        except CommandError as error:
            raise SchemaUnfit(f"the journal's tables cannot be brought up to date: {error}") from error
    elif current not in known:
        verify(connection)


@contextmanager
def _told(current: str | None, head: str | None) -> Iterator[None]:
    """Say that it is being done, and when it is: with a large journal that takes a while."""
    began = time.monotonic()
    if current is not None:
        _log.notice("the journal's tables are being brought up to date", schema=current, to=head)
    yield
    if current is not None:
        seconds = round(time.monotonic() - began, 3)
        _log.notice("the journal's tables are up to date", schema=head, seconds=seconds)


def verify(connection: Connection, tables: Iterable[Table] = metadata.sorted_tables) -> None:
    """See that these tables are there with all columns, and that rows can be written without any others.

    Raises `SchemaIncomplete` and `SchemaUnfit`.
    """
    inspector = inspect(connection)
    there = set(inspector.get_table_names())
    for table in tables:
        if table.name not in there:
            raise SchemaIncomplete(f"the journal has no table {table.name}{_OLDER}")
        _verify_columns(table, {column["name"]: dict(column) for column in inspector.get_columns(table.name)})


def _verify_columns(table: Table, there: dict[str, dict[str, Any]]) -> None:
    for column in table.columns:
        if column.name not in there:
            raise SchemaIncomplete(f"the journal's table {table.name} has no column {column.name}{_OLDER}")
    for name, found in there.items():
        if name not in table.columns and not found["nullable"] and found["default"] is None:
            raise SchemaUnfit(f"the journal's table {table.name} needs {name}, which is not known here")
