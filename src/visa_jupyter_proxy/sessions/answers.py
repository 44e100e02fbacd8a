"""What the commands do: each asks the journal, or changes it, and gives what came of it."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import batched, chain
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Connection

from visa_jupyter_proxy.control import original
from visa_jupyter_proxy.control.journal import Journal, backup, reading, upkeep
from visa_jupyter_proxy.control.journal.errors import JournalError, StorageRefused
from visa_jupyter_proxy.control.journal.reading import Wanted
from visa_jupyter_proxy.control.journal.records import ReportState
from visa_jupyter_proxy.control.journal.sqlite import FILE
from visa_jupyter_proxy.identifiers import storable
from visa_jupyter_proxy.sessions.layouts import Row
from visa_jupyter_proxy.sessions.times import Zone
from visa_jupyter_proxy.settings import Settings

_PAGE: Final = 10_000
_DAY_S: Final = 86_400

_AT_ONCE: Final = 4
"""Connections on which a year's days are asked for: as many CPUs are common."""

_COUNTS: Final = ("messages_up", "messages_down", "bytes_up", "bytes_down")

COLUMNS: Final = (
    *("opened", "closed", "duration_s", "idle_s", "user", "instance", "kernel", "session"),
    *("connections", *_COUNTS, "first_interaction", "last_interaction", "reason"),
    *("told", "open_report", "close_report"),
)
FOR_PEOPLE: Final = (
    "opened",
    "closed",
    "duration_s",
    "idle_s",
    "user",
    "instance",
    *_COUNTS,
    "told",
    "reason",
)
"""What fits on a screen."""

SUMMED_UP: Final = ("sessions", "users", "instances", "duration_s", *_COUNTS)


class CannotAnswer(Exception):
    """Why not, in words for the operator."""


class Answers:
    """What is done with one journal."""

    def __init__(self, settings: Settings, runner: asyncio.Runner) -> None:
        self._settings = settings
        self._runner = runner
        self.journal = self._another()
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
            "told": _told(row.open_report, row.close_report),
            "open_report": row.open_report,
            "close_report": row.close_report,
        }

    def _moment(self, at: float | None) -> str | None:
        return None if at is None else self._zone.show(at)

    def summary(self, by: Literal["day", "user", "instance"], since: float, until: float) -> list[Row]:
        """Sum the sessions up that began between these."""
        if by == "day":
            found = self._runner.run(self._by_day(since, until))
        else:
            found = self._read(partial(reading.by, group=by, since=since, until=until, now=self._now))
        return [{**row, "duration_s": round(row["seconds"] or 0, 3)} for row in found]

    async def _by_day(self, since: float, until: float) -> list[dict[str, Any]]:
        """Ask for the days beside each other, on several connections."""
        span = await self.journal.read(partial(reading.span, since=since, until=until))
        days = [] if span is None else self._zone.days(*span)
        within = [(name, max(begins, since), min(ends, until)) for name, begins, ends in days]
        parts = list(batched(within, max(1, math.ceil(len(within) / _AT_ONCE))))
        journals = [self._another() for _ in parts]
        try:
            asked = zip(journals, parts, strict=True)
            works = (one.read(partial(reading.by_day, days=days, now=self._now)) for one, days in asked)
            return [*chain.from_iterable(await asyncio.gather(*works))]
        finally:
            for one in journals:
                await one.close()

    def _another(self) -> Journal:
        return Journal(self._settings.storage_dir, self._settings.storage_url, is_guest=True)

    def prune(self, days: int, progress: Callable[[int], None]) -> int:
        """Delete the sessions that were closed that many days ago; say how many."""

        async def act() -> int:
            await self._look()
            deleted = 0
            async for gone in upkeep.prune(self.journal, self._now - days * _DAY_S):
                deleted += gone
                progress(gone)
            return deleted

        return self._runner.run(act())

    def anonymise(self, user: str, progress: Callable[[int], None]) -> tuple[int, int]:
        """Take out who a user was; say of how many sessions, and how many still have the user."""

        async def act() -> tuple[int, int]:
            await self._look()
            return await upkeep.anonymise(self.journal, storable(user), progress)

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
        except OSError as error:
            raise CannotAnswer(f"{to} cannot be written: {error.strerror}") from error

    def export(self, to: Path | None) -> tuple[Path, int]:
        """Write the file of the original; say where it is, and how many sessions are in it."""
        keys = self._read(reading.believed_open)
        path = original.file_in(self._settings.storage_dir) if to is None else to
        try:
            if to is None:
                # With PostgreSQL nobody else has made it.
                path.parent.mkdir(parents=True, exist_ok=True)
            original.write(path, keys)
        except FileExistsError:
            raise CannotAnswer(f"{path} is there already: remove it, or write another name") from None
        except OSError as error:
            raise CannotAnswer(f"{path} cannot be written: {error.strerror}") from error
        return path, len(keys)

    def writers(self) -> list[tuple[str, int]]:
        """Give node and process of the proxies that seem to write the journal still."""
        return self._read(partial(reading.writers, since=time.time() - self._settings.owner_timeout_s))


def _told(opening: str | None, closing: str | None) -> str | None:
    """Say whether VISA knows of the session what it is to know by now; None when it cannot be told of it."""
    if ReportState.PENDING in (opening, closing):
        return "waiting"
    if opening == ReportState.REFUSED:
        return "refused"
    if opening == ReportState.NOT_DELIVERED:
        return "no"
    return None if opening is closing is None else "yes"


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
    except StorageRefused as error:
        raise CannotAnswer(f"the journal cannot be used: {error}") from error
    except JournalError as error:
        raise CannotAnswer(f"the journal {asked.journal.name} cannot be used: {error}") from error
