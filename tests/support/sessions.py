"""Words for tests of notebook sessions: messages of tunnels, a clock, what the journal's file holds."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from visa_jupyter_proxy.mailbox import NotebookKey, TunnelEnded, TunnelOpened

TOKEN = "secret-token"


def key(number: int = 1, *, instance: int = 7) -> NotebookKey:
    """Give a session's key."""
    return NotebookKey(instance, f"kernel-{number}", f"session-{number}")


def opened(
    tunnel: int, notebook: NotebookKey | None = None, *, token: str = TOKEN, at: float = 1000.0
) -> TunnelOpened:
    """Give the message that a tunnel has opened; its session is that of its number."""
    return TunnelOpened(tunnel=tunnel, notebook=notebook or key(tunnel), user="anna", token=token, at=at)


def ended(tunnel: int, *, at: float = 1001.0, reason: str = "browser closed") -> TunnelEnded:
    """Give the message that a tunnel has ended."""
    return TunnelEnded(tunnel=tunnel, reason=reason, at=at, bytes_up=11, bytes_down=22)


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Give the time."""
        return self.now


def rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    """Read the journal's file from outside."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()
