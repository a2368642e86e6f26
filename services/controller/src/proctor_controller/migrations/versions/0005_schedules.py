"""Schedules, and the webhooks of runs that have ended."""

from alembic import op

revision = "0005_schedules"
down_revision = "0004_pool"

UP = (
    """CREATE TABLE control.schedules (
        name text PRIMARY KEY,
        id uuid NOT NULL UNIQUE,
        cron text NOT NULL,
        timezone text NOT NULL,
        plan json NOT NULL,
        parameters json NOT NULL DEFAULT '{}',
        sealed text,
        overlap text NOT NULL DEFAULT 'skip',
        group_name text,
        -- Made by a token of its group: it sees no more than that one did.
        bound boolean NOT NULL DEFAULT false,
        created_by text NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL DEFAULT now(),
        changed_at timestamptz NOT NULL DEFAULT now(),
        next_at timestamptz NOT NULL
    )""",
    "CREATE INDEX ix_schedules_next_at ON control.schedules (next_at)",
    # What became of a tick of the clock: written once, before a run is started for it.
    """CREATE TABLE control.schedule_ticks (
        schedule_id uuid NOT NULL REFERENCES control.schedules (id) ON DELETE CASCADE,
        at timestamptz NOT NULL,
        outcome text NOT NULL,
        run_id uuid,
        reason text NOT NULL DEFAULT '',
        decided_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (schedule_id, at)
    )""",
    "CREATE INDEX ix_schedule_ticks_firing ON control.schedule_ticks (at) WHERE outcome = 'firing'",
    """CREATE TABLE control.webhooks (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        run_id uuid NOT NULL UNIQUE REFERENCES control.runs (id) ON DELETE CASCADE,
        url text NOT NULL,
        state text NOT NULL DEFAULT 'waiting',
        tries integer NOT NULL DEFAULT 0,
        next_at timestamptz NOT NULL DEFAULT now(),
        status integer,
        reason text NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL DEFAULT now(),
        ended_at timestamptz
    )""",
    "CREATE INDEX ix_webhooks_next_at ON control.webhooks (next_at) WHERE state = 'waiting'",
    # The row stands there if and only if the end of the run does, whichever statement wrote that end.
    """CREATE FUNCTION control.add_webhook() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO control.webhooks (run_id, url) VALUES (NEW.id, NEW.wants #>> '{webhook,url}')
        ON CONFLICT (run_id) DO NOTHING;
        RETURN NULL;
    END $$""",
    """CREATE TRIGGER add_webhook AFTER INSERT OR UPDATE OF state ON control.runs FOR EACH ROW
    WHEN (NEW.state = 'finished' AND (NEW.wants #>> '{webhook,url}') IS NOT NULL)
    EXECUTE FUNCTION control.add_webhook()""",
)
DOWN = (
    "DROP TRIGGER add_webhook ON control.runs",
    "DROP FUNCTION control.add_webhook()",
    "DROP TABLE control.webhooks",
    "DROP TABLE control.schedule_ticks",
    "DROP TABLE control.schedules",
)


def upgrade() -> None:
    """Make the tables."""
    for statement in UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop them, with what is in them."""
    for statement in DOWN:
        op.execute(statement)
