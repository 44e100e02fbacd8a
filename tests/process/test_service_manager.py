"""Started by systemd, or what speaks like it: the socket that it opens, and what it is told."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from process.conftest import Place, request
from support.client import RawClient
from support.proxy import environment
from visa_jupyter_proxy.control.listener import listen
from visa_jupyter_proxy.settings import load

OPENS = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="visa-jupyter-proxy.socket")
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""What systemd does with `ListenStream=127.0.0.1:...`."""


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.settimeout(60)

    def told(self) -> dict[str, str]:
        """Wait for the next thing that it is told, but that somebody lives."""
        while (lines := self._sock.recv(4096).decode()) == "WATCHDOG=1":
            pass
        return dict(line.split("=", 1) for line in lines.splitlines())

    def is_told_of_life(self) -> bool:
        """Wait until it is told so."""
        while self._sock.recv(4096) != b"WATCHDOG=1":
            pass
        return True

    def close(self) -> None:
        """Listen no more."""
        self._sock.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Listen, and have the processes that are started know where."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


class TestWhatItIsTold:
    """sd_notify(3)."""

    def test_ready_reloading_and_stopping(self, place: Place, manager: Manager) -> None:
        """READY=1 means that requests are served."""
        proxy = place.start()
        assert "1" == manager.told()["READY"]
        assert 200 == place.client(proxy).ask(request()).status
        proxy.signal(signal.SIGHUP)
        told = manager.told()
        assert ("1", True) == (told["RELOADING"], told["MONOTONIC_USEC"].isdecimal())
        assert "1" == manager.told()["READY"]
        (place.directory / "proxy.conf.json").write_text("[")
        proxy.signal(signal.SIGHUP)
        assert "1" == manager.told()["RELOADING"]
        assert "1" == manager.told()["READY"], "with the old configuration"
        proxy.signal(signal.SIGTERM)
        assert "1" == manager.told()["STOPPING"]
        assert 0 == proxy.exit_status()

    def test_the_watchdog(self, place: Place, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is told in half the time after which it would act."""
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        place.start()
        assert manager.is_told_of_life()
        assert manager.is_told_of_life()

    def test_a_watchdog_of_another_process(
        self, place: Place, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """WATCHDOG_PID says whose it is."""
        monkeypatch.setenv("WATCHDOG_USEC", "1000")
        monkeypatch.setenv("WATCHDOG_PID", "1")
        proxy = place.start()
        assert "1" == manager.told()["READY"]
        proxy.signal(signal.SIGTERM)
        assert "1" == manager.told()["STOPPING"]
        assert 0 == proxy.exit_status()

    def test_who_takes_over_is_the_one_to_be_watched(self, place: Place, manager: Manager) -> None:
        """The old process says so before the new one is ready, and nothing after it."""
        proxy = place.start()
        assert "1" == manager.told()["READY"]
        after = proxy.start_successor()
        try:
            assert {"MAINPID": str(after.pid)} == manager.told()
            assert "1" == manager.told()["READY"]
            assert 0 == proxy.exit_status()
            after.signal(signal.SIGTERM)
            assert "1" == manager.told()["STOPPING"]
        finally:
            after.kill()

    def test_nobody_listens(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """A warning; the proxy serves."""
        monkeypatch.setenv("NOTIFY_SOCKET", "@nobody-has-this-name")
        proxy = place.start()
        proxy.wait(lambda: proxy.records("the service manager does not listen"))
        assert 200 == place.client(proxy).ask(request()).status


class TestSocketActivation:
    """sd_listen_fds(3)."""

    def test_the_socket_that_was_passed_on(self, place: Place) -> None:
        """Whatever SERVER_HOST and SERVER_PORT say; it outlives the process, with all who wait there."""
        proxy = place.start(under=(sys.executable, "-c", OPENS), SERVER_PORT="1", WORKERS="2")
        assert 200 == place.client(proxy).ask(request()).status

    def test_of_another_process(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """LISTEN_PID says whose it is: one that inherits the variables only opens its own."""
        monkeypatch.setenv("LISTEN_PID", "1")
        monkeypatch.setenv("LISTEN_FDS", "1")
        chosen, _ = load(environment(tmp_path, "http://127.0.0.1:1/api", {}), tmp_path)
        with listen(chosen, None) as listener, RawClient(listener.getsockname()[1]):
            assert "127.0.0.1" == listener.getsockname()[0]

    @pytest.mark.parametrize(("opened", "said"), [("dgram", "ListenStream"), ("two", "2 sockets")])
    def test_another_one_than_is_wanted(self, tmp_path: Path, opened: str, said: str) -> None:
        """Named, with what to write instead; status 1."""
        opens = OPENS
        if opened == "dgram":
            opens = opens.replace(
                'socket.create_server(("127.0.0.1", 0))', "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
            )
        else:
            opens = opens.replace('LISTEN_FDS="1"', 'LISTEN_FDS="2"')
        done = run_with(opens, tmp_path)
        assert (1, True) == (done.returncode, said in done.stderr), done.stderr


def run_with(opens: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    """Start the proxy with what `opens` passes on, and wait for its end."""
    return subprocess.run(
        [sys.executable, "-c", opens, sys.executable, "-m", "visa_jupyter_proxy", "serve"],
        cwd=directory,
        env=environment(directory, "http://127.0.0.1:1/api", {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
