"""Schedules and webhooks."""

revision = "0005_schedules"
down_revision = "0004_pool"


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
