"""Where a journal is in a test: the fixture `storage` is once SQLite's and once PostgreSQL's."""

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

    @property
    def settings(self) -> dict[str, str]:
        """Give the settings of a proxy whose journal is there."""
        return {"STORAGE_DIR": str(self.directory)} | ({} if self.url is None else {"STORAGE_URL": self.url})
