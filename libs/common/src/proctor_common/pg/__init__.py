"""The database: engine, transactions, sessions, migrations (extra ``[pg]``)."""

from proctor_common.pg.engine import (
    check_database,
    database_unavailable,
    is_database_down,
    make_engine,
    reading,
    transaction,
)
from proctor_common.pg.migrate import MigrationChain, migrate
from proctor_common.pg.sessions import Session, changing, close_sessions, session

__all__ = [
    "MigrationChain",
    "Session",
    "changing",
    "check_database",
    "close_sessions",
    "database_unavailable",
    "is_database_down",
    "make_engine",
    "migrate",
    "reading",
    "session",
    "transaction",
]
