"""Several workers: what each takes, what goes with one that dies or hangs, and how all of them end.

`pytest -s -k spread` prints how many of the connections each worker took.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec
import pytest

from process.conftest import INSIDE, TOKEN, Place, channel, in_front_of_pythonpath, request
from process.test_lifecycle import DOCKERS_PATIENCE_S
from support.client import RawClient, get
from support.instance import Connection, echo, ok
from support.proxy import RunningProxy, environment, runs
from support.sessions import rows
from visa_jupyter_proxy.control.spawner import NICENESS
from visa_jupyter_proxy.mailbox import Drain, Start
from visa_jupyter_proxy.settings import Settings

PING: Final = b"\x89\x80\x01\x02\x03\x04"
"""A whole WebSocket frame, which the instance sends back."""

_ESTABLISHED: Final = "01"
_PATIENCE_S: Final = 120.0


def by_worker(proxy: RunningProxy) -> dict[int, set[int]]:
    """Worker -> the ports of the clients that it holds, as the kernel knows it."""
    table = [line.split() for line in Path(f"/proc/{proxy.pid}/net/tcp").read_text().splitlines()[1:]]
    ports = {
        line[9]: int(line[2].rpartition(":")[2], 16)
        for line in table
        if line[1].endswith(f":{proxy.port:04X}") and line[3] == _ESTABLISHED
    }
    return {pid: {ports[inode] for inode in sockets(pid) if inode in ports} for pid in proxy.worker_pids}


def sockets(pid: int) -> list[str]:
    """List the sockets of a process, by the kernel's number for each."""
    found = []
    with suppress(OSError):  # the process has ended meanwhile
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found.append(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def worker_of(proxy: RunningProxy, client: RawClient) -> int:
    """Give the process that has accepted this client."""
    port = client.sock.getsockname()[1]
    return next(pid for pid, ports in by_worker(proxy).items() if port in ports)


def held(proxy: RunningProxy) -> int:
    """Count the clients of all workers."""
    return sum(len(ports) for ports in by_worker(proxy).values())


def wait_long(proxy: RunningProxy, condition: Callable[[], object]) -> None:
    """Wait for what takes half a minute by design."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain:\n{proxy.log.read_text()[-4000:]}"
        time.sleep(0.1)


def open_channels(place: Place, proxy: RunningProxy, count: int) -> dict[str, tuple[RawClient, int]]:
    """Open kernel channels until every worker has one, `count` at least: session -> client, worker."""
    channels: dict[str, tuple[RawClient, int]] = {}
    while len(channels) < count or len({pid for _, pid in channels.values()}) < len(proxy.worker_pids):
        assert len(channels) < 50, by_worker(proxy)
        client = place.client(proxy)
        session = f"S{len(channels)}"
        assert client.ask(channel(session)).status == 101
        channels[session] = (client, worker_of(proxy, client))
    place.api.wait(lambda: place.sessions() == dict.fromkeys(channels, True))
    return channels


def echoes(client: RawClient) -> bool:
    """Whether the tunnel still carries bytes both ways."""
    client.send(PING)
    return client.exactly(len(PING)) == PING


class TestSpread:
    """What each of several workers takes of the connections."""

    @pytest.mark.parametrize("together", [1, 30, 300], ids=["one-by-one", "bursts-of-30", "all-at-once"])
    def test_the_spread_of_connections(self, place: Place, together: int) -> None:
        """No worker takes less than half of its part, however they come."""
        count, workers = 300, 3
        proxy = place.start(WORKERS=str(workers), HEADER_TIMEOUT_S="600")
        with ExitStack() as stack:
            for _ in range(0, count, together):
                for client in [stack.enter_context(RawClient(proxy.port)) for _ in range(together)]:
                    assert client.ask(get("/nope")).status == 404
            taken = sorted(len(ports) for ports in by_worker(proxy).values())
        print(f"{count} connections, {together} at a time, on {workers} workers: {taken}")  # noqa: T201 -- for `pytest -rP`
        assert (workers, True) == (len(taken), taken[0] >= count / workers / 2), taken

    def test_the_others_take_what_a_stopped_worker_leaves(self, place: Place) -> None:
        """It has fewest connections, and would be the next: nobody waits for it."""
        proxy = place.start(WORKERS="2")
        stopped, other = proxy.worker_pids
        os.kill(stopped, signal.SIGSTOP)
        try:
            for _ in range(20):
                client = place.client(proxy)
                assert client.ask(request()).status == 200
                assert other == worker_of(proxy, client)
        finally:
            os.kill(stopped, signal.SIGCONT)

    def test_a_worker_has_grants_of_its_own(self, place: Place) -> None:
        """Each asks the API once, and serves from memory then."""
        proxy = place.start(WORKERS="2")
        clients = [place.client(proxy) for _ in range(8)]
        for client in clients * 2:
            assert client.ask(request()).status == 200
        used = {worker_of(proxy, client) for client in clients}
        assert (2, 2) == (len(used), len(place.api.asked("instance")))


class TestDeaths:
    """A worker takes its own connections along, and nothing else."""

    def test_235_one_of_two_workers_is_killed(self, place: Place) -> None:
        """Its sockets end and its sessions are closed; those of the other go on, here and at VISA."""
        proxy = place.start(WORKERS="2")
        channels = open_channels(place, proxy, 6)
        killed, kept = proxy.worker_pids
        os.kill(killed, signal.SIGKILL)
        expected = {session: pid == kept for session, (_, pid) in channels.items()}
        place.api.wait(lambda: place.sessions() == expected)
        for client, pid in channels.values():
            assert echoes(client) if pid == kept else client.closed()
        journal = place.directory / "data" / "journal.sqlite3"
        query = "SELECT session_id FROM sessions WHERE closed_at IS NULL"
        alive = {session for session, is_alive in expected.items() if is_alive}
        proxy.wait(lambda: {row[0] for row in rows(journal, query)} == alive)
        proxy.wait(lambda: len(proxy.worker_pids) == 2 and killed not in proxy.worker_pids)
        new = next(pid for pid in proxy.worker_pids if pid != kept)
        proxy.wait(lambda: worker_of(proxy, _served(place, proxy)) == new)
        assert expected == place.sessions()

    def test_235_a_session_on_two_workers_outlives_one_of_them(self, place: Place) -> None:
        """It is open while any connection carries it, and closed once, with the last."""
        proxy = place.start(WORKERS="2")
        clients: dict[int, RawClient] = {}
        while len(clients) < 2:
            client = place.client(proxy)
            assert client.ask(channel("S")).status == 101
            clients[worker_of(proxy, client)] = client
        place.api.wait(lambda: place.sessions() == {"S": True})
        journal = place.directory / "data" / "journal.sqlite3"
        killed, kept = clients
        os.kill(killed, signal.SIGKILL)
        query = "SELECT count(*) FROM connections WHERE ended_at IS NOT NULL"
        proxy.wait(lambda: rows(journal, query) != [(0,)])
        assert echoes(clients[kept])
        assert {"S": True} == place.sessions()
        assert [] == place.api.asked("close")
        assert 0 == proxy.stop()
        assert {"S": False} == place.sessions()
        assert 1 == len(place.api.asked("close"))

    @pytest.mark.slow
    def test_workers_that_hang_are_replaced(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """One is stopped, one spins: both are killed, their sessions closed; the third serves meanwhile."""
        monkeypatch.setenv("PYTHONPATH", in_front_of_pythonpath(INSIDE))
        monkeypatch.setenv("SPINS", "1")
        place.instance.play(_echo_patiently)
        proxy = place.start(WORKERS="3")
        channels = open_channels(place, proxy, 3)
        stopped, spinning, healthy = proxy.worker_pids
        os.kill(stopped, signal.SIGSTOP)
        os.kill(spinning, signal.SIGUSR2)
        expected = {session: pid == healthy for session, (_, pid) in channels.items()}

        def both_are_noticed() -> bool:
            assert place.client(proxy).ask(request()).status == 200
            return len(proxy.records("worker hangs: killing it")) == 2

        wait_long(proxy, both_are_noticed)
        place.api.wait(lambda: place.sessions() == expected)
        proxy.wait(lambda: len(proxy.worker_pids) == 3 and not {stopped, spinning} & {*proxy.worker_pids})
        proxy.wait(lambda: len({worker_of(proxy, _served(place, proxy)) for _ in range(9)}) == 3)
        assert all(echoes(client) for client, pid in channels.values() if pid == healthy)

    def test_workers_that_crash_at_each_start(
        self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are started again and again, more and more slowly; control stays, and says so."""
        monkeypatch.setenv("PYTHONPATH", in_front_of_pythonpath(INSIDE))
        monkeypatch.setenv("CRASH_FILE", str(tmp_path / "crash"))
        proxy = place.start(WORKERS="2")
        channels = open_channels(place, proxy, 2)
        (tmp_path / "crash").write_text("always")
        for pid in proxy.worker_pids:
            os.kill(pid, signal.SIGKILL)
        place.api.wait(lambda: place.sessions() == dict.fromkeys(channels, False))
        proxy.wait(lambda: len(proxy.records("a worker is missing: starting another")) >= 10)
        assert proxy.is_alive()
        waits: dict[int, list[float]] = {0: [], 1: []}
        for record in proxy.records("a worker is missing: starting another"):
            waits[record["place"]].append(record["in_s"])
        for place_waits in waits.values():
            assert all(wait <= 0.1 * 2**n for n, wait in enumerate(place_waits)), place_waits
        last = proxy.records("a worker is missing: starting another")[-1]
        assert ("crit", 0) == (last["level"], last["workers"])
        (tmp_path / "crash").unlink()
        assert place.client(proxy).ask(request()).status == 200
        assert 0 == proxy.stop()

    def test_one_of_two_that_crashes_at_the_first_start(
        self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other serves, and the crashed one is started again."""
        monkeypatch.setenv("PYTHONPATH", in_front_of_pythonpath(INSIDE))
        monkeypatch.setenv("CRASH_FILE", str(tmp_path / "crash"))
        (tmp_path / "crash").write_text("once")
        proxy = place.start(WORKERS="2")
        assert place.client(proxy).ask(request()).status == 200
        proxy.wait(lambda: len({worker_of(proxy, _served(place, proxy)) for _ in range(4)}) == 2)
        assert [3] == [record["status"] for record in proxy.records("worker ended")]

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_none_that_can_start(self, tmp_path: Path, workers: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """At the first start that is the end: status 1, in words, without trying again."""
        monkeypatch.setenv("PYTHONPATH", in_front_of_pythonpath(INSIDE))
        monkeypatch.setenv("CRASH_FILE", str(tmp_path / "crash"))
        (tmp_path / "crash").write_text("always")
        done = subprocess.run(
            [sys.executable, "-m", "visa_jupyter_proxy", "serve"],
            cwd=tmp_path,
            env=environment(tmp_path, "http://127.0.0.1:1/api", {"WORKERS": workers}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (1, int(workers)) == (done.returncode, done.stderr.count('"worker ended"')), done.stderr
        assert "no worker process did start" in done.stderr
        assert "starting another" not in done.stderr
        assert "Traceback" not in done.stderr


class TestPrecedence:
    """Where CPUs are busy, workers come before control."""

    def test_control_gives_way_to_workers(self, place: Place) -> None:
        """All of its threads but the one that starts workers; also one that is started later."""
        proxy = place.start(WORKERS="2")
        place.client(proxy).ask(channel("A"))
        proxy.wait((place.directory / "data" / "journal.sqlite3").exists)
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        killed = proxy.worker_pid
        os.kill(killed, signal.SIGKILL)
        proxy.wait(lambda: len({*proxy.worker_pids} - {killed}) == 2)
        for pid in proxy.worker_pids:
            assert {ours} == {*niceness(pid).values()}
        control = niceness(proxy.pid)
        assert ours + NICENESS == control[proxy.pid]
        assert 1 == [*control.values()].count(ours)
        assert {ours, ours + NICENESS} == {*control.values()}


def niceness(pid: int) -> dict[int, int]:
    """Give the nice value of each thread of a process."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            found[int(thread.name)] = os.getpriority(os.PRIO_PROCESS, int(thread.name))
    return found


class TestLimits:
    """What is counted for the proxy as a whole stays right."""

    def test_connections_in_all_are_divided(self, place: Place) -> None:
        """Three for two workers: a fourth waits although nobody is busy, and enters when one leaves."""
        proxy = place.start(WORKERS="2", MAX_CONNECTIONS="3")
        clients = [place.client(proxy) for _ in range(4)]
        proxy.wait(lambda: len(proxy.records("too many connections: others wait")) == 2)
        assert [1, 2] == sorted(r["connections"] for r in proxy.records("too many connections: others wait"))
        assert 3 == held(proxy)
        for client in clients[:3]:
            assert client.ask(request()).status == 200
        clients[3].send(request())
        assert 3 == held(proxy)
        clients[0].sock.close()
        assert clients[3].response().status == 200

    def test_there_are_no_more_workers_than_connections(self, place: Place) -> None:
        """A worker that may have no connection would be none."""
        proxy = place.start(WORKERS="3", MAX_CONNECTIONS="1")
        assert [1] == [record["workers"] for record in proxy.records("listening")]
        assert 1 == len(proxy.worker_pids)
        assert place.client(proxy).ask(request()).status == 200

    def test_connections_of_an_address_are_counted_together(self, place: Place) -> None:
        """Whichever worker they are on; other addresses, and those that have left, do not count."""
        proxy = place.start(WORKERS="2", MAX_CONNECTIONS_PER_ADDRESS="5")
        clients = [_served(place, proxy) for _ in range(5)]
        assert 2 == len({worker_of(proxy, client) for client in clients})
        for _ in range(4):
            assert _is_refused(proxy)
        with socket.create_connection(
            ("127.0.0.1", proxy.port), timeout=20, source_address=("127.0.0.9", 0)
        ) as other:
            other.sendall(get("/nope"))
            assert other.recv(100).startswith(b"HTTP/1.1 404 ")
        clients.pop().sock.close()
        proxy.wait(lambda: held(proxy) == 4)
        proxy.wait(lambda: _enters(place, proxy))
        assert _is_refused(proxy)

    def test_connections_of_a_worker_that_died_do_not_count(self, place: Place) -> None:
        """They are gone with it."""
        proxy = place.start(WORKERS="2", MAX_CONNECTIONS_PER_ADDRESS="4")
        clients = [_served(place, proxy) for _ in range(4)]
        workers = Counter(worker_of(proxy, client) for client in clients)
        assert 2 == len(workers)
        killed = next(iter(workers))
        os.kill(killed, signal.SIGKILL)
        proxy.wait(lambda: proxy.records("worker ended"))
        for _ in range(workers[killed]):
            proxy.wait(lambda: _enters(place, proxy))
        assert _is_refused(proxy)


class TestEnd:
    """All workers end together, in order, and in time."""

    def test_226_running_requests_of_all_workers_are_answered(self, place: Place) -> None:
        """Then the journal is written, VISA is told, and the status is 0."""
        late = threading.Event()
        place.instance.play(lambda connection: _answer_when(late, connection))
        proxy = place.start(WORKERS="2")
        clients = _asking(place, proxy, 6)
        assert 2 == len({worker_of(proxy, client) for client in clients})
        proxy.signal(signal.SIGTERM)
        proxy.wait(lambda: _refuses_connections(proxy.port))
        late.set()
        for client in clients:
            response = client.response()
            assert (b"late", b"close") == (response.body, response.one("connection"))
        assert 0 == proxy.exit_status()
        assert [0, 0] == [record["status"] for record in proxy.records("worker ended")]

    def test_226_a_worker_that_hangs_does_not_delay_the_end(self, place: Place) -> None:
        """It is killed when its time is over, within Docker's ten seconds; sessions of all are closed.

        It has used up the time for reports as well: those that are left are the next process's.
        """
        proxy = place.start(WORKERS="2", DRAIN_S="4")
        channels = open_channels(place, proxy, 4)
        os.kill(proxy.worker_pids[0], signal.SIGSTOP)
        began = time.monotonic()
        assert 0 == proxy.stop()
        assert time.monotonic() - began < DOCKERS_PATIENCE_S
        again = proxy.start_again()
        try:
            place.api.wait(lambda: place.sessions() == dict.fromkeys(channels, False))
        finally:
            again.kill()

    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    def test_228_a_second_signal_ends_all_at_once(self, place: Place, second: signal.Signals) -> None:
        """Although each has a running request."""
        place.instance.play(_never_answer)
        proxy = place.start(WORKERS="2", DRAIN_S="600")
        _asking(place, proxy, 4)
        workers = proxy.worker_pids
        proxy.signal(signal.SIGTERM)
        proxy.wait(lambda: proxy.records("stopping"))
        proxy.signal(second)
        assert 128 + second == proxy.exit_status()
        proxy.wait(lambda: not any(runs(pid) for pid in workers))

    def test_control_that_is_killed(self, place: Place) -> None:
        """Every worker finishes what is running, accepts nobody, and exits."""
        late = threading.Event()
        place.instance.play(lambda connection: _answer_when(late, connection))
        proxy = place.start(WORKERS="2")
        clients = _asking(place, proxy, 4)
        workers = proxy.worker_pids
        os.kill(proxy.pid, signal.SIGKILL)
        proxy.wait(lambda: len(proxy.records("control is gone: draining")) == 2)
        proxy.wait(lambda: _refuses_connections(proxy.port))
        late.set()
        for client in clients:
            assert b"late" == client.response().body
        proxy.wait(lambda: not any(runs(pid) for pid in workers))

    def test_a_stop_while_workers_are_starting(self, tmp_path: Path) -> None:
        """Nobody is waited for, and nobody stays."""
        settings = {"WORKERS": "2", "DRAIN_S": "600"}
        with socket.create_server(("127.0.0.1", 0)) as sock:
            settings["SERVER_PORT"] = str(sock.getsockname()[1])
        proxy = RunningProxy(tmp_path, environment(tmp_path, "http://127.0.0.1:1/api", settings))
        try:
            proxy.wait(lambda: proxy.worker_pids)
            workers = proxy.worker_pids
            assert 0 == proxy.stop()
            assert not any(runs(pid) for pid in workers)
        finally:
            proxy.kill()


class TestBetween:
    """A worker whose control changes its mind, or is gone, before the worker has begun."""

    @pytest.mark.parametrize("message", [Drain(seconds=600), None], ids=["told-to-end", "control-gone"])
    def test_it_ends_at_once(self, message: Drain | None) -> None:
        """Both have come with the first message: there is nothing to drain."""
        settings = Settings(working_directory=Path.cwd()).for_worker()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                for one in (Start(settings=settings, routes=(), pages={}), message):
                    body = b"" if one is None else msgspec.msgpack.encode(one)
                    ours.sendall(len(body).to_bytes(4, "big") + body if body else b"")
                if message is None:
                    ours.close()
                descriptors = (listener.fileno(), theirs.fileno())
                done = subprocess.run(
                    [sys.executable, "-P", "-m", "visa_jupyter_proxy.worker", *map(str, descriptors)],
                    pass_fds=descriptors,
                    capture_output=True,
                    timeout=60,
                    check=False,
                )
        assert (0, b"") == (done.returncode, done.stderr)


def _served(place: Place, proxy: RunningProxy) -> RawClient:
    client = place.client(proxy)
    assert client.ask(request()).status == 200
    return client


def _enters(place: Place, proxy: RunningProxy) -> bool:
    """Whether another client is served; it stays when it is."""
    try:
        client = place.client(proxy)
        client.send(request())
    except ConnectionError:
        return False
    return client.more()


def _is_refused(proxy: RunningProxy) -> bool:
    try:
        with RawClient(proxy.port) as client:
            client.send(get("/nope", token=TOKEN))
            return client.closed()
    except ConnectionError:
        return True


def _echo_patiently(connection: Connection) -> None:
    connection.sock.settimeout(_PATIENCE_S)
    echo(connection)


def _answer_when(event: threading.Event, connection: Connection) -> None:
    connection.request()
    if event.wait(20):
        connection.send(ok(b"late"))


def _never_answer(connection: Connection) -> None:
    connection.request()
    connection.rest()


def _asking(place: Place, proxy: RunningProxy, count: int) -> list[RawClient]:
    """Have so many clients ask; the instance has got all of it."""
    clients = [place.client(proxy) for _ in range(count)]
    for client in clients:
        client.send(request())
    place.instance.wait(lambda: len(place.instance.requests) == count)
    return clients


def _refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False
