"""What of ended attempts may live on on an agent's targets, as its heartbeats say."""

from alembic import op

revision = "0006_remains"
down_revision = "0005_schedules"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE control.agents ADD COLUMN remains text[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE control.agents DROP COLUMN remains")
