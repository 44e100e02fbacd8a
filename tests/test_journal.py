"""The journal: what it keeps of records and owners, in which order, and how much waits for it."""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Select

from support.costs import instructions, sqlite_steps
from support.records import a_life, a_progress, a_settled, an_ended, an_opened, journal_in
from support.sessions import TOKEN, key
from support.storage import Storage
from visa_jupyter_proxy.control.journal import Journal, endings, takeover, under_way
from visa_jupyter_proxy.control.journal import postgres as postgres_engine
from visa_jupyter_proxy.control.journal.backlog import Backlog
from visa_jupyter_proxy.control.journal.endings import Ending
from visa_jupyter_proxy.control.journal.errors import OwnerGone, RecordRefused
from visa_jupyter_proxy.control.journal.records import (
    Due,
    Record,
    ReportState,
    Settled,
    is_reportable,
    new_id,
)
from visa_jupyter_proxy.mailbox import NotebookKey


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
                    assert TOKEN not in repr(storage.rows(f"SELECT * FROM {table}"))

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
            replace(an_ended(2, session=1), at=1009.0, traffic=None, reason="worker lost"),
        ]

        async def main() -> None:
            async with journal_in(storage, "me") as journal:
                for batch in [records] if at_once else [[record] for record in records]:
                    await journal.write("me", batch)

        asyncio.run(main())
        figures = (
            "bytes_up, bytes_down, messages_up, messages_down, first_interaction_at, last_interaction_at"
        )
        assert [(11, 22, 3, 4, 1010.0, 2030.0), (5, 10, 10, 15, 1005.0, 2005.0)] == storage.rows(
            f"SELECT {figures} FROM connections ORDER BY id"
        )
        assert [(16, 32, 13, 19, 1005.0, 2030.0, 2, 1009.0, "worker lost")] == storage.rows(
            f"SELECT {figures}, connections, closed_at, reason FROM sessions"
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
        chance = random.Random(seed)
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
            query = f"SELECT * FROM {table} ORDER BY id"
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

    def test_a_session_that_is_come_back_to_all_day_costs_no_more(self, tmp_path: Path) -> None:
        """Nothing is read of its connections that have ended (counted in SQLite's own steps)."""

        async def steps(journal: Journal, number: int) -> int:
            """Count those of one more connection that comes and goes, while the first one stays."""
            return await sqlite_steps(
                journal,
                journal.write("me", [an_opened(number, 0)]),
                journal.write("me", [an_ended(number, 0)]),
            )

        async def main() -> None:
            async with journal_in(tmp_path, "me") as journal:
                await journal.write("me", [an_opened(0, 0)])
                few = await steps(journal, 1)
                many = range(2, 1000)
                await journal.write("me", [an_opened(number, 0) for number in many])
                await journal.write("me", [an_ended(number, 0) for number in many])
                assert await steps(journal, 1000) < 2 * few

        asyncio.run(main())

    def test_a_write_costs_no_more_when_many_sessions_are_open(self, tmp_path: Path) -> None:
        """Those of other keys are not read, not even of the same instance; two are new in this write."""

        async def main() -> None:
            async with journal_in(tmp_path, "me") as journal:
                few = await sqlite_steps(journal, journal.write("me", [an_opened(0), an_opened(1)]))
                await journal.write("me", [an_opened(number) for number in range(2, 500)])
                more = journal.write("me", [an_opened(500), an_opened(501)])
                assert await sqlite_steps(journal, more) < 2 * few

        asyncio.run(main())

    @pytest.mark.parametrize("others", [0, 1])
    def test_a_write_costs_no_more_when_many_reports_are_pending(self, tmp_path: Path, others: int) -> None:
        """Nothing is read of this owner's, be there one of another owner's or none."""

        async def main() -> None:
            async with journal_in(tmp_path, "me", "you") as journal:
                await journal.write("you", [an_opened(number) for number in range(others)])
                few = await sqlite_steps(journal, journal.write("me", [an_opened(10)]))
                many = range(11, 500)
                await journal.write("me", [an_opened(number) for number in many])
                await journal.write("me", [an_ended(number) for number in many])
                assert await sqlite_steps(journal, journal.write("me", [an_opened(500)])) < 2 * few

        asyncio.run(main())


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
                rows = await journal.read(under_way.running)
                assert [("me", 1, "node", "s1")] == [
                    (row.owner, row.tunnel, row.node, row.id) for row in rows
                ]
                assert 1 == len(await journal.read(lambda it: under_way.running(it, "s1")))
                assert [] == await journal.read(lambda it: under_way.running(it, "none"))
                assert {"me": "node"} == await journal.read(under_way.alive)

        asyncio.run(main())

    def test_how_many_sessions_of_a_user_others_carry(self, storage: Storage) -> None:
        """Each once, of these owners alone, and none that is over or of somebody else."""

        async def main() -> list[int]:
            async with journal_in(storage, "me", "other") as journal:
                await journal.write("me", [an_opened(1)])
                await journal.write("other", [an_opened(2), an_opened(3, 2), an_opened(4), an_ended(4)])
                asked = [("anna", ["other"]), ("anna", ["me", "other"]), ("anna", []), ("bob", ["other"])]
                return [
                    await journal.read(partial(under_way.sessions_of, user=user, of=of)) for user, of in asked
                ]

        assert [1, 2, 0, 0] == asyncio.run(main())


class TestIds:
    """The names that rows have."""

    def test_they_are_uuids_in_the_order_of_their_time(self) -> None:
        """Version 7 and its variant, as RFC 9562 has them, and never the same twice."""
        made = [new_id() for _ in range(10_000)]
        assert len(made) == len(set(made))
        assert {(7, uuid.RFC_4122)} == {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in made}
        times = [one[:12] for one in made]
        assert sorted(times) == times
        assert abs(int(times[-1], 16) / 1000 - time.time()) < 60


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

    def test_a_heartbeat_costs_no_more_when_many_are_at_work(self, tmp_path: Path) -> None:
        """Connections of the living are not read, nor what they have to report."""

        async def cost(journal: Journal) -> int:
            return await sqlite_steps(
                journal,
                journal.beat("me", 1.0),
                journal.left("me"),
                journal.adopt("me"),
                journal.endings("me", 1.0),
            )

        async def main() -> None:
            async with journal_in(tmp_path, "me", "you") as journal:
                few = await cost(journal)
                await journal.write("me", [an_opened(number) for number in range(500)])
                await journal.write("you", [an_opened(number) for number in range(500, 1000)])
                assert await cost(journal) < 2 * few

        asyncio.run(main())

    @pytest.mark.parametrize("statement", [takeover._first_and_last, takeover._with_reports])
    def test_what_is_pending_is_looked_up(self, storage: Storage, statement: Select[Any]) -> None:
        """By the index of that alone, also in the plan for any parameters that PostgreSQL comes to."""

        def plan(connection: Connection) -> str:
            query = str(statement.compile(connection))
            if connection.dialect.name == "sqlite":
                values = ("me",) * query.count("?")
                return str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values).all())
            for setting in ("plan_cache_mode = force_generic_plan", "enable_seqscan = off"):
                connection.exec_driver_sql(f"SET LOCAL {setting}")
            connection.exec_driver_sql(f"PREPARE one AS {query}")
            one = "one('me')" if "$1" in query else "one"
            return str(connection.exec_driver_sql(f"EXPLAIN EXECUTE {one}").all())

        async def main() -> None:
            async with journal_in(storage, "me") as journal:
                assert "reports_pending" in await journal.transact(plan)

        asyncio.run(main())

    def test_burial_costs_no_more_for_a_session_that_was_come_back_to_all_day(self, tmp_path: Path) -> None:
        """Nothing is read of its connections that have ended, although the last one says why it is over."""

        async def main() -> None:
            async with journal_in(tmp_path, "me", "old", "new") as journal:
                await journal.write("old", [an_opened(0)])
                few = await sqlite_steps(journal, journal.bury("old", 0, "me", 1.0))
                many = range(1, 1000)
                await journal.write("new", [an_opened(number, 1) for number in many])
                await journal.write("new", [an_ended(number, 1) for number in many[1:]])
                assert await sqlite_steps(journal, journal.bury("new", 0, "me", 1.0)) < 2 * few

        asyncio.run(main())

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

    def test_news_of_reports_go_before_a_connection_that_is_open(self) -> None:
        """VISA is told once more what it knows; of the connection nobody would know."""
        backlog = Backlog(largest=3)
        settled = [a_settled(number) for number in range(3)]
        records: list[Record] = [an_opened(0), *settled]
        assert settled[:1] == [gone for record in records for gone in backlog.add(record)]
        assert [an_opened(0), *settled[1:]] == backlog.take(10)

    @pytest.mark.parametrize("make", [a_settled, an_opened])
    def test_a_full_one_takes_more_at_the_same_cost(self, make: Callable[[int], Record]) -> None:
        """It is not gone through for each: connections that have ended are in it, or reports alone."""

        def cost(largest: int) -> int:
            backlog = Backlog(largest)
            more: list[Record] = []
            for number in range(2 * largest):
                more += [make(number), *([an_ended(number)] if make is an_opened else [])]
            for record in more[:largest]:
                backlog.add(record)

            def fill() -> None:
                for record in more[largest : 2 * largest]:
                    backlog.add(record)

            return instructions(fill)

        assert cost(1600) < 8 * cost(400)

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
