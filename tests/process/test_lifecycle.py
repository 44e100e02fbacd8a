"""Start and stop, as an operator and a service manager see them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from process.conftest import NUMBER, TOKEN, Place, channel, is_told_to_come_back, path, request
from support.client import RawClient, get, upgrade
from support.instance import Connection, ok
from support.proxy import PREFIX, environment, runs
from support.visa_api import Answer, Hold

DOCKERS_PATIENCE_S: Final = 10.0
"""From SIGTERM to SIGKILL (contract section 5)."""


def _serve(directory: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "visa_jupyter_proxy", "serve"],
        cwd=directory,
        env=environment(directory, "http://127.0.0.1:1/api", settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


class TestStart:
    """What stops it from starting is said in words, with a status of its own."""

    def test_231_every_wrong_setting_is_named(self, tmp_path: Path) -> None:
        """All mistakes at once, each with name and value; status 2; nothing listens."""
        done = _serve(tmp_path, SERVER_PORT="abc", CACHE_REFRESH_TIME_S="60s", LOG_LEVEL="verbose")
        assert 2 == done.returncode
        for name, value in (
            ("SERVER_PORT", "abc"),
            ("CACHE_REFRESH_TIME_S", "60s"),
            ("LOG_LEVEL", "verbose"),
        ):
            assert any(PREFIX + name in line and value in line for line in done.stderr.splitlines()), (
                done.stderr
            )

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('[{"match": "^/a/(\\\\d+)" "type": "service"}]', "line 1"),
            ('[{"match": "^/a/", "type": "service", "name": "A", "remotePort": 1}]', "$[0].match"),
            ('[{"match": "^/a/(", "type": "service", "name": "A", "remotePort": 1}]', "$[0].match"),
            ('[{"match": "^/a/(.)", "type": "servce", "name": "A", "remotePort": 1}]', "$[0].type"),
            (
                '[{"match": "^/a/(.)", "type": "service", "name": "A", "remotePort": 70000}]',
                "$[0].remotePort",
            ),
            ('[{"match": "^/a/(.)", "type": "service", "name": "A", "remotePort": 1, "wss": true}]', "wss"),
        ],
    )
    def test_231_a_wrong_route_is_named(self, tmp_path: Path, text: str, said: str) -> None:
        """File and place of the mistake; status 2."""
        (tmp_path / "proxy.conf.json").write_text(text)
        done = _serve(tmp_path)
        assert 2 == done.returncode
        assert "proxy.conf.json" in done.stderr
        assert said in done.stderr.replace(":1:", "line 1"), done.stderr

    def test_231_the_missing_comma_of_the_originals_documentation(self, tmp_path: Path) -> None:
        """File, line and column of the place where it is missing; status 2."""
        lines = [
            "[",
            "  {",
            '    "match": "^/jupyter/(.*)",',
            '    "type": "jupyter"',
            '    "name": "Jupyter",',
        ]
        (tmp_path / "proxy.conf.json").write_text("\n".join([*lines, '    "remotePort": 8888', "  }", "]"]))
        done = _serve(tmp_path)
        assert (2, False) == (done.returncode, "Traceback" in done.stderr)
        assert "proxy.conf.json:5:5" in done.stderr, done.stderr

    def test_231_a_port_in_use(self, tmp_path: Path) -> None:
        """Named with its setting; status 1, and no traceback."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            done = _serve(tmp_path, SERVER_PORT=str(taken.getsockname()[1]))
        assert (1, True, False) == (
            done.returncode,
            f"{PREFIX}SERVER_PORT" in done.stderr,
            "Traceback" in done.stderr,
        )

    def test_231_a_second_start_on_the_same_port(self, place: Place) -> None:
        """Says which process is there already and what to do instead, nothing twice; that one serves on."""
        proxy = place.start()
        done = _serve(place.directory, SERVER_PORT=str(proxy.port), STORAGE_DIR=str(place.directory / "data"))
        assert 1 == done.returncode
        assert 1 == done.stderr.count("Address already in use;"), done.stderr
        assert 1 == done.stderr.count(str(proxy.port)), done.stderr
        assert f"STORAGE_DIR already, process {proxy.pid}: `visa-jupyter-proxy reload`" in done.stderr
        assert "`visa-jupyter-proxy serve --take-over`" in done.stderr
        assert 200 == place.client(proxy).ask(request()).status

    def test_settings_from_a_dot_env_file(self, place: Place) -> None:
        """`.env` of the working directory counts; the environment wins."""
        (place.directory / ".env").write_text(
            f"{PREFIX}LOG_LEVEL=warning\nFOREIGN=1\n{PREFIX}IDLE_TIMEOUT_S=33\n"
        )
        proxy = place.start(LOG_LEVEL="info")
        assert proxy.is_alive()

    def test_version(self) -> None:
        """`--version` names program and version."""
        done = subprocess.run(
            [sys.executable, "-m", "visa_jupyter_proxy", "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("visa-jupyter-proxy 4.")

    def test_what_is_logged_when_nothing_is_set(self, place: Place) -> None:
        """Every refusal, and every WebSocket when it ends, a kernel's or not; no request that goes well."""
        proxy = place.start(ACCESS_LOG="")
        client = place.client(proxy)
        assert client.ask(request()).status == 200
        assert client.ask(get("/nope")).status == 404
        for asked in (channel("S"), upgrade(path("/terminals/websocket/1"), "User-Agent: B/1", token=TOKEN)):
            client = place.client(proxy)
            assert client.ask(asked).status == 101
            client.finish()
            client.rest()
        proxy.wait(lambda: len(proxy.records("tunnel")) == 2)
        assert ["no_route"] == [record["reason"] for record in proxy.records("request")]
        kernel, terminal = sorted(proxy.records("tunnel"), key=lambda record: str(record["path"]))
        for record in (kernel, terminal):
            assert ("info", 101, "GET", NUMBER, "127.0.0.1") == tuple(
                record[name] for name in ("level", "status", "method", "instance", "client")
            )
        assert ("B/1", path("/terminals/websocket/1")) == (terminal["user_agent"], terminal["path"])


class TestStop:
    """SIGTERM and SIGINT drain; a second one does not wait."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_226_228_a_running_request_is_answered(self, place: Place, number: signal.Signals) -> None:
        """It gets its whole answer with `Connection: close`; new connections are refused; exit status 0."""
        place.instance.play(_answer_when_refused_outside)
        proxy = place.start()
        place.instance.received.append(str(proxy.port).encode())
        client = place.client(proxy)
        client.send(request())
        place.instance.wait(lambda: place.instance.requests)
        proxy.signal(number)
        response = client.response()
        assert (b"late", b"close") == (response.body, response.one("connection"))
        assert client.closed()
        assert 0 == proxy.exit_status()

    def test_226_an_idle_connection_is_closed(self, place: Place) -> None:
        """A kept-alive connection without a request ends a moment later: one may be on its way."""
        proxy = place.start()
        client = place.client(proxy)
        assert client.ask(request()).status == 200
        proxy.signal(signal.SIGTERM)
        assert client.closed()
        assert 0 == proxy.exit_status()

    def test_210_226_open_notebooks_are_closed_and_reported(self, place: Place) -> None:
        """The tunnel ends, VISA is told, and the exit status is 0 within the grace."""
        proxy = place.start()
        client = place.client(proxy)
        assert client.ask(channel("S")).status == 101
        place.api.wait(lambda: place.sessions() == {"S": True})
        proxy.signal(signal.SIGTERM)
        assert is_told_to_come_back(client)
        assert 0 == proxy.exit_status()
        assert {"S": False} == place.sessions()

    def test_226_nothing_is_left_of_what_has_ended(self, place: Place) -> None:
        """With all connections gone it ends at once, however long `DRAIN_S` is."""
        proxy = place.start(DRAIN_S="600")
        client = place.client(proxy)
        assert client.ask(channel("S")).status == 101
        client.finish()
        assert client.closed()
        place.api.wait(lambda: place.sessions() == {"S": False})
        assert place.client(proxy).ask(request()).status == 200
        assert 0 == proxy.stop()

    def test_226_nothing_is_left_of_clients_that_left_while_we_connected(self, place: Place) -> None:
        """Whenever a client resets, the connection that was made for it ends."""
        proxy = place.start(DRAIN_S="600")
        assert place.client(proxy).ask(request()).status == 200
        for _ in range(300):
            client = RawClient(proxy.port)
            client.send(request())
            client.reset()
        assert place.client(proxy).ask(request()).status == 200
        assert 0 == proxy.stop()
        assert [] == proxy.records("control is gone: draining")

    def test_226_an_api_that_hangs_does_not_delay_the_end(self, place: Place) -> None:
        """What could not be reported is kept, and the next process reports it."""
        proxy = place.start(DRAIN_S="3")
        client = place.client(proxy)
        assert client.ask(channel("S")).status == 101
        place.api.wait(lambda: place.sessions() == {"S": True})
        hold = Hold()
        place.api.always("close", Answer(hold=hold))
        began = time.monotonic()
        assert 0 == proxy.stop()
        assert time.monotonic() - began < DOCKERS_PATIENCE_S
        assert {"S": True} == place.sessions()
        place.api.always("close", None)
        hold.release()
        again = proxy.start_again()
        try:
            place.api.wait(lambda: place.sessions() == {"S": False})
        finally:
            again.kill()

    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    def test_228_a_second_signal_ends_at_once(self, place: Place, second: signal.Signals) -> None:
        """Although a request is still running, control and worker are gone; the status says by what."""
        place.instance.play(lambda connection: void(connection.request(), connection.rest()))
        proxy = place.start(DRAIN_S="600")
        client = place.client(proxy)
        client.send(request())
        place.instance.wait(lambda: place.instance.requests)
        worker = proxy.worker_pid
        proxy.signal(signal.SIGTERM)
        proxy.wait(lambda: proxy.records("stopping"))
        assert proxy.is_alive()
        proxy.signal(second)
        assert 128 + second == proxy.exit_status()
        proxy.wait(lambda: not runs(worker))

    @pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, "2"), (signal.SIGINT, "1")])
    def test_228_as_process_1_of_a_container(
        self, place: Place, number: signal.Signals, workers: str
    ) -> None:
        """The kernel gives process 1 no default for a signal: it serves, drains and exits all the same."""
        container = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
        if os.getuid() != 0:
            container.append("--map-root-user")
        if subprocess.run([*container, "true"], capture_output=True, check=False).returncode != 0:
            pytest.skip("no process namespaces here")
        proxy = place.start(under=container, WORKERS=workers)
        control = proxy.worker_pid  # the child of `unshare`
        assert "1" == Path(f"/proc/{control}/status").read_text().partition("NSpid:")[2].split()[1]
        client = place.client(proxy)
        assert client.ask(channel("S")).status == 101
        place.api.wait(lambda: place.sessions() == {"S": True})
        os.kill(control, number)
        assert is_told_to_come_back(client)
        assert 0 == proxy.exit_status()
        assert {"S": False} == place.sessions()

    def test_226_a_request_that_never_ends_is_cut(self, place: Place) -> None:
        """At the end of `DRAIN_S` it is over, and the exit status is still 0."""
        place.instance.play(lambda connection: void(connection.request(), connection.rest()))
        proxy = place.start(DRAIN_S="1")
        client = place.client(proxy)
        client.send(request())
        place.instance.wait(lambda: place.instance.requests)
        assert 0 == proxy.stop()


class TestDeaths:
    """A process that dies takes only its own connections along."""

    def test_a_worker_that_is_killed(self, place: Place) -> None:
        """Another one serves on, and the notebooks of the dead one are closed at VISA."""
        proxy = place.start()
        client = place.client(proxy)
        assert client.ask(channel("S")).status == 101
        place.api.wait(lambda: place.sessions() == {"S": True})
        os.kill(proxy.worker_pid, signal.SIGKILL)
        place.api.wait(lambda: place.sessions() == {"S": False})
        assert place.client(proxy).ask(request()).status == 200

    def test_control_that_is_killed(self, place: Place) -> None:
        """A worker that has lost control ends by itself."""
        proxy = place.start()
        assert place.client(proxy).ask(get("/nope")).status == 404
        worker = proxy.worker_pid
        os.kill(proxy.pid, signal.SIGKILL)
        proxy.wait(lambda: not runs(worker))

    def test_215_everything_is_killed_with_open_notebooks_while_the_api_is_away(self, place: Place) -> None:
        """After a restart, and when the API is back, every session is closed there, once."""
        proxy = place.start()
        clients = [place.client(proxy) for _ in range(101)]
        for number, client in enumerate(clients):
            assert client.ask(channel(f"S{number}")).status == 101
        place.api.wait(lambda: len(place.sessions()) == 101)
        place.api.down()
        proxy.kill()
        again = proxy.start_again()
        try:
            moved = place.client(again)
            place.api.up()
            # One browser has come back meanwhile: its session is alive, and stays so.
            assert moved.ask(channel("S0")).status == 101
            expected = {f"S{number}": number == 0 for number in range(101)}
            _wait_patiently(lambda: place.sessions() == expected)
            closes = [r.body for r in place.api.requests if r.endpoint == "close"]
            assert 100 == len(closes)
            assert not any(b'"S0"' in body for body in closes)
        finally:
            again.kill()


def void(*_: object) -> None:
    """Evaluate, and give nothing."""


def _wait_patiently(condition: Callable[[], object]) -> None:
    """Wait for what takes 15 s by design: nobody is declared dead sooner."""
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _answer_when_refused_outside(connection: Connection) -> None:
    """Answer only when the proxy accepts no new connection any more."""
    connection.request()
    port = int(connection.instance.received[0])

    def refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except ConnectionRefusedError:
            return True
        return False

    connection.instance.wait(refused)
    connection.send(ok(b"late"))
