"""The demo starts, says where, and leaves nothing behind."""

import os
import signal
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest

from support.running_demo import RunningDemo

pytestmark = pytest.mark.timeout(300)


def _parts(folder: str) -> list[str]:
    """Return the command lines that name the demo's temporary directory."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is somebody else's
        if folder in line.decode(errors="replace"):
            lines.append(line.partition(b"\0")[0].decode())
    return lines


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the demo a directory for all that is temporary."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_leaves_nothing_behind(number: int, temporary: Path, tmp_path: Path) -> None:
    """After a signal it exits 0; no process and no temporary file is left."""
    with RunningDemo.start(tmp_path / "logs") as demo:
        # The demo, the proxy and two JupyterLabs at the least.
        assert len(_parts(str(temporary))) >= 4
        assert 0 == demo.stop(number)
    assert [] == _parts(str(temporary))
    assert [] == list(temporary.iterdir())


def test_it_says_when_a_part_dies(temporary: Path, tmp_path: Path) -> None:
    """When the proxy is gone, the demo stops everything, says so, and exits 1."""
    with RunningDemo.start(tmp_path / "logs") as demo:
        os.kill(_proxy_of(demo), signal.SIGKILL)
        assert 1 == demo.wait()
    assert "The proxy has ended" in (tmp_path / "logs/demo.log").read_text()
    assert ([], []) == (_parts(str(temporary)), list(temporary.iterdir()))


def test_a_busy_port_is_replaced(temporary: Path, tmp_path: Path) -> None:
    """A port that is in use is reported, and another one is taken."""
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with RunningDemo.start(tmp_path / "logs", port=port) as demo:
            assert 404 == demo.ask("/nope").status
            with urlopen(demo.board) as board:
                assert b"Open sessions" in board.read()
            assert 0 == demo.stop()
    assert f"Port {port} is in use" in (tmp_path / "logs/demo.log").read_text()
    assert [] == list(temporary.iterdir())


def _proxy_of(demo: RunningDemo) -> int:
    files = Path(f"/proc/{demo.process.pid}/task").glob("*/children")
    children = [pid for file in files for pid in file.read_text().split()]
    (proxy,) = (pid for pid in children if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    return int(proxy)
