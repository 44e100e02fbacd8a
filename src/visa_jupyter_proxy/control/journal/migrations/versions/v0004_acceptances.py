"""What nodes tell each other of tokens that were accepted."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table: who, for which instance, how often; never a token."""
    op.create_table(
        "acceptances",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("instance_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.Column("writer", sa.String(32), nullable=False),
        sa.Column("accepted_at", sa.Float(53), nullable=False),
    )
