"""A reload: other settings and services from the next request on, and nobody notices."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from process.conftest import NUMBER, TOKEN, Place, channel, path, request
from support.client import RawClient, get
from support.instance import Connection, ok
from support.proxy import PREFIX, RunningProxy, environment

RELOADS: Final = 10


def services(place: Place, *names: str, **keys: object) -> list[dict[str, Any]]:
    """Make services of these names at these paths, all at the one instance."""
    return [
        {
            "match": rf"^/{name}/(\d+).*",
            "type": "jupyter",
            "name": name,
            "remotePort": place.instance.port,
            "ws": True,
            **keys,
        }
        for name in names
    ]


def write(place: Place, document: object) -> None:
    """Write `proxy.conf.json`."""
    (place.directory / "proxy.conf.json").write_text(json.dumps(document))


def reload(proxy: RunningProxy) -> None:
    """Send SIGHUP, and wait until it is done: the worker knows when a connection made now is served."""
    before = len(proxy.records("reloaded"))
    proxy.signal(signal.SIGHUP)
    proxy.wait(lambda: len(proxy.records("reloaded")) > before)
    proxy.states()  # every worker answers this behind what it was told before


def command(place: Place, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run `reload` as the operator does, in the same directory and environment."""
    return subprocess.run(
        [sys.executable, "-m", "visa_jupyter_proxy", "reload", *words],
        cwd=place.directory,
        env=environment(place.directory, place.api.url, settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def status(proxy: RunningProxy, target: str, *fields: str) -> int:
    """Make a request on a connection of its own, and give the status."""
    with RawClient(proxy.port) as client:
        return client.ask(get(target, *fields, token=TOKEN)).status


@pytest.fixture
def draining() -> threading.Event:
    """Make what the instance waits for."""
    return threading.Event()


def answer_when(connection: Connection, over: threading.Event) -> None:
    """Answer `/slow` only when it is `over`."""
    while not connection.request().target.endswith(b"/slow"):
        connection.send(ok())
    assert over.wait(60)
    connection.send(ok())


@contextmanager
def next_one(proxy: RunningProxy) -> Iterator[RunningProxy]:
    """Start another process in the same directory, while that one stops."""
    after = RunningProxy(proxy.directory, proxy._environment, log_name="after.log")
    try:
        after.wait_until_it_listens()
        yield after
    finally:
        after.kill()


class TestServices:
    """`proxy.conf.json` is swapped whole."""

    def test_a_new_service_serves_and_an_old_one_does_not(self, place: Place) -> None:
        """From the next request on, on a connection that was there before, too."""
        proxy = place.start()
        client = place.client(proxy)
        assert client.ask(request()).status == 200
        assert client.ask(get(f"/other/{NUMBER}/x", token=TOKEN)).status == 404
        write(place, services(place, "other"))
        reload(proxy)
        assert client.ask(get(f"/other/{NUMBER}/x", token=TOKEN)).status == 200
        assert client.ask(request()).status == 404

    def test_what_is_under_way_on_a_service_that_vanishes_goes_on(self, place: Place) -> None:
        """A request gets its whole answer, and a WebSocket stays open."""
        proxy = place.start()
        tunnel, running = place.client(proxy), place.client(proxy)
        assert tunnel.ask(channel("S")).status == 101
        reloaded = threading.Event()

        def late(connection: Connection) -> None:
            connection.request()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
            assert reloaded.wait(60)
            connection.send(b"lf")

        place.instance.play(late)
        running.send(request())
        place.instance.wait(lambda: len(place.instance.requests) == 2)
        write(place, services(place, "other"))
        reload(proxy)
        reloaded.set()
        assert b"half" == running.response().body
        tunnel.send(b"\x81\x80abcd")
        assert b"\x81\x80abcd" == tunnel.exactly(6)
        assert 404 == status(proxy, path())

    def test_a_worker_that_is_started_later_goes_by_it_too(self, place: Place) -> None:
        """What was reloaded is what the next one is told."""
        proxy = place.start()
        write(place, services(place, "other"))
        reload(proxy)
        worker = proxy.worker_pid
        os.kill(worker, signal.SIGKILL)
        proxy.wait(lambda: proxy.worker_pids and proxy.worker_pid != worker)
        assert 200 == status(proxy, f"/other/{NUMBER}/x")

    def test_values_of_the_instance_that_nobody_wanted_before(self, place: Place) -> None:
        """`setHeaders` may name them: who was granted without them is granted anew."""
        proxy = place.start()
        assert 200 == status(proxy, path())
        write(place, services(place, "jupyter", setHeaders={"x-owner": "{owner}"}))
        reload(proxy)
        assert 200 == status(proxy, path())
        assert b"anna" == place.instance.requests[-1].one("x-owner")


class TestSettings:
    """Those that a reload changes; the others are named."""

    def test_they_are_read_from_dot_env(self, place: Place) -> None:
        """With several workers, all of them."""
        dot_env = place.directory / ".env"
        dot_env.write_text(f"{PREFIX}HEAD_FIELDS=50\n")
        proxy = place.start(WORKERS="2")
        fields = [f"X-{number}: 1" for number in range(30)]
        assert {200} == {status(proxy, path(), *fields) for _ in range(6)}
        dot_env.write_text(f"{PREFIX}HEAD_FIELDS=20\n")
        reload(proxy)
        assert {431} == {status(proxy, path(), *fields) for _ in range(6)}
        assert {200} == {status(proxy, path()) for _ in range(6)}
        assert "HEAD_FIELDS" == proxy.records("reloaded")[-1]["changed"]

    def test_networks_hold_for_grants_that_were_there(self, place: Place) -> None:
        """An instance that may not be reached any more is not reached."""
        dot_env = place.directory / "networks"
        dot_env.write_text("127.0.0.0/8")
        proxy = place.start(INSTANCE_NETWORKS="", INSTANCE_NETWORKS_FILE=str(dot_env))
        assert 200 == status(proxy, path())
        dot_env.write_text("10.0.0.0/8")
        reload(proxy)
        assert 502 == status(proxy, path())

    def test_what_needs_a_start_is_kept_and_named(self, place: Place) -> None:
        """All else is changed."""
        dot_env = place.directory / ".env"
        proxy = place.start()
        dot_env.write_text(f"{PREFIX}WORKERS=3\n{PREFIX}HEAD_FIELDS=20\n{PREFIX}SESSION_RETENTION_DAYS=9\n")
        done = command(place)
        assert 0 == done.returncode, done.stderr
        assert "Changed: HEAD_FIELDS." in done.stdout
        assert "Changes at the next start: SESSION_RETENTION_DAYS, WORKERS." in done.stdout
        record = proxy.records("reloaded")[-1]
        assert ("HEAD_FIELDS", "SESSION_RETENTION_DAYS, WORKERS") == (
            record["changed"],
            record["at_the_next_start"],
        )
        assert 1 == len(proxy.worker_pids)

    def test_fewer_connections_than_workers_are_a_mistake(self, place: Place) -> None:
        """Each worker has a part of them, and 0 would be any number."""
        proxy = place.start(WORKERS="2")
        (place.directory / ".env").write_text(f"{PREFIX}MAX_CONNECTIONS=1\n")
        done = command(place)
        assert (2, True) == (done.returncode, "MAX_CONNECTIONS" in done.stderr)
        assert 200 == status(proxy, path())

    def test_fewer_connections_end_none(self, place: Place) -> None:
        """New ones wait until there are fewer."""
        proxy = place.start()
        clients = [place.client(proxy) for _ in range(3)]
        for client in clients:
            assert client.ask(request()).status == 200
        (place.directory / ".env").write_text(f"{PREFIX}MAX_CONNECTIONS=2\n")
        reload(proxy)
        waiting = place.client(proxy)
        waiting.send(request())
        for client in clients:
            assert client.ask(request()).status == 200
        waiting.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            waiting.more()
        waiting.sock.settimeout(20)
        clients[0].sock.close()
        clients[1].sock.close()
        assert 200 == waiting.response().status


class TestMistakes:
    """With one, the old configuration stays, whole."""

    @pytest.mark.parametrize(
        ("file", "text", "said"),
        [
            ("proxy.conf.json", "[{]", "proxy.conf.json:1:3"),
            (".env", f"{PREFIX}IDLE_TIMEOUT_S=soon\n", f"{PREFIX}IDLE_TIMEOUT_S"),
        ],
    )
    def test_every_one_is_said(self, place: Place, file: str, text: str, said: str) -> None:
        """To who asks, with status 2, and in the log; nothing of the rest is taken."""
        proxy = place.start()
        if file == ".env":
            write(place, services(place, "other"))
        (place.directory / file).write_text(text)
        done = command(place)
        assert (2, True) == (done.returncode, said in done.stderr), done.stderr
        proxy.signal(signal.SIGHUP)
        proxy.wait(lambda: proxy.records("not reloaded: the old configuration stays"))
        assert said in proxy.records("not reloaded: the old configuration stays")[-1]["mistake"]
        assert 200 == status(proxy, path())
        assert 404 == status(proxy, f"/other/{NUMBER}/x")

    @pytest.mark.parametrize("left", ["nothing", "a link to nothing"])
    def test_services_whose_file_is_gone(self, place: Place, left: str) -> None:
        """Those in the package do not take their place while nobody looks: what is named is put back."""
        proxy = place.start()
        file = place.directory / "proxy.conf.json"
        written = file.rename(place.directory / "elsewhere.json")
        if left != "nothing":
            file.symlink_to(place.directory / "nowhere.json")
        done = command(place)
        assert (2, True) == (done.returncode, str(file) in done.stderr), done.stderr
        assert 200 == status(proxy, path())
        written.rename(file)
        assert 0 == command(place).returncode

    def test_sighup_ends_nobody(self, place: Place) -> None:
        """Not even workers, to which a terminal sends it too."""
        proxy = place.start()
        write(place, [{}])
        proxy.signal(signal.SIGHUP)
        proxy.wait(lambda: proxy.records("not reloaded: the old configuration stays"))
        os.kill(proxy.worker_pid, signal.SIGHUP)
        assert 200 == status(proxy, path())


class TestCommand:
    """`visa-jupyter-proxy reload` finds the process by its directory."""

    def test_nobody_is_there(self, place: Place) -> None:
        """Status 1, which directory was meant, and what is not there."""
        done = command(place)
        assert (1, True) == (done.returncode, "(STORAGE_DIR): there is no such directory" in done.stderr)
        (place.directory / "data").mkdir()
        done = command(place)
        assert (1, True) == (done.returncode, "control.sock, which one that starts makes" in done.stderr)

    def test_one_that_was_killed_is_not_there(self, place: Place) -> None:
        """Its file is; the next process takes its place."""
        proxy = place.start()
        proxy.kill()
        done = command(place)
        assert (1, True) == (done.returncode, "control.sock was killed" in done.stderr), done.stderr
        again = proxy.start_again()
        try:
            assert 0 == command(place).returncode
        finally:
            again.kill()

    def test_a_stopped_one_leaves_no_file(self, place: Place) -> None:
        """And while it runs, nobody else may open it."""
        proxy = place.start()
        file = place.directory / "data" / "control.sock"
        proxy.wait(file.exists)
        assert 0o600 == file.stat().st_mode & 0o777
        assert 0 == proxy.stop()
        assert not file.exists()

    def test_json(self, place: Place) -> None:
        """What has changed, and what has not, by the names that people are told, too."""
        proxy = place.start()
        (place.directory / ".env").write_text(f"{PREFIX}WORKERS=3\n{PREFIX}HEAD_FIELDS=20\n")
        done = command(place, "--json")
        assert {
            "pid": proxy.pid,
            "changed": ["HEAD_FIELDS"],
            "at_the_next_start": ["WORKERS"],
            "warnings": [],
            "mistakes": [],
        } == json.loads(done.stdout)
        write(place, [])
        done = command(place, "--json")
        assert (2, True) == (done.returncode, "is empty" in json.loads(done.stdout)["mistakes"][0])

    def test_one_that_stops_says_so(self, place: Place, draining: threading.Event) -> None:
        """It runs, and reads nothing any more: status 1."""
        place.instance.play(lambda connection: answer_when(connection, draining))
        proxy = place.start(DRAIN_S="60")
        client = place.client(proxy)
        client.send(request("/slow"))
        place.instance.wait(lambda: place.instance.requests)
        proxy.signal(signal.SIGTERM)
        proxy.wait(lambda: proxy.records("stopping"))
        done = command(place)
        assert (1, True) == (done.returncode, f"process {proxy.pid} on " in done.stderr)
        assert "is stopping: it has not reloaded" in done.stderr
        # Whoever starts meanwhile is the one who is asked from then on.
        with next_one(proxy) as after:
            after.wait(lambda: f"process {proxy.pid} on " not in command(place).stderr)
            draining.set()
            assert 200 == client.response().status
            assert 0 == proxy.exit_status()
            assert 0 == command(place).returncode

    @pytest.mark.parametrize("gone", ["the file", "the directory"])
    def test_a_file_that_somebody_has_deleted(self, place: Place, gone: str) -> None:
        """It is made again, and the log says so: the process can be asked as before."""
        proxy = place.start()
        directory = place.directory / "data"
        proxy.wait((directory / "control.sock").exists)
        if gone == "the file":
            (directory / "control.sock").unlink()
        else:
            shutil.rmtree(directory)
        proxy.wait(lambda: proxy.records("the control socket was not there: it has been made"))
        assert 0 == command(place).returncode
        assert 0 == proxy.stop()
        assert not (directory / "control.sock").exists()

    def test_a_directory_with_a_long_name(self, place: Place) -> None:
        """The path of a socket may have 107 bytes: that is not for people to know."""
        storage = {"STORAGE_DIR": str(place.directory / ("d" * 200))}
        place.start(**storage)
        assert 0 == command(place, **storage).returncode


def test_under_load(place: Place) -> None:
    """Every request of some busy clients is answered while services and settings change all the time."""
    proxy = place.start()
    write(place, services(place, "jupyter", "other"))
    over = threading.Event()
    counts: list[int] = []

    def work() -> None:
        count = 0
        with RawClient(proxy.port) as client:
            while not over.is_set():
                assert client.ask(request()).status == 200
                count += 1
        counts.append(count)

    tunnel = place.client(proxy)
    assert tunnel.ask(channel("S")).status == 101
    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for number in range(RELOADS):
        write(place, services(place, "jupyter", *["other"] * (number % 2), maxBodyBytes=1000 + number))
        reload(proxy)
    over.set()
    for worker in workers:
        worker.join(60)
    assert 8 == len(counts), "a client was not answered"
    tunnel.send(b"\x81\x80abcd")
    assert b"\x81\x80abcd" == tunnel.exactly(6)
    assert RELOADS == len(proxy.records("reloaded"))
