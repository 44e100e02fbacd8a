"""An index that holds all that a summary by user or instance reads, in the order of its groups."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_CLOSED = sa.text("closed_at IS NOT NULL")
_READ = ("user_id", "instance_id", "opened_at", "closed_at")
_COUNTS = ("messages_up", "messages_down", "bytes_up", "bytes_down")


def upgrade() -> None:
    """Add the index; only of closed sessions, so that what they come to while open costs nothing."""
    op.create_index(
        "sessions_summary",
        "sessions",
        [*_READ, *_COUNTS],
        sqlite_where=_CLOSED,
        postgresql_where=_CLOSED,
    )
