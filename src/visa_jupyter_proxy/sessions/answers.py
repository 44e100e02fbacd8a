"""What the commands do: each asks the journal, or changes it, and gives what came of it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Connection

from visa_jupyter_proxy.control import original
from visa_jupyter_proxy.control.journal import Journal, backup, reading, upkeep
from visa_jupyter_proxy.control.journal.errors import JournalError, StorageRefused
from visa_jupyter_proxy.control.journal.reading import Wanted
from visa_jupyter_proxy.control.journal.sqlite import FILE
from visa_jupyter_proxy.sessions.layouts import Row
from visa_jupyter_proxy.sessions.times import Zone
from visa_jupyter_proxy.settings import Settings

_PAGE: Final = 10_000
_DAY_S: Final = 86_400
_COUNTS: Final = ("messages_up", "messages_down", "bytes_up", "bytes_down")

COLUMNS: Final = (
    *("opened", "closed", "duration_s", "idle_s", "user", "instance", "kernel", "session"),
    *("connections", *_COUNTS, "first_interaction", "last_interaction", "reason"),
)
FOR_PEOPLE: Final = ("opened", "closed", "duration_s", "idle_s", "user", "instance", *_COUNTS, "reason")
"""What fits on a screen."""

SUMMED_UP: Final = ("sessions", "users", "instances", "duration_s", *_COUNTS)


class CannotAnswer(Exception):
    """Why not, in words for the operator."""


class Answers:
    """What is done with one journal."""

    def __init__(self, settings: Settings, runner: asyncio.Runner) -> None:
        self._settings = settings
        self._runner = runner
        self.journal = Journal(settings.storage_dir, settings.storage_url)
        self._zone = Zone(settings.log_timezone)
        self._now = time.time()

    def rows(self, wanted: Wanted, most: int | None) -> Iterator[Row]:
        """Give the sessions, the newest first, `most` of them at most; read in pages as they are used."""
        after: tuple[float, str] | None = None
        while most is None or most > 0:
            size = _PAGE if most is None else min(_PAGE, most)
            page = self._read(partial(reading.page, wanted=wanted, after=after, most=size))
            yield from (self._row(row) for row in page)
            if len(page) < size:
                return
            after = page[-1].opened_at, page[-1].id
            most = None if most is None else most - size

    def _read[T](self, work: Callable[[Connection], T]) -> T:
        return self._runner.run(self.journal.read(work))

    def _row(self, row: Any) -> Row:
        # What the original has left has an end, and nothing else is known.
        ends = self._now if row.closed_at is None else row.closed_at
        touched = row.opened_at if row.last_interaction_at is None else row.last_interaction_at
        is_counted = row.messages_up is not None
        return {
            "opened": self._zone.show(row.opened_at),
            "closed": self._moment(row.closed_at),
            "duration_s": round(max(0.0, ends - row.opened_at), 3) if row.user_id else None,
            "idle_s": round(max(0.0, ends - touched), 3) if is_counted else None,
            "user": row.user_id,
            "instance": row.instance_id,
            "kernel": row.kernel_id,
            "session": row.session_id,
            "connections": row.connections,
            **{name: getattr(row, name) for name in _COUNTS},
            "first_interaction": self._moment(row.first_interaction_at),
            "last_interaction": self._moment(row.last_interaction_at),
            "reason": row.reason,
        }

    def _moment(self, at: float | None) -> str | None:
        return None if at is None else self._zone.show(at)

    def summary(self, by: Literal["day", "user", "instance"], since: float, until: float) -> list[Row]:
        """Sum the sessions up that began between these."""
        found = self._read(partial(self._summary, by, since, until))
        return [{**row, "duration_s": round(row["seconds"] or 0, 3)} for row in found]

    def _summary(
        self, by: Literal["day", "user", "instance"], since: float, until: float, connection: Connection
    ) -> list[dict[str, Any]]:
        if by != "day":
            return reading.by(connection, by, since, until, self._now)
        span = reading.span(connection, since, until)
        days = [] if span is None else self._zone.days(*span)
        within = ((name, max(begins, since), min(ends, until)) for name, begins, ends in days)
        return reading.by_day(connection, within, self._now)

    def prune(self, days: int) -> int:
        """Delete the sessions that were closed that many days ago; say how many."""

        async def act() -> int:
            await self._look()
            return sum([gone async for gone in upkeep.prune(self.journal, self._now - days * _DAY_S)])

        return self._runner.run(act())

    def anonymise(self, user: str) -> tuple[int, int]:
        """Take out who a user was; say of how many sessions, and how many still have the user."""

        async def act() -> tuple[int, int]:
            await self._look()
            return await upkeep.anonymise(self.journal, user)

        return self._runner.run(act())

    async def _look(self) -> None:
        """See that there is a journal: whoever writes would make one."""
        await self.journal.read(lambda _: None)

    def backup(self, to: Path) -> None:
        """Copy the journal to a new file."""
        if self.journal.is_shared:
            raise CannotAnswer(
                "the journal is in PostgreSQL, which has its own means: pg_dump with the connection of "
                "VISA_JUPYTER_PROXY_STORAGE_URL, its +asyncpg left out"
            )
        try:
            backup.copy(self._settings.storage_dir / FILE, to)
        except FileExistsError:
            raise CannotAnswer(f"{to} is there already: write another name") from None

    def export(self, to: Path | None) -> tuple[Path, int]:
        """Write the file of the original; say where it is, and how many sessions are in it."""
        keys = self._read(reading.believed_open)
        path = original.file_in(self._settings.storage_dir) if to is None else to
        try:
            original.write(path, keys)
        except FileExistsError:
            raise CannotAnswer(f"{path} is there already: remove it, or write another name") from None
        except OSError as error:
            raise CannotAnswer(f"{path} cannot be written: {error.strerror}") from error
        return path, len(keys)


@contextmanager
def answers(settings: Settings) -> Iterator[Answers]:
    """Open the journal of these settings for questions. Raises `CannotAnswer`, also while it is used."""
    try:
        with asyncio.Runner() as runner:
            asked = Answers(settings, runner)
            try:
                yield asked
            finally:
                runner.run(asked.journal.close())
    except (JournalError, StorageRefused) as error:
        raise CannotAnswer(f"the journal cannot be used: {error}") from error
