"""Words for tests of notebook sessions: messages of tunnels, a clock, what the journal's file holds."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from visa_jupyter_proxy.mailbox import (
    NotebookKey,
    TokenAccepted,
    Traffic,
    TunnelEnded,
    TunnelOpened,
    TunnelProgressed,
)

TOKEN = "secret-token"


def key(number: int = 1, *, instance: int = 7) -> NotebookKey:
    """Give a session's key."""
    return NotebookKey(instance, f"kernel-{number}", f"session-{number}")


def opened(
    tunnel: int,
    notebook: NotebookKey | None = None,
    *,
    user: str = "anna",
    token: str = TOKEN,
    at: float = 1000.0,
) -> TunnelOpened:
    """Give the message that a tunnel has opened; its session is that of its number."""
    return TunnelOpened(tunnel=tunnel, notebook=notebook or key(tunnel), user=user, token=token, at=at)


def progressed(tunnel: int, *, messages_up: int = 1) -> TunnelProgressed:
    """Give the message that something has passed through a tunnel."""
    traffic = Traffic(
        bytes_up=5,
        bytes_down=6,
        messages_up=messages_up,
        messages_down=2,
        first_interaction_at=1000.25,
        last_interaction_at=1000.5,
    )
    return TunnelProgressed(tunnel, traffic)


def ended(tunnel: int, *, at: float = 1001.0, reason: str = "browser closed") -> TunnelEnded:
    """Give the message that a tunnel has ended."""
    return TunnelEnded(tunnel, reason, at, Traffic(bytes_up=11, bytes_down=22))


def accepted(user: str, token: str, *, instance: int = 7) -> TokenAccepted:
    """Give the message that the API has accepted a token."""
    return TokenAccepted(user=user, token=token, instance_id=instance, state="ACTIVE", host="10.0.0.7")


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
