"""Orders to end connections, which whoever owns them finds with its next heartbeat."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table; a program that does not know it leaves what stands there, and obeys nobody."""
    op.create_table(
        "endings",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("worker", sa.Integer),
        sa.Column("tunnel", sa.BigInteger),
        sa.Column("user_id", sa.Text),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("asked_at", sa.Float(53), nullable=False),
    )
    op.create_index("endings_owner", "endings", ["owner"])
