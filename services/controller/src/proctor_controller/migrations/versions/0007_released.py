"""What may live on on an agent's targets and keeps nobody from leasing it any more: an admin has let it go."""

from alembic import op

revision = "0007_released"
down_revision = "0006_remains"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE control.agents ADD COLUMN released text[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE control.agents DROP COLUMN released")
