"""The Test API: scenarios, and what deployments ended with."""

from alembic import op

revision = "0003_scenarios"
down_revision = "0002_catalog"

UP = """
CREATE TABLE catalog.scenarios (
    id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    creator text,
    installers jsonb NOT NULL,
    creation_date text NOT NULL
);

CREATE TABLE catalog.deployresults (
    id text COLLATE "C" PRIMARY KEY,
    pod_name text COLLATE "C" NOT NULL
        CONSTRAINT deployresults_pod REFERENCES catalog.pods (name) ON UPDATE CASCADE,
    installer text COLLATE "C" NOT NULL,
    version text COLLATE "C",
    job_name text COLLATE "C",
    build_id text COLLATE "C",
    scenario text COLLATE "C" NOT NULL,
    upstream_job_name text COLLATE "C",
    upstream_build_id text COLLATE "C",
    criteria text COLLATE "C",
    start_date text COLLATE "C",
    stop_date text COLLATE "C",
    start_at timestamptz NOT NULL,
    owner_group text COLLATE "C",
    body json NOT NULL
);
CREATE INDEX deployresults_by_start ON catalog.deployresults (start_at, id);
CREATE INDEX deployresults_by_pod ON catalog.deployresults (pod_name, start_at, id);
CREATE INDEX deployresults_by_installer ON catalog.deployresults (installer, start_at, id);
CREATE INDEX deployresults_by_scenario ON catalog.deployresults (scenario, start_at, id);
"""


def upgrade() -> None:
    for statement in UP.split(";"):
        if statement.strip():
            op.execute(statement)
