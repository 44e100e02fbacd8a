"""A damaged journal: what can still be read of it goes on in the new one, and what cannot does no harm."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Connection, select

from support.sessions import ended, opened, rows
from visa_jupyter_proxy.control.journal import Journal
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable, OwnerGone
from visa_jupyter_proxy.control.journal.records import ReportState, Settled
from visa_jupyter_proxy.control.journal.schema import metadata
from visa_jupyter_proxy.control.journal.sqlite import FILE
from visa_jupyter_proxy.control.ledger import Ledger

SESSIONS: Final = 600
"""So many that each table has dozens of pages."""


async def fill(directory: Path) -> None:
    """Make a journal: half of the sessions are closed and VISA was told of all; the other half are open."""
    journal, ledger = Journal(directory), Ledger()
    await journal.register("me", "node", 1, 1000.0)
    for tunnel in range(SESSIONS):
        due = await journal.write("me", ledger.opened(1, opened(tunnel)) or [])
        if tunnel % 2:
            end = ledger.ended(1, ended(tunnel), 0.0)
            assert end is not None
            due += await journal.write("me", [end])
        told = [Settled(one.report, ReportState.DELIVERED, 1, 1000.0) for one in due if one is not None]
        await journal.write("me", told)
    await journal.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a sound journal, to be copied."""
    directory = tmp_path_factory.mktemp("sound")
    asyncio.run(fill(directory))
    return directory / FILE


def count(directory: Path, table: str, where: str = "1") -> int:
    """Count rows."""
    return int(rows(directory / FILE, f"SELECT count(*) FROM {table} WHERE {where}")[0][0])


def look_at_all(connection: Connection) -> None:
    """Read every row, and so notice any damage."""
    for table in metadata.sorted_tables:
        connection.execute(select(table)).all()


async def notice(directory: Path) -> Journal:
    """Have a journal notice the damage, and go on."""
    journal = Journal(directory)
    for _ in range(2):
        with suppress(JournalUnavailable):  # the first time: then it is set aside
            await journal.transact(look_at_all)
    return journal


def broken_references(directory: Path) -> list[Any]:
    """Give what refers to nothing."""
    return rows(directory / FILE, "PRAGMA foreign_key_check")


def truncate(file: Path) -> None:
    """Leave three quarters."""
    os.truncate(file, file.stat().st_size * 3 // 4 // 4096 * 4096)


def overwrite(file: Path) -> None:
    """Write nonsense over an eighth, in the middle."""
    pages = file.stat().st_size // 4096
    with file.open("r+b") as to:
        to.seek(pages // 2 * 4096)
        to.write(b"\xff" * (pages // 8 * 4096))


class TestDamage:
    """A file in which something is wrong."""

    @pytest.mark.parametrize("spoil", [truncate, overwrite])
    def test_what_can_be_read_is_carried_over(
        self, sound: Path, tmp_path: Path, spoil: Callable[[Path], None]
    ) -> None:
        """Most of it, and nothing that refers to what is lost; the damaged file is kept as it was."""
        file = tmp_path / FILE
        file.write_bytes(sound.read_bytes())
        spoil(file)
        spoilt = file.read_bytes()

        async def main() -> None:
            journal = await notice(tmp_path)
            await journal.close()

        asyncio.run(main())
        (aside,) = (path for path in tmp_path.glob("*.damaged-*") if not path.name.endswith(("-wal", "-shm")))
        assert spoilt == aside.read_bytes()
        assert [("ok",)] == rows(file, "PRAGMA quick_check(1)")
        assert [] == broken_references(tmp_path)
        for table in ("sessions", "connections", "reports"):
            whole = rows(sound, f"SELECT count(*) FROM {table}")[0][0]
            assert whole // 4 <= count(tmp_path, table) <= whole + SESSIONS
        assert {*rows(file, FIGURES)} <= {*rows(sound, FIGURES)}

    def test_what_an_older_program_has_made_is_carried_over(self, sound: Path, tmp_path: Path) -> None:
        """Tables that it has not are not missed, and rows that are nonsense hold nothing up."""
        file = tmp_path / FILE
        file.write_bytes(sound.read_bytes())
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("DROP TABLE acceptances")
            connection.execute(
                "UPDATE sessions SET opened_at = 'nonsense', instance_id = x'ff' WHERE rowid = 1"
            )
            connection.commit()
        truncate_slightly(file)

        async def main() -> None:
            journal = await notice(tmp_path)
            await journal.register("you", "node", 2, 2000.0)
            await journal.close()

        asyncio.run(main())
        assert SESSIONS // 2 < count(tmp_path, "connections")
        assert [] == broken_references(tmp_path)

    def test_whoever_reads_may_be_the_first_to_notice(self, sound: Path, tmp_path: Path) -> None:
        """A page of administration, say: what can be read is carried over by whoever writes next."""
        file = tmp_path / FILE
        file.write_bytes(sound.read_bytes())
        truncate(file)

        async def main() -> None:
            reader, writer = Journal(tmp_path), Journal(tmp_path)
            with pytest.raises(JournalUnavailable):
                await reader.read(look_at_all)
            await reader.close()
            await writer.transact(look_at_all)
            await writer.close()

        asyncio.run(main())
        assert rows(sound, "SELECT count(*) FROM sessions")[0][0] // 4 <= count(tmp_path, "sessions")

    def test_once(self, sound: Path, tmp_path: Path) -> None:
        """What has been carried over, and deleted since, does not come back."""
        file = tmp_path / FILE
        file.write_bytes(sound.read_bytes())
        truncate(file)

        async def main() -> None:
            journal = await notice(tmp_path)
            await journal.close()
            with closing(sqlite3.connect(file, autocommit=True)) as connection:
                connection.executescript("DELETE FROM connections; DELETE FROM reports; DELETE FROM sessions")
            for one in (journal, Journal(tmp_path)):
                await one.transact(look_at_all)
                await one.close()

        asyncio.run(main())
        assert 0 == count(tmp_path, "sessions")

    def test_a_guest_leaves_the_file_where_it_is(self, sound: Path, tmp_path: Path) -> None:
        """A command, whose user may be another one than the proxy's, neither moves it nor makes a new one."""
        file = tmp_path / FILE
        file.write_bytes(sound.read_bytes())
        truncate(file)
        spoilt = file.read_bytes()

        async def main() -> None:
            guest = Journal(tmp_path, is_guest=True)
            for ask in (guest.read, guest.transact):
                with pytest.raises(
                    JournalUnavailable, match=r"SQLITE_CORRUPT.*the proxy sets the file aside"
                ):
                    await ask(look_at_all)
            await guest.close()

        asyncio.run(main())
        assert spoilt == file.read_bytes()
        assert [] == [*tmp_path.glob("*.damaged-*")]

    def test_sessions_whose_connections_are_lost_end_unless_somebody_carries_them(
        self, sound: Path, tmp_path: Path
    ) -> None:
        """As those of a process that has stopped: their browsers have a while to come back."""
        file = tmp_path / FILE
        file.write_bytes(sound.read_bytes())
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("DELETE FROM connections")
            connection.commit()
        truncate_slightly(file)

        async def main() -> list[Any]:
            journal = await notice(tmp_path)
            await journal.register("you", "node", 2, 2000.0)
            (stopped,) = await journal.left("you")
            before = count(tmp_path, "sessions", "closed_at IS NULL")
            ended = await journal.clear(stopped, "you", 3000.0)
            due = await journal.adopt("you")
            await journal.close()
            return [before, ended, [one.kind for one in due]]

        open_ones, ended, due = asyncio.run(main())
        assert open_ones > SESSIONS // 2 * 0.9  # some were on the last page
        assert (open_ones, ["close"] * open_ones) == (ended, due)
        assert 0 == count(tmp_path, "sessions", "closed_at IS NULL")

    def test_whoever_lives_declares_anew_what_it_carries(self, sound: Path, tmp_path: Path) -> None:
        """Its row was carried over, which says nothing of its connections: it is asked for them, once."""
        file = tmp_path / FILE
        file.write_bytes(sound.read_bytes())

        async def main() -> None:
            journal = Journal(tmp_path)
            await journal.beat("me", 1000.0)
            truncate_slightly(file)
            with pytest.raises((JournalUnavailable, OwnerGone)):
                await journal.beat("me", 1000.0)
            with pytest.raises(OwnerGone) as gone:
                await journal.beat("me", 1000.0)
            assert not gone.value.declared_dead
            await journal.register("me", "node", 1, 1000.0)
            assert {} == await journal.beat("me", 1000.0)
            await journal.close()

        asyncio.run(main())


class TestNoDamage:
    """What looks like one, and is none."""

    @pytest.mark.parametrize("ending", ["", "-wal"])
    def test_garbage_behind_the_end(self, sound: Path, tmp_path: Path, ending: str) -> None:
        """It is not looked at: all that was written is there, and it is the same file."""
        file = tmp_path / FILE
        file.write_bytes(sound.read_bytes())
        with file.with_name(file.name + ending).open("ab") as to:
            to.write(os.urandom(10_000))

        async def main() -> None:
            journal = await notice(tmp_path)
            await journal.register("you", "node", 2, 2000.0)
            await journal.close()

        asyncio.run(main())
        assert SESSIONS == count(tmp_path, "sessions")
        assert 2 == count(tmp_path, "owners")
        assert [] == [*tmp_path.glob("*.damaged-*")]

    def test_a_file_of_no_length(self, tmp_path: Path) -> None:
        """It is a journal that nothing was written to."""
        (tmp_path / FILE).touch()

        async def main() -> None:
            journal = Journal(tmp_path)
            await journal.register("you", "node", 2, 2000.0)
            await journal.close()

        asyncio.run(main())
        assert 1 == count(tmp_path, "owners")
        assert [] == [*tmp_path.glob("*.damaged-*")]


FIGURES: Final = (
    "SELECT kernel_id, user_id, opened_at, closed_at, bytes_up, connections, reason FROM sessions"
    " WHERE kernel_id LIKE 'kernel-%'"
)


def truncate_slightly(file: Path) -> None:
    """Cut off the last page, whatever is in it."""
    os.truncate(file, file.stat().st_size - 4096)
