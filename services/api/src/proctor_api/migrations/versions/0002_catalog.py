"""The Test API: pods, projects, test cases, results.

Names are what results refer by, so they are the foreign keys; a renamed project or case takes its results along.
``start_at`` and ``stop_at`` are what could be read of the dates that a client sent; ``-infinity`` stands for a date
that is absent or that nobody can read, so that the order is total and a keyset needs no case for NULL.
"""

from alembic import op

revision = "0002_catalog"
down_revision = "0001_access"

UP = """
CREATE TABLE catalog.pods (
    id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    body json NOT NULL,
    creation_date text NOT NULL
);

CREATE TABLE catalog.projects (
    id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    body json NOT NULL,
    creation_date text NOT NULL
);

CREATE TABLE catalog.cases (
    id text COLLATE "C" PRIMARY KEY,
    project_name text COLLATE "C" NOT NULL
        CONSTRAINT cases_project REFERENCES catalog.projects (name) ON UPDATE CASCADE,
    name text COLLATE "C" NOT NULL,
    body json NOT NULL,
    creation_date text NOT NULL,
    CONSTRAINT cases_name UNIQUE (project_name, name)
);

CREATE TABLE catalog.results (
    id text COLLATE "C" PRIMARY KEY,
    pod_name text COLLATE "C" NOT NULL
        CONSTRAINT results_pod REFERENCES catalog.pods (name) ON UPDATE CASCADE,
    project_name text COLLATE "C" NOT NULL,
    case_name text COLLATE "C" NOT NULL,
    installer text COLLATE "C",
    version text COLLATE "C",
    scenario text COLLATE "C",
    build_tag text COLLATE "C",
    criteria text COLLATE "C",
    start_date text COLLATE "C",
    stop_date text COLLATE "C",
    start_at timestamptz NOT NULL,
    stop_at timestamptz NOT NULL,
    trust_indicator double precision NOT NULL DEFAULT 0,
    size integer NOT NULL,
    owner_group text COLLATE "C",
    run uuid,
    step uuid,
    attempt integer,
    stored_at timestamptz NOT NULL DEFAULT now(),
    details json,
    CONSTRAINT results_case FOREIGN KEY (project_name, case_name)
        REFERENCES catalog.cases (project_name, name) ON UPDATE CASCADE
);
CREATE TABLE catalog.rejections (
    run uuid NOT NULL,
    step uuid NOT NULL,
    attempt integer NOT NULL,
    id bigint NOT NULL,
    owner_group text COLLATE "C",
    item json NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, step, attempt)
);
CREATE INDEX rejections_by_id ON catalog.rejections (id);

CREATE UNIQUE INDEX results_once ON catalog.results (run, step, attempt) WHERE run IS NOT NULL;
CREATE INDEX results_by_start ON catalog.results (start_at, id);
CREATE INDEX results_by_case ON catalog.results (project_name, case_name, start_at, id);
CREATE INDEX results_by_case_name ON catalog.results (case_name, start_at, id);
CREATE INDEX results_by_pod ON catalog.results (pod_name, start_at, id);
CREATE INDEX results_by_installer ON catalog.results (installer, start_at, id);
CREATE INDEX results_by_version ON catalog.results (version, start_at, id);
CREATE INDEX results_by_scenario ON catalog.results (scenario, start_at, id);
CREATE INDEX results_by_build_tag ON catalog.results (build_tag, start_at, id);
CREATE INDEX results_by_criteria ON catalog.results (criteria, start_at, id);
CREATE INDEX results_by_trust ON catalog.results (trust_indicator, start_at, id);
"""


def upgrade() -> None:
    for statement in UP.split(";"):
        if statement.strip():
            op.execute(statement)
