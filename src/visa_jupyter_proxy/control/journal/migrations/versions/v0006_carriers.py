"""An index that tells the connections that carry a session from the thousands that have ended."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Put it in the place of the one that was its first column; an older program is served by either."""
    op.create_index("connections_of_session", "connections", ["session", "ended_at"])
    op.drop_index("connections_session", "connections")
