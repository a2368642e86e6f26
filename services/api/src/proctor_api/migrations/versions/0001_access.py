"""Tokens, sessions, idempotency keys."""

from alembic import op

revision = "0001_access"
down_revision = None

UP = """
CREATE TABLE access.tokens (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'runner', 'admin')),
    groups text[],
    hash text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT '',
    expires_at timestamptz,
    last_use timestamptz
);

CREATE TABLE access.sessions (
    hash text PRIMARY KEY,
    token_id uuid NOT NULL REFERENCES access.tokens ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_by_token ON access.sessions (token_id);
CREATE INDEX sessions_by_expiry ON access.sessions (expires_at);

CREATE TABLE access.idempotency_keys (
    owner text NOT NULL,
    key text NOT NULL,
    request_hash text NOT NULL,
    run uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    held_until timestamptz,
    status integer,
    location text,
    answer bytea,
    PRIMARY KEY (owner, key)
);
CREATE INDEX idempotency_keys_by_age ON access.idempotency_keys (created_at);
"""


def upgrade() -> None:
    for statement in UP.split(";"):
        if statement.strip():
            op.execute(statement)
