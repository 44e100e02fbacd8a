"""Where a journal is in a test: the fixture `storage` is once SQLite's and once PostgreSQL's."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.postgres import PostgresServer
from support.sessions import rows
from visa_jupyter_proxy.control.journal import Journal


@dataclass
class Storage:
    """A directory, or a fresh database."""

    directory: Path
    server: PostgresServer | None = None
    url: str | None = None

    def journal(self) -> Journal:
        """Make a journal there; several share it."""
        return Journal(self.directory, self.url)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read it from outside."""
        if self.server is not None and self.url is not None:
            return self.server.rows(self.url, query)
        return rows(self.directory / "journal.sqlite3", query)

    def script(self, statements: str) -> None:
        """Change it from outside."""
        if self.server is not None and self.url is not None:
            self.server.script(self.url, statements)
            return
        with closing(sqlite3.connect(self.directory / "journal.sqlite3")) as connection:
            connection.executescript(statements)

    @property
    def settings(self) -> dict[str, str]:
        """Give the settings of a proxy whose journal is there."""
        return {"STORAGE_DIR": str(self.directory)} | ({} if self.url is None else {"STORAGE_URL": self.url})
