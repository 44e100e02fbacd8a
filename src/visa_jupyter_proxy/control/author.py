"""Whose records are written: what a `writer.Writer` asks of the one it writes for, and tells it."""

from collections.abc import Collection
from typing import Protocol

from visa_jupyter_proxy.control.journal.records import Due, Record


class Author(Protocol):
    """Whose records are written, and what the writer tells them. None of it may raise or wait."""

    def due(self, record: Record, due: Due) -> None:
        """Send the report that a record has made due."""

    def adopted(self, due: Due) -> None:
        """Send the report that somebody has left."""

    def release(self, record: Record) -> None:
        """Decide without the journal what a record makes due."""

    def declare(self, *, but: Collection[str], anew: bool) -> list[Record]:
        """Give the records of what is carried here again; see `Ledger.declare`."""

    def reborn(self) -> None:
        """Forget what was to be sent: another owner has taken it over."""

    def beaten(self) -> None:
        """Know that the journal counts this process among the living."""

    def blocked(self) -> list[str]:
        """Give the reports that wait for another owner's."""

    def unblock(self, but: Collection[str]) -> None:
        """Send those that wait no longer: all except `but`."""
