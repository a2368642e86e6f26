"""Tables of agents: who they are, how they joined, which groups they are in; the audit; the duties of controllers."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from proctor_controller.db.tables import metadata

Id = Uuid(as_uuid=False)
Moment = DateTime(timezone=True)

agents = Table(
    "agents",
    metadata,
    Column("id", Id, primary_key=True),
    Column("number", Integer, Identity(), nullable=False, unique=True),
    Column("host", Text, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="enrolled"),
    Column("draining", Boolean, nullable=False, server_default=text("false")),
    Column("labels", JSONB, nullable=False, server_default=text("'{}'")),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
    # What the registration of the present process brought; instance is null until the first one.
    Column("boot_id", Text, nullable=False, server_default=""),
    Column("instance", Text),
    Column("slots", Integer, nullable=False, server_default=text("0")),
    Column("plugins", JSONB, nullable=False, server_default=text("'{}'")),
    Column("load_errors", JSONB, nullable=False, server_default=text("'{}'")),
    Column("targets", JSONB, nullable=False, server_default=text("'{}'")),
    Column("default_target", Text),
    Column("version", Text, nullable=False, server_default=""),
    Column("registered_at", Moment),
    # Attempts of a former process may still run on its targets: no work until a registration says they are gone.
    Column("leftovers", Boolean, nullable=False, server_default=text("false")),
    # Set beside leftovers when a lost agent returns: it may still run what was given up; a beat without it clears both.
    Column("settling", Boolean, nullable=False, server_default=text("false")),
    Column("last_heartbeat", Moment),
    # A second process that speaks with this agent's key while the first one beats.
    Column("rival", Text),
    Column("rival_at", Moment),
    # Reports about attempts it was never given.
    Column("forged", Integer, nullable=False, server_default=text("0")),
    Column("revoked_at", Moment),
    Column("revoked_reason", Text, nullable=False, server_default=""),
    # When its connections are to be closed (once more): its key was revoked, and none that used it may be left.
    Column("cut_at", Moment),
    CheckConstraint("state in ('enrolled', 'online', 'suspect', 'lost', 'removed')", name="state"),
    CheckConstraint("(state = 'removed') = (revoked_at is not null)", name="revoked"),
    # Beats rewrite the row: room on its page keeps each of them off the indexes.
    postgresql_with={"fillfactor": "60"},
)
Index("uq_agents_host", agents.c.host, unique=True, postgresql_where=agents.c.revoked_at.is_(None))
Index("uq_agents_public_key", agents.c.public_key, unique=True)

groups = Table(
    "groups",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
)

group_agents = Table(
    "group_agents",
    metadata,
    Column("group_name", Text, ForeignKey(groups.c.name, ondelete="CASCADE"), primary_key=True),
    Column("agent_id", Id, ForeignKey(agents.c.id, ondelete="CASCADE"), primary_key=True, index=True),
)

enrolments = Table(
    "enrolments",
    metadata,
    Column("id", Id, primary_key=True),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("host", Text, nullable=False, index=True),
    Column("groups", ARRAY(Text), nullable=False),
    Column("labels", JSONB, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", Moment, nullable=False, server_default=func.now()),
    Column("expires_at", Moment, nullable=False),
    Column("used_at", Moment),
    Column("used_key", Text),
    Column("agent_id", Id, ForeignKey(agents.c.id, ondelete="SET NULL")),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("at", Moment, nullable=False, server_default=func.clock_timestamp()),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False, server_default=""),
    Column("token", Text),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False, server_default=""),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
)

duties = Table(
    "duties",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_at", Moment, nullable=False),
)
