"""A new version takes over from the one that runs: one listening socket, and nobody is refused."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from process.conftest import SERVICE_RESTART, Place, channel, is_told_to_come_back, request
from support.client import RawClient
from support.instance import Connection, ok, switching
from support.proxy import RunningProxy, environment
from support.sessions import rows
from visa_jupyter_proxy.control.caller import Caller

UPGRADES: Final = 2
CLIENTS: Final = 6
NOTEBOOKS: Final = 10
TWO: Final = (
    "another process serves on this STORAGE_DIR: stop one and give it a directory of its own, "
    "or start with `serve --take-over` to take its place"
)


@contextmanager
def successor(proxy: RunningProxy, **settings: str) -> Iterator[RunningProxy]:
    """Start the process that takes over; it is ended in any case."""
    after = proxy.start_successor(**settings)
    try:
        yield after
        assert "Traceback" not in after.log.read_text(), after.log.read_text()[-4000:]
    finally:
        after.kill()


class Load:
    """People who work all the time, and what became of each thing that they did."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests = 0
        self.returns = 0
        """How often a browser was told to come back, and did."""
        self.failures: list[str] = []
        self._over = threading.Event()
        work = [*[self._new_connections] * CLIENTS, *[self._kept_connection] * CLIENTS]
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in work]
        self._threads += [
            threading.Thread(target=self._run, args=(lambda number=number: self._notebook(f"S{number}"),))
            for number in range(NOTEBOOKS)
        ]
        for thread in self._threads:
            thread.start()

    def works_on(self, requests: int, *, returns: int) -> None:
        """Wait for so many more requests and returns of browsers, or until something has failed."""
        deadline = time.monotonic() + 60
        requests += self.requests
        while (self.requests < requests or self.returns < returns) and not self.failures:
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)

    def stop(self) -> None:
        """Have everybody go home."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- told to the test, in its own thread
            self.failures.append(repr(error))

    def _new_connections(self) -> None:
        while not self._over.is_set():
            with RawClient(self.port) as client:
                assert client.ask(request()).status == 200
            self.requests += 1

    def _kept_connection(self) -> None:
        while not self._over.is_set():
            with RawClient(self.port) as client:
                while not self._over.is_set():
                    response = client.ask(request())
                    assert response.status == 200
                    self.requests += 1
                    if response.one("connection") == b"close":
                        break

    def _notebook(self, session: str) -> None:
        while not self._over.is_set():
            with RawClient(self.port) as client:
                assert client.ask(channel(session)).status == 101
                client.sock.settimeout(0.1)
                while not self._over.is_set():
                    try:
                        if not client.more():
                            raise AssertionError("the connection has ended without a word")
                    except TimeoutError:
                        continue
                    if client.buffer == SERVICE_RESTART:
                        client.finish()
                        self.returns += 1
                        break


class TestTakingOver:
    """`serve --take-over`."""

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_under_load(self, place: Place, workers: str) -> None:
        """Every request is answered, and no session of a kernel is closed: to VISA, nothing has happened."""
        with ExitStack() as stack:
            place.instance.play(serve_for_long)
            proxy = place.start(WORKERS=workers, SESSION_LINGER_S="10")
            load = Load(proxy.port)
            stack.callback(load.stop)
            everyone = {f"S{number}": True for number in range(NOTEBOOKS)}
            place.api.wait(lambda: place.sessions() == everyone)
            for upgrades in range(1, UPGRADES + 1):
                before, proxy = proxy, stack.enter_context(successor(proxy))
                assert before.port == proxy.port
                assert 0 == before.exit_status()
                load.works_on(200, returns=upgrades * NOTEBOOKS)
            assert [] == load.failures
            assert everyone == place.sessions()
            assert ["open"] * NOTEBOOKS == [one.endpoint for one in place.api.requests if one.body]

    def test_what_runs_is_finished_where_it_began(self, place: Place) -> None:
        """By the old process, while the new one serves whatever comes."""
        over = threading.Event()
        place.instance.play(lambda connection: answer_when(connection, over))
        proxy = place.start(DRAIN_S="60")
        client = place.client(proxy)
        client.send(request("/slow"))
        place.instance.wait(lambda: place.instance.requests)
        with successor(proxy) as after:
            proxy.wait(lambda: proxy.records("stopping"))
            assert after.pid == proxy.records("stopping")[0]["replaced_by"]
            assert place.client(after).ask(request()).status == 200
            assert proxy.is_alive()
            over.set()
            response = client.response()
            assert (200, b"close") == (response.status, response.one("connection"))
            assert 0 == proxy.exit_status()
            assert 200 == place.client(after).ask(request()).status

    def test_nobody_is_there(self, place: Place) -> None:
        """Then it starts as ever."""
        proxy = place.start()
        proxy.kill()
        with successor(proxy) as after:
            assert 200 == place.client(after).ask(request()).status

    def test_a_successor_that_dies_changes_nothing(self, place: Place) -> None:
        """It had the socket, and did not get to the point of serving."""
        proxy = place.start()
        proxy.wait((place.directory / "data" / "control.sock").exists)
        caller = Caller.find(place.directory / "data")
        assert caller is not None
        answer, sockets = caller.ask("hand over")
        assert (proxy.pid, False) == (answer.pid, answer.is_stopping)
        admin = proxy.records("admin listening")[0]["port"]
        assert [proxy.port, admin] == [sock.getsockname()[1] for sock in sockets]
        caller.close()
        for sock in sockets:
            sock.close()
        assert 200 == place.client(proxy).ask(request()).status
        assert [] == proxy.records("stopping")

    def test_a_successor_with_a_mistake_changes_nothing(self, place: Place) -> None:
        """It says so, with status 2, and never asks."""
        proxy = place.start()
        done = subprocess.run(
            [sys.executable, "-m", "visa_jupyter_proxy", "serve", "--take-over"],
            cwd=place.directory,
            env=environment(place.directory, place.api.url, {"IDLE_TIMEOUT_S": "soon"}),
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert 2 == done.returncode
        assert 200 == place.client(proxy).ask(request()).status

    def test_another_port_is_opened_anew(self, place: Place) -> None:
        """And the process on the old one drains all the same: the new one is in its place."""
        proxy = place.start()
        with successor(proxy, SERVER_HOST="127.0.0.2") as after:
            assert 0 == proxy.exit_status()
            assert after.port != proxy.port
            with RawClient(after.port, "127.0.0.2") as client:
                assert client.ask(request()).status == 200


class TestTwoProcesses:
    """On one directory, each with a socket of its own: case 219."""

    def test_219_neither_ends_the_sessions_of_the_other(self, place: Place) -> None:
        """Both serve and record; one that stops ends its own, and nothing else."""
        first = place.start(OWNER_TIMEOUT_S="2")
        second = RunningProxy(
            place.directory,
            environment(place.directory, place.api.url, {"OWNER_TIMEOUT_S": "2"}),
            log_name="second.log",
        )
        try:
            second.wait_until_it_listens()
            assert first.port != second.port
            # Whoever has started the second by mistake is told so, and by which process.
            assert [] == first.records(TWO)
            assert [("warning", first.pid)] == [(one["level"], one["pid"]) for one in second.records(TWO)]
            one, other = place.client(first), place.client(second)
            assert one.ask(channel("S1")).status == 101
            assert other.ask(channel("S2")).status == 101
            both = place.client(first), place.client(second)
            for client in both:
                assert client.ask(channel("S3")).status == 101
            place.api.wait(lambda: place.sessions() == {"S1": True, "S2": True, "S3": True})
            # Long enough for each to take the other for dead, if it did.
            beats = "SELECT min(beats) FROM owners"
            first.wait(lambda: rows(place.directory / "data" / "journal.sqlite3", beats)[0][0] > 8)
            second.signal(signal.SIGTERM)
            assert is_told_to_come_back(other)
            assert is_told_to_come_back(both[1])
            assert 0 == second.exit_status()
            place.api.wait(lambda: place.sessions() == {"S1": True, "S2": False, "S3": True})
            first.signal(signal.SIGTERM)
            assert is_told_to_come_back(one)
            assert is_told_to_come_back(both[0])
            assert 0 == first.exit_status()
            assert {"S1": False, "S2": False, "S3": False} == place.sessions()
        finally:
            second.kill()


def serve_for_long(connection: Connection) -> None:
    """Answer plain requests, and keep a WebSocket open until its browser goes."""
    connection.sock.settimeout(600)
    while (asked := connection.request()).one("upgrade") is None:
        connection.send(ok())
    connection.send(switching(asked))
    connection.rest()


def answer_when(connection: Connection, over: threading.Event) -> None:
    """Answer at once, but `/slow` only when it is `over`."""
    while True:
        if connection.request().target.endswith(b"/slow"):
            assert over.wait(60)
        connection.send(ok())
