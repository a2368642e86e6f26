"""Plans, roles, scopes and what runs of plans need."""

revision = "0003_plans"
down_revision = "0002_runs"


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
