"""What a broken store does to the journal, and what the journal does to a broken store."""

import asyncio
import ctypes
import os
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from os import major, minor
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete
from sqlalchemy.util import await_only

from support.postgres import PASSWORD, PostgresServer
from support.records import an_opened, journal_in
from support.sessions import rows
from support.storage import Storage
from visa_jupyter_proxy.control.journal import Journal, damage, filesystems
from visa_jupyter_proxy.control.journal import postgres as postgres_engine
from visa_jupyter_proxy.control.journal.errors import JournalUnavailable, OwnerGone
from visa_jupyter_proxy.control.journal.records import (
    Record,
)
from visa_jupyter_proxy.control.journal.schema import metadata
from visa_jupyter_proxy.control.journal.sqlite import FILE

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


class TestFaults:
    """Stores that are broken, full, locked or gone."""

    def test_what_is_committed_survives_a_kill(self, tmp_path: Path) -> None:
        """A kill -9 right after `write` has returned loses nothing."""
        code = (
            "import asyncio, sys; sys.path[:0] = sys.argv[2:]\n"
            "from support.records import an_opened\n"
            "from visa_jupyter_proxy.control.journal import Journal\n"
            "from visa_jupyter_proxy.control.journal.errors import JournalUnavailable\n"
            "async def main():\n"
            "    j = Journal(sys.argv[1]); await j.register('me', 'node', 1, 1.0)\n"
            "    await j.write('me', [an_opened(n) for n in range(100)])\n"
            "    print('written', flush=True); await asyncio.sleep(60)\n"
            "asyncio.run(main())"
        )
        here = Path(__file__).parent
        with subprocess.Popen(
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
                damage.set_aside(tmp_path / FILE)
                assert (tmp_path / FILE).exists()
                assert [] == [*tmp_path.glob("*.damaged-*")]  # noqa: ASYNC240 -- nothing else runs

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
                with pytest.raises(JournalUnavailable, match=r"/file/data: Not a directory$"):
                    await journal.register("me", "node", 1, 1000.0)

        asyncio.run(main())

    def test_a_full_disk_loses_the_transaction_and_nothing_else(self, tmp_path: Path) -> None:
        """A file size limit stands for the disk; what was committed before stays, and writing resumes."""
        code = (
            "import asyncio, resource, sys; sys.path[:0] = sys.argv[2:]\n"
            "from support.records import an_opened\n"
            "from visa_jupyter_proxy.control.journal import Journal\n"
            "from visa_jupyter_proxy.control.journal.errors import JournalUnavailable\n"
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
        done = subprocess.run(
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
                    with pytest.raises(JournalUnavailable) as refused:
                        await journal.write("me", [an_opened(1)])
                    assert "Error" not in str(refused.value), "words, and no name of a class"
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
            with pytest.raises(
                JournalUnavailable, match="the server says: canceling statement due to lock timeout"
            ):
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
