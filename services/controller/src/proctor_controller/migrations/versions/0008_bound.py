"""Whom an enrolment was given by: the groups that the admin was bound to, so that its use is held to them too."""

from alembic import op

revision = "0008_bound"
down_revision = "0007_released"


def upgrade() -> None:
    """Add ``enrolments.bound``; NULL, as the former version leaves it: an admin bound to no group."""
    op.execute("ALTER TABLE control.enrolments ADD COLUMN bound text[]")


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE control.enrolments DROP COLUMN bound")
