"""Indexes for reports: all that a summary reads, in the order of its groups; and what is open."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_OPEN = sa.text("closed_at IS NULL")
_CLOSED = sa.text("closed_at IS NOT NULL")
_READ = ("user_id", "instance_id", "opened_at", "closed_at")
_COUNTS = ("messages_up", "messages_down", "bytes_up", "bytes_down")


def upgrade() -> None:
    """Add them; that for summaries only of closed sessions, so that progress of open ones costs nothing."""
    op.create_index(
        "sessions_summary",
        "sessions",
        [*_READ, *_COUNTS],
        sqlite_where=_CLOSED,
        postgresql_where=_CLOSED,
    )
    op.create_index("sessions_running", "sessions", ["opened_at"], sqlite_where=_OPEN, postgresql_where=_OPEN)
