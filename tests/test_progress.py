"""What a person who waits for a command sees of it: one line, kept up to date, on a terminal only."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Final

import pytest

from support.postgres import PostgresServer
from support.proxy import PREFIX
from support.storage import Storage
from test_sessions import HOUR, NOON, Facility
from visa_jupyter_proxy import progress

ERASED: Final = "\r\x1b[K"


class Terminal:
    """What a program writes to is `theirs`; what a person sees is read here."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.theirs = os.fdopen(theirs, "w")
        self.seen = ""

    def until(self, pattern: str) -> str:
        """Read on until that has been written."""
        while re.search(pattern, self.seen) is None:
            self.seen += os.read(self._ours, 1000).decode()
        return self.seen

    def close(self) -> None:
        """Hang up."""
        os.close(self._ours)
        self.theirs.close()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Open one; a second is short."""
    terminal = Terminal()
    monkeypatch.setattr(progress, "_EVERY_S", 0.01)
    yield terminal
    terminal.close()


def test_how_far_it_is(terminal: Terminal) -> None:
    """What, how much, for how long; again and again in one line, which is gone at the end."""
    with redirect_stderr(terminal.theirs), progress.told("counting", "stars") as far:
        assert ["a", "b"] == list(far.counting("ab"))
        terminal.until(r"counting \.\.\. 2 stars, 0 s")
        far.add(1200)
        terminal.until(r"counting \.\.\. 1,202 stars, \d s")
        far.watch(lambda: 5_000_000)
        terminal.until(r"5,000,000 stars")
    terminal.theirs.write("done")
    terminal.theirs.flush()
    shown = terminal.until("done")
    assert shown.endswith(f"s{ERASED}done")
    assert "\n" not in shown


def test_something_else_is_written_meanwhile(terminal: Terminal) -> None:
    """On a line of its own, not behind the progress."""
    with redirect_stderr(terminal.theirs), progress.told("counting") as far:
        terminal.until(r"counting \.\.\. 0 s")
        with far.aside():
            terminal.theirs.write("a finding\n")
            terminal.theirs.flush()
        shown = terminal.until("a finding")
    assert f"{ERASED}a finding" in shown


def test_a_narrow_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is broken could not be erased: it is cut."""
    monkeypatch.setenv("COLUMNS", "12")
    with redirect_stderr(terminal.theirs), progress.told("counting all the stars"):
        terminal.until(re.escape(f"{ERASED}counting al{ERASED}"))


def test_nobody_looks() -> None:
    """A program reads nothing of it, and nothing runs for it."""
    stream = io.StringIO()
    with redirect_stderr(stream), progress.told("counting", "stars") as far:
        assert "progress" not in {thread.name for thread in threading.enumerate()}
        far.add(1)
    assert "" == stream.getvalue()


@pytest.mark.parametrize(
    ("command", "line", "answer"),
    [
        (["prune", "--days", "1"], "deleting old sessions", "1 sessions were deleted"),
        (["anonymise", "--user", "anna"], "anonymising", "1 sessions were anonymised"),
        (["summary"], "summing up", "2025-03-29"),
        (
            ["export", "--legacy", "--to", "file"],
            "looking for what VISA believes open",
            "0 sessions were written",
        ),
    ],
)
def test_a_command_that_takes_long(
    postgres: PostgresServer, tmp_path: Path, command: list[str], line: str, answer: str
) -> None:
    """Here the database is held up; a person sees that it is at work, and the answer is as ever."""
    url = postgres.create(f"progress_{command[0]}")
    Facility(Storage(tmp_path / "data", postgres, url)).session(at=NOON, seconds=HOUR)
    terminal = Terminal()
    given = {"STORAGE_URL": url, "STORAGE_DIR": str(tmp_path / "data"), "LOG_TIMEZONE": "UTC"}
    environment = os.environ | {PREFIX + name: value for name, value in given.items()}
    postgres.pause()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "visa_jupyter_proxy", "sessions", *command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=terminal.theirs,
            text=True,
        )
        terminal.until(rf"{line} \.\.\. \d+ s")
    finally:
        postgres.resume()
    out, _ = process.communicate(timeout=60)
    terminal.close()
    assert (0, True) == (process.returncode, answer in out)
    assert ERASED not in out
