"""The journal's tables and their migrations; those who only read them."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, delete, func, select
from sqlalchemy.ext.asyncio import create_async_engine

from support.postgres import outside
from support.records import an_opened, journal_in
from support.storage import Storage
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable
from visa_jupyter_proxy.control.journal.migrations import migrate
from visa_jupyter_proxy.control.journal.schema import metadata
from visa_jupyter_proxy.control.journal.sqlite import FILE

LIFE_0001: Final = (Path(__file__).parent / "journals" / "0001.sql").read_text()


async def schema_of(storage: Storage, version: str) -> None:
    """Make the tables that an older program would make."""
    storage.directory.mkdir(exist_ok=True)
    if storage.url is None:
        engine = create_engine(f"sqlite:///{storage.directory / 'journal.sqlite3'}")
        with engine.begin() as connection:
            migrate(connection, version)
        engine.dispose()
        return
    fleets = create_async_engine(storage.url)
    async with fleets.begin() as another:
        await another.run_sync(migrate, version)
    await fleets.dispose()


EVENTS: Final = (
    "the journal's tables are being brought up to date",
    "the journal's tables are up to date",
)
"""What is said of an upgrade, in this order, and of nothing else."""

OLD_COLUMNS = {
    "owners": "id, node, pid, beats, beat_at, started_at, stopped_at",
    "sessions": "id, instance_id, kernel_id, session_id, user_id, opened_at, closed_at",
    "connections": "id, session, owner, worker, tunnel, opened_at, ended_at, reason, bytes_up, bytes_down",
    "reports": "number, id, session, owner, kind, state, attempts, created_at, settled_at",
}
"""Those of schema 0001."""


def old_rows(storage: Storage) -> dict[str, list[tuple[Any, ...]]]:
    """Give what a program of schema 0001 sees."""
    return {
        table: storage.rows(f"SELECT {columns} FROM {table} ORDER BY 1")
        for table, columns in OLD_COLUMNS.items()
    }


class TestSchema:
    """The tables and their migrations, on which older and newer programs work as well."""

    def test_an_upgrade_says_that_it_is_at_work(
        self, storage: Storage, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With a large journal it takes a while; a journal that is made anew takes none."""

        async def main() -> None:
            await schema_of(storage, "0001")
            async with journal_in(storage, "me"):
                pass

        asyncio.run(main())
        told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert [(EVENTS[0], "0001"), (EVENTS[1], told[0]["to"])] == [
            (line["event"], line["schema"]) for line in told
        ]

    def test_the_migrations_make_the_schema(self, storage: Storage) -> None:
        """What the migrations build is what the code believes to be there."""

        async def main() -> list[Any]:
            async with journal_in(storage, "me") as journal:
                return await journal.read(
                    lambda it: list(compare_metadata(MigrationContext.configure(it), metadata))
                )

        assert [] == asyncio.run(main())

    def test_the_version_before_works_on_this_schema(self, storage: Storage, tmp_path: Path) -> None:
        """An upgrade can be undone: all that it says has the effect that it has on its own schema."""
        own = Storage(tmp_path / "own")
        asyncio.run(schema_of(own, "0001"))
        asyncio.run(schema_of(storage, "head"))
        for place in (own, storage):
            place.script(LIFE_0001)
        assert old_rows(own) == old_rows(storage)

    def test_what_the_version_before_has_left_is_taken_over(self, storage: Storage) -> None:
        """Its tables are completed, its connections ended, its reports adopted."""
        asyncio.run(schema_of(storage, "0001"))
        storage.script(LIFE_0001)

        async def main() -> None:
            async with journal_in(storage, "new") as journal:
                assert {"you": 0} == await journal.beat("new", 1040.0)
                assert 0 == await journal.bury("you", 0, "new", 1040.0)
                assert {"me"} == await journal.left("new")
                assert 1 == await journal.clear("me", "new", 1040.0)
                kinds = Counter(due.kind for due in await journal.adopt("new"))
                assert {"open", "close"} == set(kinds)

        asyncio.run(main())
        assert [] == storage.rows("SELECT id FROM sessions WHERE closed_at IS NULL")
        assert [(2, 22, 44)] == storage.rows(
            "SELECT connections, bytes_up, bytes_down FROM sessions WHERE id = 's1'"
        )

    def test_a_newer_schema_is_used_as_it_is(self, storage: Storage) -> None:
        """As it will be when this program is the version before."""

        async def main() -> None:
            async with journal_in(storage, "me"):
                pass
            storage.script(
                "UPDATE alembic_version SET version_num = 'from the future';"
                "ALTER TABLE sessions ADD COLUMN mood TEXT;"
                "ALTER TABLE owners ADD COLUMN age INTEGER DEFAULT 1 NOT NULL;"
            )
            async with journal_in(storage, "you") as journal:
                assert await journal.write("me", [an_opened(1)]) != [None]

        asyncio.run(main())

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ("DROP TABLE reports", "no table reports"),
            ("ALTER TABLE sessions RENAME COLUMN user_id TO somebody", "sessions has no column user_id"),
            (
                "ALTER TABLE owners RENAME TO owner; CREATE TABLE owners (id TEXT)",
                "owners has no column node",
            ),
        ],
    )
    def test_a_newer_schema_that_does_more_than_add_is_refused(
        self, storage: Storage, change: str, complaint: str
    ) -> None:
        """Nothing is written into tables whose meaning is not known."""

        async def main() -> None:
            async with journal_in(storage, "me"):
                pass
            storage.script(f"UPDATE alembic_version SET version_num = 'x'; {change}")
            async with journal_in(storage) as journal:
                with pytest.raises(JournalUnavailable, match=complaint):
                    await journal.beat("me", 1001.0)

        asyncio.run(main())

    def test_a_newer_schema_that_wants_what_is_not_known_is_refused(self, storage: Storage) -> None:
        """A column without a default that must have a value."""

        async def main() -> None:
            async with journal_in(storage):
                pass
            await schema_of(storage, "head")
            storage.script(
                "UPDATE alembic_version SET version_num = 'from the future';"
                "ALTER TABLE owners RENAME TO older; CREATE TABLE owners (id TEXT, node TEXT, pid INTEGER,"
                " beats INTEGER, beat_at FLOAT, started_at FLOAT, stopped_at FLOAT, mood TEXT NOT NULL)"
            )
            async with journal_in(storage) as journal:
                with pytest.raises(JournalUnavailable, match="owners needs mood"):
                    await journal.register("me", "node", 1, 1000.0)

        asyncio.run(main())

    def test_a_percent_sign_in_the_directory_is_no_matter(self, tmp_path: Path) -> None:
        """STORAGE_DIR may have any name, and is made when it is not there."""
        directory = tmp_path / "50%d" / "a b?c#d"

        async def main() -> None:
            async with journal_in(directory, "me"):
                pass

        asyncio.run(main())
        assert (directory / FILE).exists()

    def test_several_processes_make_the_schema_at_the_same_time(self, storage: Storage) -> None:
        """One makes it, the others find it made."""
        code = (
            "import asyncio, sys; from visa_jupyter_proxy.control.journal import Journal\n"
            "from visa_jupyter_proxy.control.journal.errors import JournalUnavailable\n"
            "async def is_registered(j):\n"
            "    try: await j.register(sys.argv[3], 'node', 1, 1.0)\n"
            "    except JournalUnavailable: return False\n"  # another one has made it for two seconds
            "    return True\n"
            "async def main():\n"
            "    j = Journal(sys.argv[1], sys.argv[2] or None); sys.stdin.readline()\n"
            "    while not await is_registered(j): pass\n"
            "    await j.close()\n"
            "asyncio.run(main())"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, storage.directory, storage.url or "", f"o{n}"],
                stdin=subprocess.PIPE,
            )
            for n in range(3)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
        assert [0, 0, 0] == [process.returncode for process in processes]
        assert [("o0",), ("o1",), ("o2",)] == storage.rows("SELECT id FROM owners ORDER BY id")


class TestReading:
    """For those who only look."""

    def test_a_reader_sees_one_state_and_holds_nobody_up(self, storage: Storage) -> None:
        """What is written meanwhile does not show, and is written."""
        count = select(func.count()).select_from(metadata.tables["sessions"])

        def look(connection: Connection) -> list[Any]:
            before = connection.scalar(count)
            storage.script(
                "INSERT INTO sessions (id, instance_id, kernel_id, session_id, user_id, opened_at)"
                " VALUES ('s1', 7, 'k', 's', 'anna', 1000)"
            )
            return [before, connection.scalar(count)]

        async def main() -> None:
            async with journal_in(storage, "me"), journal_in(storage) as reader:
                assert [0, 0] == await reader.read(look)
                assert 1 == await reader.read(lambda connection: connection.scalar(count))

        asyncio.run(main())

    def test_a_reader_does_not_wait_for_a_writer(self, storage: Storage) -> None:
        """Not even to open the journal: whoever has the lock may have it for long."""

        def owners(connection: Connection) -> list[Any]:
            return list(connection.scalars(select(metadata.tables["owners"].c.id)))

        async def look() -> list[Any]:
            async with journal_in(storage) as reader:
                return await reader.read(owners)

        def write(connection: Connection) -> None:
            connection.execute(delete(metadata.tables["owners"]))
            assert ["me"] == outside(look())

        async def main() -> None:
            async with journal_in(storage, "me") as journal:
                await journal.transact(write)

        asyncio.run(main())

    def test_a_reader_cannot_write(self, storage: Storage) -> None:
        """Reports change nothing, whatever they execute."""

        async def main() -> None:
            async with journal_in(storage, "me") as journal, journal_in(storage) as reader:
                with pytest.raises(JournalUnavailable):
                    await reader.read(lambda it: it.execute(delete(metadata.tables["owners"])))
                assert {} == await journal.beat("me", 1000.0)

        asyncio.run(main())

    def test_a_reader_makes_no_journal(self, storage: Storage) -> None:
        """A mistake in a command's settings is a mistake, not a new empty journal."""

        async def main() -> None:
            async with journal_in(storage) as journal:
                with pytest.raises(JournalUnavailable, match=r"there is none yet|no table"):
                    await journal.read(lambda _: None)

        asyncio.run(main())
        assert not storage.directory.exists()
