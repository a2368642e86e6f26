"""Tables of runs: their steps, nodes and edges, attempts, events, and the slots of agents."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from proctor_controller.db.tables import metadata
from proctor_controller.db.tables.agents import Id, Moment

runs = Table(
    "runs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("number", BigInteger, Identity(), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("result", Text),
    Column("reason", Text, nullable=False, server_default=""),
    Column("group_name", Text),
    Column("version", Integer, nullable=False),
    Column("event_seq", Integer, nullable=False),
    Column("attempt_seq", Integer, nullable=False),
    Column("undecided", Integer, nullable=False),
    Column("tally", JSONB, nullable=False, server_default=text("'{}'")),
    Column("cause", Text),
    Column("cancel_by", Text),
    Column("timeout_s", Double, nullable=False),
    Column("deadline", Moment),
    Column("due_at", Moment),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    Column("plan", Text),
    Column("parameters", JSON, nullable=False, server_default=text("'{}'")),
    Column("outputs", JSON, nullable=False, server_default=text("'{}'")),
    Column("created_by", Text, nullable=False, server_default=""),
    Column("rerun_of", Id),
    Column("parent", Id),
    postgresql_with={"fillfactor": "70"},
)
Index("ix_runs_due_at", runs.c.due_at, postgresql_where=runs.c.due_at.is_not(None))

steps = Table(
    "steps",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", Id, ForeignKey(runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("idx", Integer, nullable=False),
    Column("node", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("instance", Text, nullable=False, server_default=""),
    Column("plugin", Text, nullable=False),
    Column("method", Text, nullable=False),
    # Hidden values are masked here; the whole mapping stands sealed beside it where there are any.
    Column("parameters", JSON, nullable=False),
    Column("sealed", Text),
    Column("env", JSON, nullable=False, server_default=text("'{}'")),
    Column("target", Text),
    Column("place_host", Text),
    Column("place_group", Text),
    Column("place_labels", JSONB),
    Column("state", Text, nullable=False),
    Column("result", Text),
    Column("reason", Text, nullable=False, server_default=""),
    Column("waiting_for", Text),
    Column("attempt", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("token", Text),
    Column("agent_id", Id),
    Column("host", Text),
    Column("sends", Integer, nullable=False),
    Column("refusals", Integer, nullable=False),
    Column("cause", Text),
    Column("timeout_s", Double, nullable=False),
    Column("grace_s", Double, nullable=False),
    Column("retry", JSONB),
    Column("idempotent", Boolean, nullable=False, server_default=text("false")),
    Column("deadline", Moment),
    Column("due_at", Moment),
    Column("ready_at", Moment),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    UniqueConstraint("run_id", "idx"),
    postgresql_with={"fillfactor": "70"},
)
Index("ix_steps_due_at", steps.c.due_at, postgresql_where=steps.c.due_at.is_not(None))
Index("ix_steps_waiting", steps.c.ready_at, postgresql_where=steps.c.state == "waiting")
Index("ix_steps_node", steps.c.run_id, steps.c.node, postgresql_where=steps.c.state == "pending")

nodes = Table(
    "nodes",
    metadata,
    Column("run_id", Id, ForeignKey(runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("unfinished", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("undecided", Integer, nullable=False),
    Column("dead", Boolean, nullable=False),
    Column("due_at", Moment),
    PrimaryKeyConstraint("run_id", "name"),
)
Index("ix_nodes_due_at", nodes.c.due_at, postgresql_where=nodes.c.due_at.is_not(None))

edges = Table(
    "edges",
    metadata,
    Column("run_id", Id, ForeignKey(runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("source", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("condition", Text, nullable=False),
    PrimaryKeyConstraint("run_id", "source", "target"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("step_id", Id, ForeignKey(steps.c.id, ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("run_id", Id, nullable=False),
    Column("idx", Integer, nullable=False),
    Column("agent_id", Id, nullable=False),
    Column("token", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("result", Text),
    Column("reason", Text, nullable=False, server_default=""),
    Column("exit_code", Integer),
    Column("output", JSON),
    Column("error", JSON),
    Column("chunks", Integer),
    Column("lines", BigInteger),
    Column("bytes", BigInteger),
    Column("tree_gone", Boolean),
    # The end is the agent's own report (it may forget it); evidence is a report that came too late to count.
    Column("reported", Boolean, nullable=False, server_default=text("false")),
    Column("evidence", JSON),
    Column("dispatched_at", Moment, nullable=False, server_default=func.now()),
    Column("started_at", Moment),
    Column("finished_at", Moment),
    PrimaryKeyConstraint("step_id", "attempt"),
    UniqueConstraint("run_id", "idx"),
    postgresql_with={"fillfactor": "70"},
)
Index("ix_attempts_live", attempts.c.agent_id, postgresql_where=attempts.c.state != "finished")

run_events = Table(
    "run_events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("run_id", Id, ForeignKey(runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("step_id", Id),
    Column("step", Text),
    Column("attempt", Integer),
    Column("host", Text),
    Column("old", Text),
    Column("new", Text, nullable=False),
    Column("result", Text),
    Column("reason", Text, nullable=False, server_default=""),
    Column("at", Moment, nullable=False, server_default=func.now()),
    UniqueConstraint("run_id", "seq"),
)

leases = Table(
    "leases",
    metadata,
    # One row a slot of an agent; the token is the fence of the attempt that holds it.
    Column("agent_id", Id, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("step_id", Id),
    Column("attempt", Integer),
    Column("token", Text),
    Column("taken_at", Moment),
    PrimaryKeyConstraint("agent_id", "slot"),
    postgresql_with={"fillfactor": "50"},
)
Index("uq_leases_token", leases.c.token, unique=True, postgresql_where=leases.c.token.is_not(None))
