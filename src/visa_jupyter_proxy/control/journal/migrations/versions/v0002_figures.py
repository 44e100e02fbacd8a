"""What is known of a connection and a session besides their beginning and end."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_COUNTS = ("bytes_up", "bytes_down", "messages_up", "messages_down")
_TIMES = ("first_interaction_at", "last_interaction_at")

# What was written before this column was: bytes are all that is known of it.
_FILL = """
UPDATE sessions SET connections = known.carried, bytes_up = known.up, bytes_down = known.down
FROM (
  SELECT session, count(*) AS carried,
    CAST(sum(bytes_up) AS bigint) AS up, CAST(sum(bytes_down) AS bigint) AS down
  FROM connections GROUP BY session
) AS known
WHERE known.session = sessions.id
"""


def upgrade() -> None:
    """Add columns, all of which may be NULL: a program that does not know them can go on writing."""
    for name in _COUNTS:
        op.add_column("sessions", sa.Column(name, sa.BigInteger))
        if name.startswith("messages"):
            op.add_column("connections", sa.Column(name, sa.BigInteger))
    for name in _TIMES:
        op.add_column("sessions", sa.Column(name, sa.Float(53)))
        op.add_column("connections", sa.Column(name, sa.Float(53)))
    op.add_column("connections", sa.Column("left_at", sa.Float(53)))
    op.add_column("sessions", sa.Column("connections", sa.Integer))
    op.add_column("sessions", sa.Column("reason", sa.Text))
    op.create_index("sessions_opened_at", "sessions", ["opened_at"])
    op.create_index("sessions_user", "sessions", ["user_id", "opened_at"])
    op.execute(_FILL)
