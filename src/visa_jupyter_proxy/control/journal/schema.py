"""The tables, in portable SQLAlchemy Core. `migrations` makes them; a test compares the two.

Times are Unix time in seconds, of the clock on the wall of the node that wrote them: they are for people
and decide nothing. So nodes whose clocks differ can share a journal.
No token is ever written here.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    literal_column,
    text,
)

metadata: Final = MetaData()

_ID: Final = String(32)
"""A UUID in hexadecimal, made by whoever writes the row, so that it is known without the store."""

_TIME: Final = Float(53)

COUNTS: Final = ("bytes_up", "bytes_down", "messages_up", "messages_down")
"""Up is from the browser."""

FIGURES: Final = (*COUNTS, "first_interaction_at", "last_interaction_at")
"""What is known of a connection besides its beginning and end, and of a session in the same columns.
Interaction is a data message from the browser."""


def _figures() -> tuple[Column[Any], ...]:
    return tuple(Column(name, BigInteger if name in COUNTS else _TIME) for name in FIGURES)


owners: Final = Table(
    "owners",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("node", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    # Alive is whose counter moves, on the observer's own clock; no wall clock and no pid decides.
    Column("beats", BigInteger, nullable=False),
    Column("beat_at", _TIME, nullable=False),
    Column("started_at", _TIME, nullable=False),
    Column("stopped_at", _TIME),
)
"""Every control process that ever wrote here."""

sessions: Final = Table(
    "sessions",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("instance_id", BigInteger, nullable=False),
    Column("kernel_id", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("opened_at", _TIME, nullable=False),
    Column("closed_at", _TIME),
    # Of all its connections together, so that a report on a year needs to read nothing else. NULL is
    # not known: of a worker that was killed, say, or written by a program that does not count it.
    *_figures(),
    Column("connections", Integer),
    Column("reason", Text),
    Index("sessions_opened_at", "opened_at"),
    Index("sessions_user", "user_id", "opened_at"),
    Index("sessions_key", "instance_id", "kernel_id", "session_id"),
    # All that a summary reads, in the order of its groups: it neither sorts nor looks rows up (`reading`).
    Index(
        "sessions_summary",
        *("user_id", "instance_id", "opened_at", "closed_at"),
        *("messages_up", "messages_down", "bytes_up", "bytes_down"),
        sqlite_where=text("closed_at IS NOT NULL"),
        postgresql_where=text("closed_at IS NOT NULL"),
    ),
    # Those that are open are few, and asked for often.
    Index(
        "sessions_running",
        "opened_at",
        sqlite_where=text("closed_at IS NULL"),
        postgresql_where=text("closed_at IS NULL"),
    ),
    # The rule itself: a key is open at most once, whoever writes.
    Index(
        "sessions_open",
        "instance_id",
        "kernel_id",
        "session_id",
        unique=True,
        sqlite_where=text("closed_at IS NULL"),
        postgresql_where=text("closed_at IS NULL"),
    ),
)
"""Notebook sessions; one that is closed and opened again is a new row. `reason` is why its last
connection ended."""

connections: Final = Table(
    "connections",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("session", _ID, ForeignKey("sessions.id"), nullable=False),
    Column("owner", _ID, ForeignKey("owners.id"), nullable=False),
    Column("worker", Integer, nullable=False),
    Column("tunnel", BigInteger, nullable=False),
    Column("opened_at", _TIME, nullable=False),
    # It carries its session until `ended_at` is set. `left_at` is when its WebSocket was over: for a
    # while after that its session may come back.
    Column("left_at", _TIME),
    Column("ended_at", _TIME),
    Column("reason", Text),
    *_figures(),
    # Those that carry a session are few; a browser that comes back all day leaves thousands that have ended.
    Index("connections_of_session", "session", "ended_at"),
    Index(
        "connections_open",
        "owner",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)
"""The WebSockets that carried a session."""

reports: Final = Table(
    "reports",
    metadata,
    # The order in which reports of one key must reach the API.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", _ID, nullable=False, unique=True),
    Column("session", _ID, ForeignKey("sessions.id"), nullable=False),
    # Who delivers it: whoever had the connection that caused it, until somebody takes over.
    Column("owner", _ID, ForeignKey("owners.id"), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("settled_at", _TIME),
    Index("reports_session", "session"),
    Index(
        "reports_pending",
        "owner",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
)
"""What the VISA API is told: `kind` is open or close; `state` is one of `records.ReportState`."""

PENDING: Final[ColumnElement[str]] = literal_column("'pending'")
"""That state of a report, written out as `reports_pending` has it: a plan for any state, as PostgreSQL makes
one, has no use for that index."""

IS_PENDING: Final = reports.c.state == PENDING

acceptances: Final = Table(
    "acceptances",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("instance_id", BigInteger, primary_key=True, autoincrement=False),
    # Others see that it moves, on their own clock.
    Column("accepted", BigInteger, nullable=False),
    Column("writer", _ID, nullable=False),
    Column("accepted_at", _TIME, nullable=False),
)
"""How often the VISA API has accepted a token of a user for an instance, on nodes that share the journal:
they tell each other so now and then, while it lasts. `writer` is who has counted last."""

endings: Final = Table(
    "endings",
    metadata,
    Column("id", _ID, primary_key=True),
    # Who has the connections, and takes the row out with its next heartbeat.
    Column("owner", _ID, nullable=False),
    Column("worker", Integer),
    Column("tunnel", BigInteger),
    Column("user_id", Text),
    Column("asked_by", Text, nullable=False),
    Column("asked_at", _TIME, nullable=False),
    Index("endings_owner", "owner"),
)
"""Orders of an administrator: end that tunnel of that worker, or all of that user."""

REPORTED: Final = (owners, sessions, connections, reports)
"""What those read who only ask: they need no more, so they also read what an older program has made."""
