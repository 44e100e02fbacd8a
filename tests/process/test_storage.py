"""A journal that cannot be written is a fault that is told, and nothing that a browser notices."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from process.conftest import Place, channel, request
from support.admin import AdminClient
from support.client import RawClient
from support.disks import fill, on_a_small_disk
from support.postgres import PASSWORD, PostgresServer
from support.proxy import RunningProxy, environment
from support.sessions import rows

SET_ASIDE: Final = "the journal was damaged: it has been set aside and a new one is begun"
CARRIED_OVER: Final = "what could be read of the damaged journal has been carried over"
UNAVAILABLE: Final = "the journal cannot be written; records wait in memory"
AVAILABLE: Final = "the journal can be written again"
ANOTHER: Final = "the journal is another one than before: its file was deleted, replaced or set aside"

BOUND_BY_PERMISSIONS: Final = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.getuid() == 0 else ()
)
"""Runs a command so that root, too, may not write where nobody may."""

_AS_ROOT: Final = () if os.getuid() == 0 else ("--map-root-user",)


def journalled(directory: Path) -> list[str]:
    """Give the session ids in the journal."""
    query = "SELECT session_id FROM sessions ORDER BY opened_at"
    return [str(row[0]) for row in rows(directory / "journal.sqlite3", query)]


def listed(admin: AdminClient) -> list[str]:
    """Give the session ids that the API lists; none while it cannot read the journal."""
    return [one["session"] for one in admin.get("/api/v1/sessions").json.get("sessions", [])]


def begin(place: Place, proxy: RunningProxy) -> None:
    """Have one session in the journal: it is told of when it is written."""
    assert place.client(proxy).ask(channel("before")).status == 101
    place.api.wait(lambda: place.sessions().get("before"))


def serve_without_a_journal(place: Place, proxy: RunningProxy) -> None:
    """See that a notebook works, that VISA is told of it, and the operator of the fault."""
    client = place.client(proxy)
    assert client.ask(channel("during")).status == 101
    client.send(b"hello")
    assert b"hello" == client.exactly(5)
    assert place.client(proxy).ask(request()).status == 200
    place.api.wait(lambda: place.sessions().get("during"))
    proxy.wait(lambda: proxy.records(UNAVAILABLE))
    assert "error" == proxy.records(UNAVAILABLE)[0]["level"]
    control = proxy.states()[0]
    assert "failing" == control["journal"]
    assert 0 < control["records_waiting"]


def recover(place: Place, proxy: RunningProxy, directory: Path) -> None:
    """See that all is written when it can be."""
    proxy.wait(lambda: proxy.records(AVAILABLE))
    assert place.client(proxy).ask(channel("after")).status == 101
    proxy.wait(lambda: {"during", "after"} <= {*journalled(directory)})
    assert 0 == proxy.stop()
    assert not any(place.sessions().values())


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Allow nobody to write."""
    directory.mkdir()
    directory.chmod(0o555)
    yield
    directory.chmod(0o755)


@contextmanager
def parent_is_a_file(directory: Path) -> Iterator[None]:
    """Have a file where the parent should be."""
    directory.parent.write_text("not a directory")
    yield
    directory.parent.unlink()


class TestTrouble:
    """What an operator, a disk or another program may do to the data directory."""

    @pytest.mark.parametrize("trouble", [read_only, parent_is_a_file])
    def test_218_a_directory_that_cannot_be_written(
        self, place: Place, trouble: Callable[[Path], AbstractContextManager[None]]
    ) -> None:
        """From the start; WebSockets are served, the error is visible, and it recovers by itself."""
        directory = place.directory / "parent" / "data"
        if trouble is read_only:
            directory.parent.mkdir()
        with trouble(directory):
            proxy = place.start(under=BOUND_BY_PERMISSIONS, STORAGE_DIR=str(directory))
            serve_without_a_journal(place, proxy)
        recover(place, proxy, directory)

    def test_218_a_file_that_may_not_grow(self, place: Place) -> None:
        """A limit of the system, in the middle of everything."""
        proxy = place.start(ACCESS_LOG="off")  # the log is bound by the limit as well
        begin(place, proxy)
        directory = place.directory / "data"
        before = resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        serve_without_a_journal(place, proxy)
        resource.prlimit(proxy.pid, resource.RLIMIT_FSIZE, before)
        recover(place, proxy, directory)

    def test_218_a_full_disk(self, place: Place) -> None:
        """A file system without a byte left, in the middle of everything."""
        directory = place.directory / "data"
        directory.mkdir()
        proxy = place.start(under=on_a_small_disk(directory))
        inside = Path(f"/proc/{proxy.pid}/root{directory}")
        begin(place, proxy)
        fill(inside / "ballast")
        # What SQLite has allotted already may hold some records more.
        for number in range(200):
            if proxy.records(UNAVAILABLE):
                break
            client = place.client(proxy)
            assert client.ask(channel(f"S{number}")).status == 101
            place.api.wait(lambda: len(place.sessions()) == number + 2)  # noqa: B023 -- waited for at once
        serve_without_a_journal(place, proxy)
        (inside / "ballast").unlink()
        proxy.wait(lambda: proxy.records(AVAILABLE))
        proxy.wait(lambda: {"before", "during"} <= _journalled_inside(proxy, directory))
        assert 0 == proxy.stop()

    @pytest.mark.parametrize("how", ["foreign files", "missing parents"])
    def test_218_a_directory_in_which_nothing_is_wrong(self, place: Place, how: str) -> None:
        """What is not ours is left alone; what is missing is made."""
        directory = place.directory / "a" / "b" / "data"
        if how == "foreign files":
            (directory / "lost+found").mkdir(parents=True, mode=0o700)
            for name in (".gitkeep", "notes.txt", "journal.sqlite3.bak", "notebook-sessions.json.tmp"):
                (directory / name).write_text("not ours")
        proxy = place.start(STORAGE_DIR=str(directory))
        assert place.client(proxy).ask(channel("S")).status == 101
        place.api.wait(lambda: place.sessions().get("S"))
        proxy.wait(lambda: ["S"] == journalled(directory))
        assert not proxy.records(UNAVAILABLE)
        assert 0 == proxy.stop()
        if how == "foreign files":
            assert "not ours" == (directory / "notes.txt").read_text()
            assert (directory / "lost+found").is_dir()

    def test_216_218_a_database_file_that_is_truncated(self, place: Place) -> None:
        """In the middle of everything: it is kept under another name, and a new one is begun."""
        proxy = place.start()
        begin(place, proxy)
        directory = place.directory / "data"
        file = directory / "journal.sqlite3"
        with closing(sqlite3.connect(file)) as other:
            assert 0 == other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        os.truncate(file, 20_000)
        client = place.client(proxy)
        assert client.ask(channel("during")).status == 101
        proxy.wait(lambda: proxy.records(SET_ASIDE))
        proxy.wait(lambda: rows(file, "SELECT name FROM sqlite_master WHERE name = 'reports'"))
        proxy.wait(lambda: {"before", "during"} == {*journalled(directory)})
        (record,) = proxy.records(SET_ASIDE)
        assert "error" == record["level"]
        assert Path(record["kept_as"]).exists()
        client.send(b"hello")
        assert b"hello" == client.exactly(5)
        assert {"before": True, "during": True} == place.sessions()

    @pytest.mark.parametrize("how", ["deleted", "deleted with its directory", "replaced"])
    def test_218_somebody_else_tidies_up(self, place: Place, how: str) -> None:
        """It is said, counted and shown; what is open is written down in the new file, and goes on."""
        proxy = place.start()
        admin = AdminClient(proxy.admin_port)
        begin(place, proxy)
        directory = place.directory / "data"
        file = directory / "journal.sqlite3"
        proxy.wait(lambda: ["before"] == listed(admin))
        looking = RawClient(proxy.admin_port)  # has the journal stay open for reading
        place.clients.append(looking)
        looking.send(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while b"event: sessions" not in looking.buffer:
            assert looking.more()
        if how == "deleted with its directory":
            shutil.rmtree(directory)
        else:
            for one in directory.glob("journal.sqlite3*"):
                one.unlink()
            if how == "replaced":
                file.touch()
        proxy.wait(lambda: proxy.records(ANOTHER))
        (said,) = proxy.records(ANOTHER)
        assert ("error", str(file)) == (said["level"], said["journal"])
        assert 1 == admin.get("/health/ready").json["journalsReplaced"]
        assert 1 == admin.metrics()["journal_replaced_total",]
        assert place.client(proxy).ask(channel("after")).status == 101
        proxy.wait(lambda: ["before", "after"] == journalled(directory))
        proxy.wait(lambda: {"before", "after"} == {*listed(admin)})
        assert {"before": True, "after": True} == place.sessions()
        assert 0 == proxy.stop()
        assert {"before": False, "after": False} == place.sessions()

    def test_218_a_directory_that_is_gone_and_cannot_be_made_again(self, place: Place) -> None:
        """Not ready, and said, until it can be."""
        for name in ("first", "second"):
            (place.directory / name).mkdir()
        (place.directory / "a file").touch()
        parent = place.directory / "parent"
        parent.symlink_to(place.directory / "first")
        proxy = place.start(STORAGE_DIR=str(parent / "data"))
        admin = AdminClient(proxy.admin_port)
        begin(place, proxy)
        _leads_to(parent, place.directory / "a file")
        proxy.wait(lambda: proxy.records(UNAVAILABLE))
        answered = admin.get("/health/ready")
        assert (503, "failing") == (answered.status, answered.json["journal"])
        _leads_to(parent, place.directory / "second")
        proxy.wait(lambda: admin.get("/health/ready").status == 200)
        proxy.wait(lambda: ["before"] == journalled(place.directory / "second" / "data"))
        assert 1 == len(proxy.records(ANOTHER))

    @pytest.mark.parametrize("how", ["garbage behind the file", "garbage behind its log", "no length"])
    def test_216_a_file_that_looks_damaged_and_is_not(self, place: Place, how: str) -> None:
        """It starts on it; what was acknowledged is there, and nothing is set aside."""
        proxy = place.start()
        begin(place, proxy)
        directory = place.directory / "data"
        proxy.kill()
        file = directory / ("journal.sqlite3-wal" if how == "garbage behind its log" else "journal.sqlite3")
        if how == "no length":
            for one in directory.iterdir():
                one.unlink()
            file.touch()
        else:
            with file.open("ab") as to:
                to.write(os.urandom(10_000))
        proxy = place.start(
            node="again", STORAGE_DIR=str(directory), OWNER_TIMEOUT_S="2", SESSION_LINGER_S="0"
        )
        assert place.client(proxy).ask(channel("after")).status == 101
        place.api.wait(lambda: place.sessions().get("after"))
        expected = {"after"} if how == "no length" else {"before", "after"}
        proxy.wait(lambda: expected == {*journalled(directory)})
        place.api.wait(lambda: place.sessions() == {"before": how == "no length", "after": True})
        assert not proxy.records(SET_ASIDE)

    def test_216_readable_rows_of_a_damaged_file_are_carried_over(self, place: Place) -> None:
        """What a dead process has left in them is closed at VISA, as if nothing had happened to the file."""
        proxy = place.start()
        names = [f"S{number}" for number in range(60)]
        for name in names:
            assert place.client(proxy).ask(channel(name)).status == 101
        place.api.wait(lambda: len(place.sessions()) == 60)
        proxy.kill()
        directory = place.directory / "data"
        file = directory / "journal.sqlite3"
        with closing(sqlite3.connect(file)) as other:
            assert 0 == other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        os.truncate(file, file.stat().st_size - 4096)  # the last page: some of the youngest rows, perhaps
        proxy = place.start(
            node="again", STORAGE_DIR=str(directory), OWNER_TIMEOUT_S="2", SESSION_LINGER_S="0"
        )
        proxy.wait(lambda: proxy.records(SET_ASIDE))
        proxy.wait(lambda: proxy.records(CARRIED_OVER))
        (carried,) = proxy.records(CARRIED_OVER)
        assert 40 <= carried["sessions"]
        place.api.wait(lambda: carried["sessions"] == list(place.sessions().values()).count(False))
        assert carried["sessions"] == len(journalled(directory))

    def test_218_nothing_drops_the_locks_that_sqlite_has(self, place: Place) -> None:
        """Whoever opens the journal's files by hand and closes them does; the next reader then breaks it."""
        directory = place.directory / "data"
        directory.mkdir()
        (directory / "notes.txt").write_text("something to look at")
        proxy = place.start()
        begin(place, proxy)
        files = {
            str((directory / name).stat().st_ino): name for name in ("journal.sqlite3", "journal.sqlite3-shm")
        }
        # proc_locks(5): the process is the fifth field, device and inode are the sixth.
        entries = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        held = {files.get(entry[5].split(":")[2]) for entry in entries if entry[4] == str(proxy.pid)}
        assert {*files.values()} <= held

    def test_218_219_a_directory_on_a_network_file_system(self, place: Place) -> None:
        """It is refused at the start, in words that say what to use instead."""
        mounts = place.directory / "mountinfo"
        device = place.directory.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        mounts.write_text(f"22 1 {number} / {place.directory} rw - nfs4 filer:/visa rw\n")
        script = 'mount --bind "$0" /proc/$$/mountinfo && exec "$@"'
        command = ["unshare", "--mount", *_AS_ROOT, "sh", "-c", script, str(mounts)]
        seen = subprocess.run([*command, "cat", "/proc/self/mountinfo"], capture_output=True, check=False)
        if seen.returncode != 0:
            pytest.skip("no mounts of our own here")
        done = subprocess.run(
            [*command, sys.executable, "-m", "visa_jupyter_proxy", "serve"],
            cwd=place.directory,
            env=environment(place.directory, place.api.url, {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert 1 == done.returncode
        said = done.stdout + done.stderr
        assert "VISA_JUPYTER_PROXY_STORAGE_DIR" in said
        assert "network file system (nfs4)" in said
        assert "PostgreSQL (VISA_JUPYTER_PROXY_STORAGE_URL)" in said


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """Give the URL of a fresh database."""
    yield postgres.create("nodes")
    postgres.drop("nodes")


class TestPostgres:
    """A journal that several nodes share."""

    @pytest.mark.parametrize("how", ["stopped", "silent"])
    def test_a_database_that_is_away_for_a_while(
        self, place: Place, postgres: PostgresServer, database: str, how: str
    ) -> None:
        """WebSockets go on, the fault is visible, all is written when it is back, and no password is told."""
        proxy = place.start(STORAGE_URL=database)
        begin(place, proxy)
        postgres.stop() if how == "stopped" else postgres.pause()
        try:
            clients = {name: place.client(proxy) for name in ("stays", "goes")}
            for name, client in clients.items():
                assert client.ask(channel(name)).status == 101
                client.send(b"hello")
                assert b"hello" == client.exactly(5)
            clients["goes"].sock.close()
            proxy.wait(lambda: proxy.records(UNAVAILABLE))
            assert place.client(proxy).ask(request()).status == 200
        finally:
            postgres.start_again() if how == "stopped" else postgres.resume()
        proxy.wait(lambda: proxy.records(AVAILABLE))
        place.api.wait(lambda: place.sessions() == {"before": True, "stays": True, "goes": False})
        query = "SELECT session_id, closed_at IS NULL FROM sessions"
        assert {("before", True), ("stays", True), ("goes", False)} == {*postgres.rows(database, query)}
        assert 0 == proxy.stop()
        place.api.wait(lambda: not any(place.sessions().values()))
        assert PASSWORD not in proxy.log.read_text()

    def test_a_node_that_is_killed(self, place: Place, postgres: PostgresServer, database: str) -> None:
        """Its sessions that came back to the other node go on, the others are closed, once."""
        settings = {"STORAGE_URL": database, "OWNER_TIMEOUT_S": "3", "SESSION_LINGER_S": "1"}
        first, second = (place.start(node=name, **settings) for name in ("first", "second"))
        for name in ("moves", "ends"):
            assert place.client(first).ask(channel(name)).status == 101
        place.api.wait(lambda: place.sessions() == {"moves": True, "ends": True})
        first.kill()
        moved = place.client(second)
        assert moved.ask(channel("moves")).status == 101
        place.api.wait(lambda: place.sessions() == {"moves": True, "ends": False})
        moved.send(b"hello")
        assert b"hello" == moved.exactly(5)
        assert [("ends", "owner lost", 1), ("moves", None, 2)] == postgres.rows(
            database, "SELECT session_id, reason, connections FROM sessions ORDER BY session_id"
        )
        assert ["ends"] == [asked.key[2] for asked in place.api.asked("close")]
        assert 0 == second.stop()


def test_233_a_write_that_takes_its_time(place: Place) -> None:
    """While the journal's write is pending, requests, WebSockets and reports go on; then it is written."""
    proxy = place.start()
    begin(place, proxy)
    directory = place.directory / "data"
    with closing(sqlite3.connect(directory / "journal.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # nobody else can write for as long as we like
        for number in range(20):
            client = place.client(proxy)
            assert client.ask(channel(f"S{number}")).status == 101
            assert place.client(proxy).ask(request()).status == 200
        assert ["before"] == journalled(directory)
        other.execute("ROLLBACK")
    proxy.wait(lambda: 21 == len(journalled(directory)))
    place.api.wait(lambda: 21 == len(place.sessions()))


def _journalled_inside(proxy: RunningProxy, directory: Path) -> set[str]:
    """Give the session ids in the journal as the proxy sees it: SQLite resolves links like /proc/N/root."""
    code = (
        "import sqlite3, sys; print(*[row[0] for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2])])"
    )
    query = "SELECT session_id FROM sessions"
    return {*_inside(proxy, sys.executable, "-c", code, str(directory / "journal.sqlite3"), query).split()}


def _inside(proxy: RunningProxy, *command: str) -> str:
    """Run a command that sees the file systems of the proxy; what it says."""
    enter = ["nsenter", f"--target={proxy.pid}", "--mount"]
    if os.getuid():
        enter += ["--user", "--preserve-credentials"]
    done = subprocess.run([*enter, *command], capture_output=True, text=True, check=True)
    return done.stdout


def _leads_to(link: Path, target: Path) -> None:
    """Have a link lead elsewhere, from one moment to the next."""
    new = link.with_name(f"new-{link.name}")
    new.symlink_to(target)
    new.replace(link)
