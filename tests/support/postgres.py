"""A real PostgreSQL, started by the tests, on a Unix socket in a directory of its own.

server = PostgresServer.start()       # initdb and all; or PostgresMissing, with what to install
url = server.create("name")           # a fresh database
server.rows(url, "SELECT ..."), server.script(url, "...; ...;")
server.stop(), server.start_again()   # as a restart of its machine
server.pause(), server.resume()       # as a network that drops every packet
server.end()
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import asyncpg

_PATIENCE_S: Final = 60.0

PASSWORD: Final = "secret-of-the-journal"
"""In every URL, to see where it goes; the server asks for none."""

_OPTIONS: Final = {
    "listen_addresses": "",
    # Nothing here has to survive a power cut.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "autovacuum": "off",
}


class PostgresMissing(Exception):
    """There is no PostgreSQL here, or none that may be started."""


class PostgresServer:
    """One server process and its directory."""

    def __init__(self, binaries: Path, user: Sequence[str], directory: Path) -> None:
        self._binaries = binaries
        self._user = user
        self.directory = directory
        self.log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls) -> Self:
        """Make a new one, and wait until it answers. Raises `PostgresMissing`."""
        server = cls(_binaries(), _user(), Path(tempfile.mkdtemp(prefix="pg-")))
        if os.getuid() == 0:
            shutil.chown(server.directory, "postgres", "postgres")
        where = [str(server._binaries / "initdb"), "-D", str(server.directory / "data")]
        how = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        command = [*server._user, *where, *how]
        subprocess.run(command, check=True, capture_output=True)
        server.start_again()
        return server

    def start_again(self) -> None:
        """Start the server on what it has, and wait until it answers."""
        options = [word for name, value in _OPTIONS.items() for word in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self.directory / "data")]
        command += ["-k", str(self.directory), *options]
        # It ends with us in any case, also when we are killed.
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=INT", *self._user[1:], *command],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it, and cut all connections."""
        self.resume()
        self._signal(signal.SIGINT)
        assert self._process is not None
        self._process.wait(_PATIENCE_S)
        self._process = None

    def pause(self) -> None:
        """Have it do nothing any more, without closing anything."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        self._signal_all(signal.SIGCONT)

    def end(self) -> None:
        """Stop it and remove its directory."""
        if self._process is not None:
            self.stop()
        shutil.rmtree(self.directory)

    def url(self, database: str) -> str:
        """Give what `STORAGE_URL` would be."""
        return f"postgresql+asyncpg://postgres:{PASSWORD}@/{database}?host={self.directory}"

    def create(self, database: str) -> str:
        """Make a database; its URL."""
        self.rows(self.url("postgres"), f"CREATE DATABASE {database}")
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.rows(self.url("postgres"), f"DROP DATABASE {database} WITH (FORCE)")

    def rows(self, url: str, query: str) -> list[tuple[Any, ...]]:
        """Execute one statement on a connection of its own."""
        return [tuple(row) for row in outside(_with_connection(url, lambda it: it.fetch(query)))]

    def script(self, url: str, statements: str) -> None:
        """Execute many."""
        outside(_with_connection(url, lambda it: it.execute(statements)))

    def _answers(self) -> bool:
        command = [str(self._binaries / "pg_isready"), "-q", "-h", str(self.directory)]
        return subprocess.run(command, check=False).returncode == 0

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _signal_all(self, number: signal.Signals) -> None:
        """Signal those that serve a connection, too: each has a group of its own."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (*map(int, children), self._process.pid):
            with suppress(ProcessLookupError):  # its client has gone meanwhile, and so has it
                os.kill(pid, number)


async def _with_connection(url: str, action: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=_PATIENCE_S)
    try:
        return await action(connection)
    finally:
        await connection.close()


def outside[T](coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread with a loop of its own, and wait: the caller may have one that runs."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(coroutine))
        except BaseException as error:  # noqa: BLE001 -- raised again by the caller
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _binaries() -> Path:
    # Debian keeps all but the clients out of PATH, a directory for each version.
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: int(place.parts[-2]))
    places += [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    for place in places:
        if (place / "initdb").exists():
            return place
    raise PostgresMissing("PostgreSQL is missing:  apt-get install postgresql")


def _user() -> list[str]:
    """Give the command under which it runs: PostgreSQL refuses root."""
    if os.getuid() != 0:
        return ["setpriv"]
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        raise PostgresMissing("PostgreSQL does not run as root, and there is no user postgres") from None
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
