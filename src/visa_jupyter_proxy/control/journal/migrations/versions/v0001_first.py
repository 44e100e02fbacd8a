"""The first schema: owners, sessions, connections, reports."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_OPEN = sa.text("closed_at IS NULL")
_RUNNING = sa.text("ended_at IS NULL")
_PENDING = sa.text("state = 'pending'")


def upgrade() -> None:
    """Make the tables."""
    _owners()
    _sessions()
    _connections()
    _reports()


def _owners() -> None:
    op.create_table(
        "owners",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("beats", sa.BigInteger, nullable=False),
        sa.Column("beat_at", sa.Float(53), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("stopped_at", sa.Float(53)),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("instance_id", sa.BigInteger, nullable=False),
        sa.Column("kernel_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("opened_at", sa.Float(53), nullable=False),
        sa.Column("closed_at", sa.Float(53)),
    )
    key = ["instance_id", "kernel_id", "session_id"]
    op.create_index("sessions_key", "sessions", key)
    op.create_index("sessions_open", "sessions", key, unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN)


def _connections() -> None:
    op.create_table(
        "connections",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("session", sa.String(32), sa.ForeignKey("sessions.id"), nullable=False),
        sa.Column("owner", sa.String(32), sa.ForeignKey("owners.id"), nullable=False),
        sa.Column("worker", sa.Integer, nullable=False),
        sa.Column("tunnel", sa.BigInteger, nullable=False),
        sa.Column("opened_at", sa.Float(53), nullable=False),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("reason", sa.Text),
        sa.Column("bytes_up", sa.BigInteger),
        sa.Column("bytes_down", sa.BigInteger),
    )
    op.create_index("connections_session", "connections", ["session"])
    op.create_index(
        "connections_open", "connections", ["owner"], sqlite_where=_RUNNING, postgresql_where=_RUNNING
    )


def _reports() -> None:
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "reports",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("session", sa.String(32), sa.ForeignKey("sessions.id"), nullable=False),
        sa.Column("owner", sa.String(32), sa.ForeignKey("owners.id"), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("settled_at", sa.Float(53)),
    )
    op.create_index("reports_session", "reports", ["session"])
    op.create_index("reports_pending", "reports", ["owner"], sqlite_where=_PENDING, postgresql_where=_PENDING)
