"""Coming from visa-jupyter-proxy 3.5, going back to it, and tidying the journal, beside a proxy that runs."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from process.conftest import KERNEL, NUMBER, Place, channel
from support.proxy import RunningProxy, environment
from support.sessions import rows
from visa_jupyter_proxy.control import original

CLOSING: Final = "the sessions that visa-jupyter-proxy 3.5 has left open are being closed"


def left_behind(place: Place, *sessions: str) -> Path:
    """Write what 3.5 leaves when it is stopped, and what VISA believes then."""
    directory = place.directory / "data"
    directory.mkdir(exist_ok=True)
    value = [{"instanceId": NUMBER, "kernel": KERNEL, "sessionId": session} for session in sessions]
    path = original.file_in(directory)
    path.write_text(json.dumps({"key": "instanceNotebookSessions", "value": value}))
    return path


def closed(place: Place) -> list[str]:
    """Give the sessions that VISA was told are closed, in order."""
    return [asked.key[2] for asked in place.api.asked("close")]


def command(place: Place, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with the settings of the proxy."""
    return subprocess.run(
        [sys.executable, "-m", "visa_jupyter_proxy", "sessions", *words],
        cwd=place.directory,
        env=environment(place.directory, place.api.url, {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class TestComing:
    """The file of 3.5 in STORAGE_DIR."""

    def test_225_what_3_5_has_left_is_closed_once(self, place: Place) -> None:
        """Each session once, also when VISA is away at first; then the file has another name, for good."""
        path = left_behind(place, "a", "b", "a")
        content = path.read_bytes()
        place.api.down()
        proxy = place.start()
        proxy.wait(lambda: proxy.records(CLOSING))
        place.api.up()
        place.api.wait(lambda: ["a", "b"] == sorted(closed(place)))
        kept = Path(proxy.records(CLOSING)[0]["kept_as"])
        assert (content, False) == (kept.read_bytes(), path.exists())
        assert 0 == proxy.stop()
        again = proxy.start_again()
        self._is_busy(place, again)
        assert 0 == again.stop()
        assert {"a": 1, "b": 1} == {name: closed(place).count(name) for name in ("a", "b")}

    def test_225_a_session_that_lives_here_is_not_closed(self, place: Place) -> None:
        """Its browser has come back before its time was up: VISA never hears that it was closed."""
        left_behind(place, "comes back", "ends")
        proxy = place.start(SESSION_LINGER_S="3")
        client = place.client(proxy)
        assert client.ask(channel("comes%20back")).status == 101
        place.api.wait(lambda: ["ends"] == closed(place))
        assert {"comes back": True} == place.sessions()
        assert (1, 1) == tuple(proxy.records(CLOSING)[0][name] for name in ("closed", "alive"))
        client.send(b"hello")
        assert b"hello" == client.exactly(5)

    def test_225_a_damaged_file_is_set_aside(self, place: Place) -> None:
        """The log says which, and where it is now; the proxy serves as if it were not there."""
        path = left_behind(place, "a")
        path.write_bytes(path.read_bytes()[:-3])
        proxy = place.start()
        said = "the sessions of visa-jupyter-proxy 3.5 cannot be read: the file has been set aside"
        proxy.wait(lambda: proxy.records(said))
        assert "error" == proxy.records(said)[0]["level"]
        assert Path(proxy.records(said)[0]["kept_as"]).exists()
        assert not path.exists()
        self._is_busy(place, proxy)
        assert [] == [name for name in closed(place) if name == "a"]

    @staticmethod
    def _is_busy(place: Place, proxy: RunningProxy) -> None:
        """See a session begin and end: whatever was due before has been sent."""
        client = place.client(proxy)
        assert client.ask(channel("after")).status == 101
        place.api.wait(lambda: place.sessions().get("after"))
        client.sock.close()
        place.api.wait(lambda: "after" in closed(place))


class TestGoing:
    """`sessions export --legacy`, and `prune` and `backup` beside a proxy."""

    def test_there_and_back_again(self, place: Place) -> None:
        """What is open when the proxy is stopped is in the file; a proxy that finds it ends nothing alive."""
        proxy = place.start(SESSION_LINGER_S="60")
        assert place.client(proxy).ask(channel("open")).status == 101
        place.api.wait(lambda: place.sessions().get("open"))
        assert 0 == proxy.stop()
        done = command(place, "export", "--legacy")
        assert 0 == done.returncode, done.stderr
        left = original.read(original.file_in(place.directory / "data"))
        assert [(NUMBER, KERNEL, "open")] == [
            (key.instance_id, key.kernel_id, key.session_id) for key in left.keys
        ]
        assert [] == closed(place)

    def test_tidying_beside_a_proxy(self, place: Place) -> None:
        """Old sessions go at once and by command, the live one goes on, and a copy can be made meanwhile."""
        first = place.start()
        for name in ("old", "older"):
            client = place.client(first)
            assert client.ask(channel(name)).status == 101
            client.sock.close()
        place.api.wait(lambda: {"old", "older"} == {*closed(place)})
        assert 0 == first.stop()
        journal = place.directory / "data" / "journal.sqlite3"
        self._age(journal, "older", days=40)
        proxy = place.start(node="next", STORAGE_DIR=str(journal.parent), SESSION_RETENTION_DAYS="30")
        client = place.client(proxy)
        assert client.ask(channel("alive")).status == 101
        names = "SELECT session_id FROM sessions ORDER BY 1"
        proxy.wait(lambda: [("alive",), ("old",)] == rows(journal, names))
        self._age(journal, "old", days=20)
        assert "1 sessions were deleted" in command(place, "prune", "--days", "10").stdout
        assert [("alive",)] == rows(journal, names)
        copy = place.directory / "copy.sqlite3"
        assert 0 == command(place, "backup", str(copy)).returncode
        assert [("alive",)] == rows(copy, names)
        client.send(b"hello")
        assert b"hello" == client.exactly(5)
        place.api.wait(lambda: place.sessions().get("alive"))
        assert not proxy.records("the journal cannot be written; records wait in memory")

    @staticmethod
    def _age(journal: Path, session: str, *, days: int) -> None:
        """Have a session be over for so long."""
        with closing(sqlite3.connect(journal)) as connection, connection:
            seconds = days * 86_400
            connection.execute(
                "UPDATE sessions SET opened_at = opened_at - ?, closed_at = closed_at - ?"
                " WHERE session_id = ?",
                (seconds, seconds, session),
            )
