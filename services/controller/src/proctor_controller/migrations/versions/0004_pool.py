"""The volume pool: volumes, VNFs, targets, breakers, strays, the last runs of both jobs."""

from alembic import op

revision = "0004_pool"
down_revision = "0003_plans"

UP = """
CREATE TABLE control.volumes (
    id uuid PRIMARY KEY,
    type text NOT NULL,
    size_gb integer NOT NULL CHECK (size_gb > 0),
    name text NOT NULL,
    named text NOT NULL DEFAULT '',
    state text NOT NULL CONSTRAINT ck_volumes_state CHECK (state IN
        ('intent', 'creating', 'ready', 'claimed', 'in_use', 'deleting', 'deleted', 'failed', 'leaked')),
    from_pool boolean NOT NULL,
    backend_id text,
    path text NOT NULL DEFAULT '',
    vnfp uuid,
    run uuid,
    key text,
    retain boolean NOT NULL DEFAULT false,
    tries integer NOT NULL DEFAULT 1,
    evictions integer NOT NULL DEFAULT 0,
    reason text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    posted_at timestamptz,
    ready_at timestamptz,
    claimed_at timestamptz,
    gone_at timestamptz,
    version bigint NOT NULL DEFAULT 1,
    CONSTRAINT ck_volumes_owner CHECK (vnfp IS NULL OR run IS NULL),
    CONSTRAINT ck_volumes_spare CHECK (state <> 'ready' OR (vnfp IS NULL AND run IS NULL)),
    CONSTRAINT ck_volumes_gone CHECK (state <> 'deleted' OR gone_at IS NOT NULL)
);
CREATE INDEX ix_volumes_spares ON control.volumes (type, created_at, id) WHERE state = 'ready';
CREATE INDEX ix_volumes_work ON control.volumes (created_at, id)
    WHERE state IN ('intent', 'creating', 'claimed', 'deleting')
    OR (state = 'failed' AND gone_at IS NULL) OR (state = 'in_use' AND name <> named);
CREATE INDEX ix_volumes_alive ON control.volumes (created_at, id) WHERE gone_at IS NULL;
CREATE INDEX ix_volumes_gone ON control.volumes (gone_at, id) WHERE gone_at IS NOT NULL;
CREATE INDEX ix_volumes_vnfp ON control.volumes (vnfp) WHERE vnfp IS NOT NULL;
CREATE INDEX ix_volumes_run ON control.volumes (run) WHERE run IS NOT NULL;
CREATE UNIQUE INDEX uq_volumes_backend_id ON control.volumes (backend_id) WHERE gone_at IS NULL;
CREATE UNIQUE INDEX uq_volumes_run_key ON control.volumes (run, key)
    WHERE run IS NOT NULL AND state NOT IN ('deleting', 'deleted', 'failed', 'leaked');
CREATE TABLE control.vnfps (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    type text NOT NULL,
    size_gb integer NOT NULL,
    state text NOT NULL CONSTRAINT ck_vnfps_state CHECK (state IN
        ('creating', 'active', 'error', 'deleting', 'deleted')),
    volume_id uuid NOT NULL REFERENCES control.volumes (id),
    reason text NOT NULL DEFAULT '',
    created_by text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE INDEX ix_vnfps_volume_id ON control.vnfps (volume_id);
CREATE INDEX ix_vnfps_created_at ON control.vnfps (created_at, id);
CREATE TABLE control.pools (
    type text PRIMARY KEY,
    listed boolean NOT NULL DEFAULT true,
    size_gb integer NOT NULL,
    target integer NOT NULL CHECK (target >= 0),
    file_target integer NOT NULL CHECK (file_target >= 0),
    version bigint NOT NULL DEFAULT 1,
    claims bigint NOT NULL DEFAULT 0,
    hits bigint NOT NULL DEFAULT 0,
    histogram bigint[] NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE control.pool_breakers (
    scope text PRIMARY KEY,
    failures integer NOT NULL,
    opened_at timestamptz,
    probe_at timestamptz,
    reason text NOT NULL DEFAULT ''
);
CREATE TABLE control.pool_strays (
    backend_id text PRIMARY KEY,
    volume_id text NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE control.pool_jobs (
    name text PRIMARY KEY,
    epoch bigint,
    started_at timestamptz,
    finished_at timestamptz,
    outcome text NOT NULL DEFAULT '',
    skipped_at timestamptz,
    skipped text NOT NULL DEFAULT '',
    asked_at timestamptz
);
INSERT INTO control.pool_jobs (name) VALUES ('replenish'), ('sync');
CREATE TABLE control.pool_settings (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    installation uuid NOT NULL DEFAULT gen_random_uuid(),
    reload bigint NOT NULL DEFAULT 0,
    held_until timestamptz,
    held_reason text NOT NULL DEFAULT ''
);
INSERT INTO control.pool_settings DEFAULT VALUES;
"""
TABLES = ("pool_settings", "pool_jobs", "pool_strays", "pool_breakers", "pools", "vnfps", "volumes")


def upgrade() -> None:
    """Make the tables."""
    for statement in filter(str.strip, UP.split(";\n")):
        op.execute(statement)


def downgrade() -> None:
    """Drop them, with what is in them."""
    for table in TABLES:
        op.execute(f"DROP TABLE control.{table}")
