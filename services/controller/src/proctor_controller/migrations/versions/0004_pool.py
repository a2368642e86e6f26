"""The volume pool."""

revision = "0004_pool"
down_revision = "0003_plans"


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
