"""The journal: what it keeps, what a broken store does to it, and what it does to a broken store."""

import asyncio
import ctypes
import os
import random
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import replace
from functools import partial
from os import major, minor
from pathlib import Path
from typing import Any, Final

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, delete, func, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_only

from support.postgres import PASSWORD, PostgresServer, outside
from support.sessions import TOKEN, key, rows
from support.storage import Storage
from visa_jupyter_proxy.control.journal import Journal, damage, endings, filesystems
from visa_jupyter_proxy.control.journal import postgres as postgres_engine
from visa_jupyter_proxy.control.journal.backlog import Backlog
from visa_jupyter_proxy.control.journal.endings import Ending
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable, OwnerGone, RecordRefused
from visa_jupyter_proxy.control.journal.migrations import migrate
from visa_jupyter_proxy.control.journal.records import (
    Due,
    Ended,
    Opened,
    Progressed,
    Record,
    ReportState,
    Settled,
    is_reportable,
)
from visa_jupyter_proxy.control.journal.schema import metadata
from visa_jupyter_proxy.control.journal.sqlite import FILE
from visa_jupyter_proxy.mailbox import NotebookKey

LIFE_0001: Final = (Path(__file__).parent / "journals" / "0001.sql").read_text()


def an_opened(number: int, session: int | None = None) -> Opened:
    """Give the record of connection `number` opening, by default of the session of that number."""
    notebook = key(number if session is None else session)
    return Opened(
        connection=f"c{number}",
        worker=1,
        tunnel=number,
        key=notebook,
        user="anna",
        token=TOKEN,
        at=1000.0,
        session=f"s{number}",
        report=f"open{number}",
        first=True,
    )


def an_ended(number: int, session: int | None = None) -> Ended:
    """Give the record of its end."""
    return Ended(
        connection=f"c{number}",
        key=key(number if session is None else session),
        at=1001.0,
        reason="browser closed",
        bytes_up=11,
        bytes_down=22,
        report=f"close{number}",
        last=True,
    )


def a_progress(number: int, size: int) -> Progressed:
    """Give the record of what has passed through connection `number`, in proportion to `size`."""
    return Progressed(
        connection=f"c{number}",
        bytes_up=size,
        bytes_down=2 * size,
        messages_up=2 * size,
        messages_down=3 * size,
        first_interaction_at=1000.0 + (10 if size > 5 else 5),
        last_interaction_at=2000.0 + size,
    )


def a_life(chance: random.Random) -> list[Record]:
    """Make records of 60 connections of 8 sessions, in an order that is possible."""
    records: list[Record] = []
    running: list[tuple[int, int]] = []
    for number in range(60):
        session = chance.randrange(8)
        records.append(an_opened(number, session))
        running.append((number, session))
        while running and chance.random() < 0.5:
            ending = running.pop(chance.randrange(len(running)))
            records += [a_progress(ending[0], number)] * chance.randrange(3)
            records.append(an_ended(*ending))
            if chance.random() < 0.3:
                records.append(Settled(f"open{ending[0]}", ReportState.DELIVERED, 2, 1002.0))
    return records


@asynccontextmanager
async def journal_in(place: Storage | Path, *owners: str) -> AsyncIterator[Journal]:
    """Open a journal with these owners, and close it."""
    journal = (Storage(place) if isinstance(place, Path) else place).journal()
    try:
        for owner in owners:
            await journal.register(owner, "node", 1, 1000.0)
        yield journal
    finally:
        await journal.close()


_DAC_OVERRIDE, _DAC_READ_SEARCH = 1 << 1, 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Root may write anywhere: put that privilege down for a while (capabilities(7)).

    It is a thread's own; the journal's threads are started by this one and inherit its state.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    less = (ctypes.c_uint32 * 6)(*before)
    less[0] &= ~(_DAC_OVERRIDE | _DAC_READ_SEARCH)
    assert libc.capset(header, less) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


class TestWriting:
    """Records, and the reports that they make due."""

    def test_a_connection_opens_a_session_and_its_end_closes_it(self, storage: Storage) -> None:
        """The first connection makes an open due, the end of the last one a close."""

        async def main() -> None:
            async with journal_in(storage, "me") as journal:
                due = await journal.write("me", [an_opened(1), an_ended(1)])
            assert [
                Due("open1", "open", key(1), number=1),
                Due("close1", "close", key(1), number=2),
            ] == due

        asyncio.run(main())
        assert [("s1", 1000.0, 1001.0)] == storage.rows("SELECT id, opened_at, closed_at FROM sessions")
        assert [("c1", "s1", "me", 1, 1, 1000.0, 1001.0, "browser closed", 11, 22)] == storage.rows(
            "SELECT id, session, owner, worker, tunnel, opened_at, ended_at, reason, bytes_up, bytes_down"
            " FROM connections"
        )

    def test_a_second_connection_joins_the_session_whoever_owns_it(self, storage: Storage) -> None:
        """A session that another process carries is neither reported open again nor closed too early."""

        async def main() -> None:
            async with journal_in(storage, "me", "you") as journal:
                assert [Due("open1", "open", key(1), number=1)] == await journal.write("me", [an_opened(1)])
                assert [None] == await journal.write("you", [an_opened(2, session=1)])
                assert [None] == await journal.write("me", [an_ended(1)])
                assert [Due("close2", "close", key(1), number=2, blocked=True)] == await journal.write(
                    "you", [an_ended(2, session=1)]
                )

        asyncio.run(main())

    def test_a_report_is_blocked_until_the_other_owner_has_settled_the_earlier_one(
        self, storage: Storage
    ) -> None:
        """Order for a key holds across processes."""

        async def main() -> None:
            async with journal_in(storage, "me", "you") as journal:
                await journal.write("me", [an_opened(1), an_ended(1)])
                (due,) = await journal.write("you", [an_opened(2, session=1)])
                assert due is not None
                assert due.blocked
                await journal.write("me", [Settled("open1", ReportState.DELIVERED, 1, 1002.0)])
                assert {"open2"} == await journal.blocked("you", ["open2"])
                await journal.write("me", [Settled("close1", ReportState.DELIVERED, 1, 1002.0)])
                assert set() == await journal.blocked("you", ["open2"])

        asyncio.run(main())

    def test_writing_the_same_records_again_changes_nothing(self, storage: Storage) -> None:
        """A commit whose answer was lost is repeated without harm, and tells of what is pending again."""
        records: list[Record] = [
            an_opened(1),
            an_ended(1),
            Settled("open1", ReportState.DELIVERED, 1, 1002.0),
        ]
        queries = ["SELECT * FROM sessions", "SELECT * FROM connections", "SELECT * FROM reports"]

        async def main() -> None:
            async with journal_in(storage, "me") as journal:
                await journal.write("me", records)
                before = [storage.rows(query) for query in queries]
                assert [None, Due("close1", "close", key(1), number=2), None] == await journal.write(
                    "me", records
                )
                assert before == [storage.rows(query) for query in queries]

        asyncio.run(main())

    def test_a_record_that_cannot_be_written_is_told_apart_from_a_store_that_cannot(
        self, storage: Storage
    ) -> None:
        """And nothing of its transaction is kept."""
        bad = an_opened(2)
        bad.key = NotebookKey(2**64, "kernel", "session")

        async def main() -> None:
            async with journal_in(storage, "me") as journal:
                with pytest.raises(RecordRefused):
                    await journal.write("me", [an_opened(1), bad])
                assert [] == storage.rows("SELECT * FROM sessions")

        asyncio.run(main())

    def test_no_token_reaches_the_store(self, storage: Storage) -> None:
        """Tokens stay in memory."""

        async def main() -> None:
            async with journal_in(storage, "me") as journal:
                await journal.write("me", [an_opened(1), an_ended(1)])
                for table in ("owners", "sessions", "connections", "reports"):
                    assert TOKEN not in repr(storage.rows(f"SELECT * FROM {table}"))  # noqa: S608 -- a name of ours

        asyncio.run(main())
        assert TOKEN not in repr(an_opened(1))

    @pytest.mark.parametrize("at_once", [True, False])
    def test_what_passed_is_kept_of_each_connection_and_added_up(
        self, storage: Storage, *, at_once: bool
    ) -> None:
        """The newest that is known of each; the session has the figures of all of them together."""
        records: list[Record] = [
            an_opened(1),
            a_progress(1, 10),
            an_opened(2, session=1),
            a_progress(2, 5),
            a_progress(1, 30),
            an_ended(1),
            replace(an_ended(2, session=1), at=1009.0, bytes_up=None, bytes_down=None, reason="worker lost"),
        ]

        async def main() -> None:
            async with journal_in(storage, "me") as journal:
                for batch in [records] if at_once else [[record] for record in records]:
                    await journal.write("me", batch)

        asyncio.run(main())
        figures = (
            "bytes_up, bytes_down, messages_up, messages_down, first_interaction_at, last_interaction_at"
        )
        assert [(11, 22, 60, 90, 1010.0, 2030.0), (5, 10, 10, 15, 1005.0, 2005.0)] == storage.rows(
            f"SELECT {figures} FROM connections ORDER BY id"  # noqa: S608 -- names of ours
        )
        assert [(16, 32, 70, 105, 1005.0, 2030.0, 2, 1009.0, "worker lost")] == storage.rows(
            f"SELECT {figures}, connections, closed_at, reason FROM sessions"  # noqa: S608 -- names of columns
        )

    def test_a_connection_that_was_left_carries_its_session_until_it_ends(self, storage: Storage) -> None:
        """Its browser may come back; if it does, elsewhere even, the session goes on."""
        left = replace(a_progress(1, 10), left_at=1002.0, reason="browser gone")

        async def main() -> None:
            async with journal_in(storage, "me", "you") as journal:
                await journal.write("me", [an_opened(1), left])
                assert [None] == await journal.write("you", [an_opened(2, session=1)])
                assert [None] == await journal.write("me", [replace(an_ended(1), at=1002.0)])
                assert [(None, 2)] == storage.rows("SELECT closed_at, connections FROM sessions")

        asyncio.run(main())

    def test_a_session_closes_when_its_last_connection_was_over_however_late_that_is_written(
        self, storage: Storage
    ) -> None:
        """A node whose records had to wait tells of an end that was long ago."""

        async def main() -> None:
            async with journal_in(storage, "me", "you") as journal:
                await journal.write("me", [an_opened(1)])
                await journal.write(
                    "you", [an_opened(2, session=1), replace(an_ended(2, session=1), at=1050.0)]
                )
                await journal.write("me", [replace(an_ended(1), at=1020.0)])

        asyncio.run(main())
        assert [(1050.0,)] == storage.rows("SELECT closed_at FROM sessions")

    @pytest.mark.parametrize("seed", range(3))
    def test_batches_change_nothing_of_what_is_written(
        self, storage: Storage, tmp_path: Path, seed: int
    ) -> None:
        """Records in transactions of any size come to the same rows as one by one."""
        chance = random.Random(seed)  # noqa: S311 -- to be repeated
        records = a_life(chance)
        single = Storage(tmp_path / "single")

        async def main() -> None:
            async with journal_in(storage, "me") as many, journal_in(single, "me") as one:
                rest, due = records, []
                while rest:
                    size = chance.randint(1, 40)
                    due += await many.write("me", rest[:size])
                    rest = rest[size:]
                assert due == [report for r in records for report in await one.write("me", [r])]

        asyncio.run(main())
        for table in ("sessions", "connections", "reports"):
            query = f"SELECT * FROM {table} ORDER BY id"  # noqa: S608 -- a name of ours
            assert single.rows(query) == storage.rows(query)

    def test_more_records_than_a_statement_can_hold(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The databases allow some 32 000 values in one."""
        monkeypatch.setattr(postgres_engine, "_TRANSACTION_S", 60)  # sixty times as many as are ever written
        every = range(12_000)

        async def main() -> None:
            async with journal_in(storage, "me") as journal:
                due = await journal.write("me", [an_opened(number) for number in every])
                assert [f"open{number}" for number in every] == [one.report for one in due if one]
                due = await journal.write("me", [an_ended(number) for number in every])
                assert [f"close{number}" for number in every] == [one.report for one in due if one]

        asyncio.run(main())
        assert [(12_000,)] == storage.rows("SELECT count(*) FROM sessions WHERE closed_at IS NOT NULL")


class TestEndings:
    """Orders to end connections, from one owner to another."""

    def test_an_order_is_found_once_by_whom_it_is_for(self, storage: Storage) -> None:
        """In the order in which they were given; the others find nothing."""

        async def main() -> None:
            async with journal_in(storage, "me", "you") as journal:
                one, two = Ending(1, 2, None, "ada"), Ending(None, None, "anna", "ada")
                await journal.transact(lambda it: endings.order(it, [("you", one)], 1000.0))
                await journal.transact(lambda it: endings.order(it, [("you", two), ("me", two)], 1001.0))
                assert [one, two] == await journal.endings("you", 1002.0)
                assert [] == await journal.endings("you", 1003.0)
                assert [two] == await journal.endings("me", 1004.0)

        asyncio.run(main())

    def test_an_order_for_the_dead_is_tidied_away(self, storage: Storage) -> None:
        """When somebody obeys one, an hour later."""

        async def main() -> None:
            async with journal_in(storage, "me", "you") as journal:
                ending = Ending(None, None, "anna", "ada")
                await journal.transact(lambda it: endings.order(it, [("dead", ending)], 1000.0))
                at = 1001.0 + endings.KEPT_S
                await journal.transact(lambda it: endings.order(it, [("me", ending)], at))
                assert [ending] == await journal.endings("me", at)

        asyncio.run(main())
        assert [] == storage.rows("SELECT id FROM endings")

    def test_what_is_open_and_who_is_alive(self, storage: Storage) -> None:
        """Every connection that carries an open session, with its node; one session when asked for it."""

        async def main() -> None:
            async with journal_in(storage, "me", "gone") as journal:
                await journal.write("me", [an_opened(1), an_opened(2)])
                await journal.write("me", [an_ended(2)])
                await journal.stop("gone", 1001.0)
                rows = await journal.read(endings.running)
                assert [("me", 1, "node", "s1")] == [
                    (row.owner, row.tunnel, row.node, row.id) for row in rows
                ]
                assert 1 == len(await journal.read(lambda it: endings.running(it, "s1")))
                assert [] == await journal.read(lambda it: endings.running(it, "none"))
                assert {"me": "node"} == await journal.read(endings.alive)

        asyncio.run(main())


class TestOwners:
    """Who is alive, who is dead, and who takes over."""

    def test_the_living_see_each_others_heartbeats(self, storage: Storage) -> None:
        """Each beat counts one on; who has stopped is not shown."""

        async def main() -> None:
            async with journal_in(storage, "me", "you", "gone") as journal:
                await journal.stop("gone", 1000.0)
                assert {"me": 0} == await journal.beat("you", 1001.0)
                assert {"you": 1} == await journal.beat("me", 1001.0)

        asyncio.run(main())

    def test_the_dead_are_buried_once_and_what_they_left_is_adopted_once(self, storage: Storage) -> None:
        """Their connections end at their last heartbeat; reports go to the first who asks."""

        async def main() -> None:
            async with journal_in(storage, "me", "you", "dead") as journal:
                await journal.beat("dead", 1005.0)
                await journal.write("dead", [an_opened(1), an_opened(2)])
                await journal.write("me", [an_opened(3, session=2)])
                assert [2, None] == [await journal.bury("dead", 1, by, 1020.0) for by in ("me", "you")]
                due = await journal.adopt("me")
                assert [("open", key(1)), ("open", key(2)), ("close", key(1))] == [
                    (d.kind, d.key) for d in due
                ]
                assert [] == await journal.adopt("you")
                assert [("c1", 1005.0), ("c2", 1005.0), ("c3", None)] == storage.rows(
                    "SELECT id, ended_at FROM connections ORDER BY id"
                )
                assert [("s1", 1005.0), ("s2", None)] == storage.rows(
                    "SELECT id, closed_at FROM sessions ORDER BY id"
                )

        asyncio.run(main())

    def test_of_several_who_notice_a_death_exactly_one_buries(self, storage: Storage) -> None:
        """At the same time, each on a connection of its own; every session is reported closed once."""

        async def main() -> None:
            async with AsyncExitStack() as stack:
                nodes = [await stack.enter_async_context(journal_in(storage, f"n{n}")) for n in range(4)]
                async with journal_in(storage, "dead") as dead:
                    await dead.write("dead", [an_opened(number) for number in range(50)])
                await nodes[0].write("n0", [an_opened(100, session=7)])
                ended = await asyncio.gather(
                    *(node.bury("dead", 0, f"n{n}", 1.0) for n, node in enumerate(nodes))
                )
                assert [50] == [count for count in ended if count is not None]
                adopted = await asyncio.gather(*(node.adopt(f"n{n}") for n, node in enumerate(nodes)))
                closes = [due.key for dues in adopted for due in dues if due.kind == "close"]
                assert Counter(key(n) for n in range(50) if n != 7) == Counter(closes)

        asyncio.run(main())

    def test_the_clocks_of_the_nodes_decide_nothing(self, storage: Storage) -> None:
        """One is a year ahead; nobody dies of it, and each connection has the times of its own node."""
        year = 365 * 86_400.0

        async def main() -> None:
            async with journal_in(storage, "me") as mine, journal_in(storage, "ahead") as theirs:
                await theirs.beat("ahead", year)
                await theirs.write("ahead", [replace(an_opened(1), at=year - 10)])
                assert {"ahead": 1} == await mine.beat("me", 1000.0)
                await mine.bury("ahead", 1, "me", 1020.0)

        asyncio.run(main())
        assert [(year - 10, year)] == storage.rows("SELECT opened_at, ended_at FROM connections")
        assert [(year - 10, year)] == storage.rows("SELECT opened_at, closed_at FROM sessions")

    def test_what_the_dead_had_left_ends_when_it_was_left(self, storage: Storage) -> None:
        """Not with the last heartbeat, and with the reason that was known."""

        async def main() -> None:
            async with journal_in(storage, "me", "dead") as journal:
                left = replace(a_progress(1, 10), left_at=1002.0, reason="browser gone")
                await journal.write("dead", [an_opened(1), left, an_opened(2)])
                await journal.beat("dead", 1005.0)
                await journal.bury("dead", 1, "me", 1020.0)

        asyncio.run(main())
        assert [(1002.0, "browser gone"), (1005.0, "owner lost")] == storage.rows(
            "SELECT ended_at, reason FROM connections ORDER BY id"
        )
        assert [(10, 1002.0), (None, 1005.0)] == storage.rows(
            "SELECT bytes_up, closed_at FROM sessions ORDER BY id"
        )

    def test_what_a_stopped_owner_left_is_ended_when_somebody_clears_it(self, storage: Storage) -> None:
        """Until then its browsers may come back elsewhere; those that did are left alone."""

        async def main() -> None:
            async with journal_in(storage, "me", "gone") as journal:
                left = [replace(a_progress(n, 10), left_at=1002.0, reason="proxy stopped") for n in (1, 2)]
                await journal.write("gone", [an_opened(1), an_opened(2), *left])
                assert set() == await journal.left("me")
                await journal.stop("gone", 1003.0)
                assert {"gone"} == await journal.left("me")
                await journal.write("me", [an_opened(3, session=2)])
                assert [2, 0] == [await journal.clear("gone", "me", 1010.0) for _ in range(2)]
                assert set() == await journal.left("me")

        asyncio.run(main())
        assert [(1002.0, "proxy stopped"), (None, None)] == storage.rows(
            "SELECT closed_at, reason FROM sessions ORDER BY id"
        )

    def test_an_open_is_left_to_who_carries_the_session(self, storage: Storage) -> None:
        """It needs a token of the user. An open that nobody carries goes to anyone, as closes do."""

        async def main() -> None:
            async with journal_in(storage, "gone", "me", "carrier") as journal:
                await journal.write("gone", [an_opened(1), an_opened(2)])
                await journal.write("carrier", [an_opened(3, session=1)])
                await journal.stop("gone", 1003.0)
                mine, theirs = await journal.adopt("me"), await journal.adopt("carrier")
                assert ([("open2", "anna")], [("open1", "anna")]) == tuple(
                    [(due.report, due.user) for due in dues] for dues in (mine, theirs)
                )

        asyncio.run(main())

    def test_an_owner_that_has_beaten_since_is_not_buried(self, storage: Storage) -> None:
        """Only the heartbeat that stood still counts."""

        async def main() -> None:
            async with journal_in(storage, "me", "slow") as journal:
                await journal.write("slow", [an_opened(1)])
                await journal.beat("slow", 1005.0)
                assert await journal.bury("slow", 0, "me", 1020.0) is None
                assert [(None,)] == storage.rows("SELECT ended_at FROM connections")

        asyncio.run(main())

    @pytest.mark.parametrize(("stopped", "declared_dead"), [(True, True), (False, False)])
    def test_who_is_not_among_the_living_writes_nothing(
        self, storage: Storage, *, stopped: bool, declared_dead: bool
    ) -> None:
        """A process that was declared dead, or was never there, is told so."""

        async def main() -> None:
            async with journal_in(storage, *(["me"] if stopped else [])) as journal:
                await journal.stop("me", 1000.0)
                with pytest.raises(OwnerGone) as gone:
                    await journal.write("me", [an_opened(1)])
                assert declared_dead == gone.value.declared_dead
                assert [] == storage.rows("SELECT * FROM sessions")

        asyncio.run(main())


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
        table: storage.rows(f"SELECT {columns} FROM {table} ORDER BY 1")  # noqa: S608 -- names of ours
        for table, columns in OLD_COLUMNS.items()
    }


class TestSchema:
    """The tables and their migrations, on which older and newer programs work as well."""

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
            storage.script(f"UPDATE alembic_version SET version_num = 'x'; {change}")  # noqa: S608 -- ours
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
            subprocess.Popen(  # noqa: S603 -- our own interpreter and code
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
                with pytest.raises(JournalUnavailable, match=r"there is no journal|no table"):
                    await journal.read(lambda _: None)

        asyncio.run(main())
        assert not storage.directory.exists()


class TestFaults:
    """Stores that are broken, full, locked or gone."""

    def test_what_is_committed_survives_a_kill(self, tmp_path: Path) -> None:
        """A kill -9 right after `write` has returned loses nothing."""
        code = (
            "import asyncio, sys; sys.path[:0] = sys.argv[2:]\n"
            "from test_journal import *\n"
            "async def main():\n"
            "    j = Journal(sys.argv[1]); await j.register('me', 'node', 1, 1.0)\n"
            "    await j.write('me', [an_opened(n) for n in range(100)])\n"
            "    print('written', flush=True); await asyncio.sleep(60)\n"
            "asyncio.run(main())"
        )
        here = Path(__file__).parent
        with subprocess.Popen(  # noqa: S603 -- our own interpreter and code
            [sys.executable, "-c", code, tmp_path, here], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert b"written\n" == process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        assert [(100,)] == rows(tmp_path / "journal.sqlite3", "SELECT count(*) FROM connections")

    @pytest.mark.parametrize(
        "content", [b"this is no database at all" * 500, os.urandom(8192), b"SQLite format 3\0" + bytes(4080)]
    )
    def test_a_file_that_is_no_database_is_set_aside(self, tmp_path: Path, content: bytes) -> None:
        """It is kept under another name, a new journal is begun, and the neighbours are left alone."""
        (tmp_path / "journal.sqlite3").write_bytes(content)
        (tmp_path / "foreign.json").write_bytes(b"{}")

        async def main() -> None:
            async with journal_in(tmp_path) as journal:
                with pytest.raises(JournalUnavailable):
                    await journal.register("me", "node", 1, 1000.0)
                await journal.register("me", "node", 1, 1000.0)
                await journal.write("me", [an_opened(1)])

        asyncio.run(main())
        (aside,) = tmp_path.glob("journal.sqlite3.damaged-*")
        assert content == aside.read_bytes()
        assert b"{}" == (tmp_path / "foreign.json").read_bytes()
        assert [("s1",)] == rows(tmp_path / "journal.sqlite3", "SELECT id FROM sessions")

    def test_a_truncated_database_is_set_aside(self, tmp_path: Path) -> None:
        """A journal of which half is missing is noticed, kept, and replaced."""

        async def main() -> None:
            async with journal_in(tmp_path, "me") as journal:
                await journal.write("me", [an_opened(n) for n in range(200)])
            os.truncate(tmp_path / "journal.sqlite3", 20_000)
            async with journal_in(tmp_path) as journal:
                with pytest.raises(JournalUnavailable, match=r"CORRUPT|malformed"):
                    await journal.register("me", "node", 1, 1000.0)
                await journal.register("me", "node", 1, 1000.0)

        asyncio.run(main())
        assert 1 == len([p for p in tmp_path.glob("*.damaged-*") if not p.name.endswith(("-wal", "-shm"))])

    def test_a_sound_database_is_never_set_aside(self, tmp_path: Path) -> None:
        """The second of two processes finds the new journal of the first."""

        async def main() -> None:
            async with journal_in(tmp_path, "me"):
                assert damage.set_aside(tmp_path / FILE) is None
                assert (tmp_path / FILE).exists()

        asyncio.run(main())

    def test_a_file_that_was_replaced_is_opened_anew(self, tmp_path: Path) -> None:
        """Records never go to a file that has no name any more."""

        async def main() -> None:
            async with journal_in(tmp_path, "me") as journal:
                for file in tmp_path.iterdir():  # noqa: ASYNC240 -- nothing else runs
                    file.unlink()
                with pytest.raises(OwnerGone) as gone:
                    await journal.write("me", [an_opened(1)])
                assert not gone.value.declared_dead

        asyncio.run(main())

    def test_a_read_only_directory_is_a_fault_until_it_is_writable(self, tmp_path: Path) -> None:
        """The same journal works as soon as the directory does."""
        directory = tmp_path / "data"
        directory.mkdir()

        async def main() -> None:
            async with journal_in(directory) as journal:
                directory.chmod(0o555)
                with pytest.raises(JournalUnavailable):
                    await journal.register("me", "node", 1, 1000.0)
                directory.chmod(0o755)
                await journal.register("me", "node", 1, 1000.0)

        with bound_by_permissions():
            asyncio.run(main())

    def test_a_directory_that_cannot_be_made_is_a_fault(self, tmp_path: Path) -> None:
        """A file where the directory's parent should be."""
        (tmp_path / "file").touch()

        async def main() -> None:
            async with journal_in(tmp_path / "file" / "data") as journal:
                with pytest.raises(JournalUnavailable):
                    await journal.register("me", "node", 1, 1000.0)

        asyncio.run(main())

    def test_a_full_disk_loses_the_transaction_and_nothing_else(self, tmp_path: Path) -> None:
        """A file size limit stands for the disk; what was committed before stays, and writing resumes."""
        code = (
            "import asyncio, resource, sys; sys.path[:0] = sys.argv[2:]\n"
            "from test_journal import *\n"
            "async def main():\n"
            "    j = Journal(sys.argv[1]); await j.register('me', 'node', 1, 1.0)\n"
            "    await j.write('me', [an_opened(0)])\n"
            "    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
            "    try: await j.write('me', [an_opened(n) for n in range(1, 600)])\n"
            "    except JournalUnavailable as error: print(error)\n"
            "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
            "    await j.write('me', [an_opened(1)]); await j.close()\n"
            "asyncio.run(main())"
        )
        here = Path(__file__).parent
        done = subprocess.run(  # noqa: S603 -- our own interpreter and code
            [sys.executable, "-c", code, tmp_path, here],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "SQLITE_" in done.stdout, done.stderr
        assert [("s0",), ("s1",)] == rows(tmp_path / "journal.sqlite3", "SELECT id FROM sessions ORDER BY id")

    def test_a_locked_database_is_a_fault_until_it_is_free(self, tmp_path: Path) -> None:
        """Another process may hold it for long; nobody waits for ever."""

        async def main() -> None:
            async with journal_in(tmp_path, "me") as journal:
                with closing(sqlite3.connect(tmp_path / FILE)) as other:
                    other.execute("BEGIN EXCLUSIVE")
                    with pytest.raises(JournalUnavailable, match="locked"):
                        await journal.write("me", [an_opened(1)])
                    other.rollback()
                await journal.write("me", [an_opened(1)])

        asyncio.run(main())


async def is_written(journal: Journal, record: Record) -> bool:
    """Write a record of `me`; say whether that was possible."""
    try:
        await journal.write("me", [record])
    except JournalUnavailable:
        return False
    return True


class TestPostgresFaults:
    """A database that is away, hangs, or belongs to somebody else for a while."""

    @pytest.fixture
    def storage(self, postgres: PostgresServer, tmp_path: Path) -> Iterator[Storage]:
        """Give a place in PostgreSQL."""
        yield Storage(tmp_path, postgres, postgres.create("faults"))
        postgres.drop("faults")

    def test_a_server_that_was_away_is_used_again_when_it_is_back(self, storage: Storage) -> None:
        """Each call fails while it is away, and the next one works: nothing is to be started anew."""
        assert storage.server is not None
        server = storage.server

        async def main() -> None:
            async with journal_in(storage, "me") as journal:
                server.stop()
                for _ in range(2):
                    with pytest.raises(JournalUnavailable):
                        await journal.write("me", [an_opened(1)])
                server.start_again()
                assert [None] != await journal.write("me", [an_opened(1)])

        asyncio.run(main())
        assert [("c1",)] == storage.rows("SELECT id FROM connections")

    @pytest.mark.parametrize("is_connected", [True, False])
    def test_a_server_that_does_not_answer_is_given_up(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch, *, is_connected: bool
    ) -> None:
        """A network that drops every packet closes nothing: we do, and try again."""
        monkeypatch.setattr(postgres_engine, "_TRANSACTION_S", 0.5)
        monkeypatch.setattr(postgres_engine, "_CONNECT_S", 0.5)
        assert storage.server is not None
        server = storage.server

        async def main() -> None:
            async with journal_in(storage, "me") as journal:
                if not is_connected:
                    await journal.close()
                server.pause()
                try:
                    with pytest.raises(JournalUnavailable):
                        await journal.write("me", [an_opened(1)])
                finally:
                    server.resume()
                monkeypatch.setattr(postgres_engine, "_TRANSACTION_S", 60)
                monkeypatch.setattr(postgres_engine, "_CONNECT_S", 60)
                await journal.write("me", [an_opened(1)])

        asyncio.run(main())
        assert [("c1",)] == storage.rows("SELECT id FROM connections")

    def test_another_writer_is_waited_for_but_not_for_ever(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As with SQLite: after a while the write fails, and is tried again."""
        monkeypatch.setitem(postgres_engine._SESSION, "lock_timeout", "200ms")

        async def wait(mine: Journal) -> None:
            with pytest.raises(JournalUnavailable, match="LockNotAvailable"):
                await mine.write("me", [an_opened(1)])

        async def main() -> None:
            async with journal_in(storage, "me") as mine, journal_in(storage, "you") as theirs:
                await theirs.transact(lambda _: await_only(wait(mine)))
                assert [None] != await mine.write("me", [an_opened(1)])

        asyncio.run(main())

    def test_a_writer_that_stands_still_does_not_hold_up_the_others(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its machine is gone, say: the server takes the lock from it, and nothing of it is kept."""
        monkeypatch.setitem(postgres_engine._SESSION, "idle_in_transaction_session_timeout", "300ms")

        async def wait(mine: Journal) -> None:
            while not await is_written(mine, an_opened(1)):
                pass

        def stand_still(connection: Connection, mine: Journal) -> None:
            connection.execute(delete(metadata.tables["owners"]))
            await_only(wait(mine))

        async def main() -> None:
            async with journal_in(storage, "me") as mine, journal_in(storage, "you") as theirs:
                with pytest.raises(JournalUnavailable):
                    await theirs.transact(partial(stand_still, mine=mine))

        asyncio.run(main())
        assert [("me",), ("you",)] == storage.rows("SELECT id FROM owners ORDER BY id")
        assert [("c1",)] == storage.rows("SELECT id FROM connections")

    def test_no_password_reaches_a_name_or_an_error(self, storage: Storage) -> None:
        """Those are logged."""
        assert storage.url is not None
        url = storage.url.replace("/faults?", "/nowhere?")

        async def main() -> str:
            journal = Journal(storage.directory, url)
            assert "@/nowhere" in journal.name
            with pytest.raises(JournalUnavailable, match="nowhere") as unavailable:
                await journal.beat("me", 1000.0)
            await journal.close()
            return "".join([journal.name, *traceback.format_exception(unavailable.value)])

        assert PASSWORD not in asyncio.run(main())


class TestFileSystems:
    """Where SQLite's file may be."""

    MOUNTS = """
22 1 {root} / / rw,relatime - ext4 /dev/sda1 rw
36 22 0:33 / /mnt/visa rw,relatime shared:9 - {kind} filer:/visa rw,vers=4.2
"""

    @pytest.mark.parametrize("kind", ["nfs4", "nfs", "cifs", "ceph", "fuse.sshfs", "lustre", "gpfs"])
    def test_a_network_file_system_is_recognised(self, tmp_path: Path, kind: str) -> None:
        """Also of a directory that is to be made there."""
        mounts = tmp_path / "mountinfo"
        device = tmp_path.stat().st_dev
        mounts.write_text(
            self.MOUNTS.format(root="8:1", kind=kind).replace("0:33", f"{major(device)}:{minor(device)}")
        )
        assert kind == filesystems.network_type(tmp_path, mounts)
        assert kind == filesystems.network_type(tmp_path / "a" / "b", mounts)

    def test_a_local_one_is_not(self, tmp_path: Path) -> None:
        """Even if a network file system is mounted elsewhere, nothing is known, or this is not Linux."""
        mounts = tmp_path / "mountinfo"
        device = tmp_path.stat().st_dev
        for text in (self.MOUNTS.format(root=f"{major(device)}:{minor(device)}", kind="nfs4"), ""):
            mounts.write_text(text)
            assert filesystems.network_type(tmp_path, mounts) is None
        assert filesystems.network_type(tmp_path, tmp_path / "none") is None
        assert filesystems.network_type(tmp_path) is None


class TestBacklog:
    """The records that wait."""

    def test_records_come_out_in_order_also_when_put_back(self) -> None:
        """What could not be written is written first the next time."""
        backlog = Backlog()
        records = [an_opened(n) for n in range(5)]
        for record in records:
            assert [] == backlog.add(record)
        taken = backlog.take(3)
        assert [] == backlog.put_back(taken)
        assert records == backlog.take(10)

    def test_the_oldest_finished_connections_go_first(self) -> None:
        """A full backlog keeps the connections that are still open."""
        backlog = Backlog(largest=8)
        for record in (an_opened(0), an_opened(1), an_ended(1), an_opened(2), an_ended(2)):
            backlog.add(record)
        for number in (3, 4, 5):
            backlog.add(an_opened(number))
        gone = backlog.add(an_opened(6))
        assert [an_opened(1), an_ended(1)] == gone
        assert 2 == backlog.dropped
        assert 7 == len(backlog)

    def test_progress_goes_before_anything_else(self) -> None:
        """The next record says it again; but not that a connection was left."""
        backlog = Backlog(largest=4)
        left = replace(a_progress(1, 2), left_at=1001.0)
        for record in (an_opened(1), a_progress(1, 1), left, an_opened(2)):
            assert [] == backlog.add(record)
        assert [a_progress(1, 1)] == backlog.add(an_opened(3))
        assert [an_opened(1), left, an_opened(2), an_opened(3)] == backlog.take(10)

    def test_nothing_is_left_of_a_connection_that_goes(self) -> None:
        """A `Progressed` without its beginning would say nothing."""
        backlog = Backlog(largest=4)
        left = replace(a_progress(1, 2), left_at=1001.0)
        for record in (an_opened(1), left, an_ended(1), an_opened(2)):
            backlog.add(record)
        assert [an_opened(1), left, an_ended(1)] == backlog.add(an_opened(3))
        assert 3 == backlog.dropped

    def test_if_none_is_finished_the_oldest_record_goes(self) -> None:
        """The bound holds in any case."""
        backlog = Backlog(largest=3)
        gone = [record for n in range(5) for record in backlog.add(an_opened(n))]
        assert [an_opened(0), an_opened(1)] == gone
        assert 3 == len(backlog)


@pytest.mark.parametrize(
    ("kernel", "session", "expected"),
    [
        ("k", "s", True),
        ("k" * 150, "s" * 150, True),
        ("k" * 151, "s", False),
        ("k", "s" * 151, False),
        ("", "s", False),
        ("k", "", False),
        ("k\0", "s", False),
    ],
)
def test_ids_that_the_api_cannot_keep_are_not_reported(kernel: str, session: str, *, expected: bool) -> None:
    """Missing, empty, longer than 150 characters, or not printable."""
    assert expected == is_reportable(NotebookKey(7, kernel, session))
