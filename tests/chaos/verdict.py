"""What VISA, the journal and the people say, compared. Plain code: nothing is asked here.

1. VISA counts a session as active exactly where a client is connected. Only an open that the journal says
   was not delivered may be missing, until its user comes back.
2. Every 101 that a client has received is a connection in the journal: begun between the question and the
   answer, ended unless it stands.
3. A session is open in the journal, once, exactly where a client is connected; others have an end.
4. Nothing is pending any more.

What a control process was told of in the last moment before it was killed is in no journal: a proxied byte
waits for no disk. The tabs of those WebSockets came back, unless they were closed in the same moment, so
their sessions are there all the same.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.nodes import Killed
from chaos.people import Notebook, Seen
from support.visa_api import Key

MOMENT_S: Final = 5.0
"""More than a record takes from the 101 to the journal, also when two lock time-outs lie between."""

_CLOCKS_S: Final = 0.002
"""Clocks are read one after the other, and floats are rounded."""

SESSIONS: Final = "SELECT id, instance_id, kernel_id, session_id, opened_at, closed_at, reason FROM sessions"
CONNECTIONS: Final = "SELECT session, opened_at, left_at, ended_at, reason FROM connections"
REPORTS: Final = "SELECT session, kind, state FROM reports ORDER BY number"


@dataclass
class Book:
    """What the journal holds, by the key of a session."""

    sessions: dict[Key, list[tuple[Any, ...]]] = field(default_factory=dict)
    """Key -> (id, opened, closed, reason)."""
    connections: dict[Key, list[tuple[Any, ...]]] = field(default_factory=dict)
    """Key -> (opened, left, ended, reason)."""
    reports: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Session -> (kind, state), in order."""

    @classmethod
    def read(cls, rows: Callable[[str], list[tuple[Any, ...]]]) -> "Book":
        """Read it with `rows`, which executes a query."""
        book, keys = cls(), {}
        for number, instance, kernel, session, *rest in rows(SESSIONS):
            keys[number] = (instance, kernel, session)
            book.sessions.setdefault(keys[number], []).append((number, *rest))
        for session, *rest in rows(CONNECTIONS):
            book.connections.setdefault(keys[session], []).append(tuple(rest))
        for session, kind, state in rows(REPORTS):
            book.reports.setdefault(session, []).append((kind, state))
        return book

    def carrying(self) -> int:
        """Count the connections that carry a session."""
        return sum(ended is None for rows in self.connections.values() for _, _, ended, _ in rows)

    def pending(self) -> int:
        """Count the reports that are not settled."""
        return sum(state == "pending" for rows in self.reports.values() for _, state in rows)

    def untold(self, key: Key) -> bool:
        """Whether the opening of the session that is open was given up, for want of a token."""
        is_open = [number for number, _, closed, _ in self.sessions.get(key, ()) if closed is None]
        return any(dict(self.reports.get(number, ())).get("open") == "not delivered" for number in is_open)


@dataclass
class Verdict:
    """The outcome of a comparison."""

    problems: list[str] = field(default_factory=list)
    untold: list[Key] = field(default_factory=list)
    """Connected, and not known to VISA, for the journal says so."""
    unwritten: int = 0
    """101s that only a control process knew of when it was killed."""


def judge(
    notebooks: Sequence[Notebook], active: Collection[Key], book: Book, killed: Sequence[Killed]
) -> Verdict:
    """Compare."""
    verdict = Verdict()
    verdict.problems += [f"{key} is active {n} times" for key, n in Counter(active).items() if n > 1]
    if book.pending():
        verdict.problems.append(f"{book.pending()} reports are pending")
    for notebook in notebooks:
        _judge_visa(verdict, notebook, notebook.key in active, book)
        _judge_sessions(verdict, notebook, book)
        for seen in notebook.seen:
            _judge_connection(verdict, notebook.key, seen, book, killed)
    known = {notebook.key for notebook in notebooks}
    verdict.problems += [f"{key} is nobody's" for key in {*active, *book.sessions} - known]
    return verdict


def _judge_visa(verdict: Verdict, notebook: Notebook, is_active: bool, book: Book) -> None:
    if is_active and not notebook.is_connected:
        verdict.problems.append(f"{notebook.key} is active at VISA, and nobody is connected")
    elif notebook.is_connected and not is_active and book.untold(notebook.key):
        verdict.untold.append(notebook.key)
    elif notebook.is_connected and not is_active:
        verdict.problems.append(f"{notebook.key} is not active at VISA, and somebody is connected")


def _judge_sessions(verdict: Verdict, notebook: Notebook, book: Book) -> None:
    sessions = book.sessions.get(notebook.key, [])
    is_open = sum(closed is None for _, _, closed, _ in sessions)
    if is_open != notebook.is_connected:
        verdict.problems.append(f"{notebook.key} is open {is_open} times in the journal")
    for _, opened, closed, reason in sessions:
        if closed is not None and (closed < opened or not reason):
            verdict.problems.append(f"{notebook.key} has no good end: {opened} to {closed}, {reason}")


def _judge_connection(verdict: Verdict, key: Key, seen: Seen, book: Book, killed: Sequence[Killed]) -> None:
    for opened, left, ended, reason in book.connections.get(key, ()):
        if seen.asked_at - _CLOCKS_S <= opened <= seen.at + _CLOCKS_S:
            if ended is not None and (left is None or left < opened) and reason != "owner lost":
                verdict.problems.append(f"{key}: a connection has no good end: {opened} to {left}, {reason}")
            return
    if any(kill.node == seen.node and abs(kill.at - seen.at) <= MOMENT_S for kill in killed):
        verdict.unwritten += 1
    else:
        written = sorted(row[0] for row in book.connections.get(key, ()))
        verdict.problems.append(
            f"{key}: the 101 of {seen.at} to {seen.asked_at} on node {seen.node} is none of {written}"
        )
