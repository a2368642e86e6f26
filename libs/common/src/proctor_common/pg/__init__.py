"""The database: engine, transactions, migrations (extra ``[pg]``)."""

from proctor_common.pg.engine import (
    check_database,
    database_unavailable,
    is_database_down,
    make_engine,
    reading,
    transaction,
)
from proctor_common.pg.migrate import Chain, migrate

__all__ = [
    "Chain",
    "check_database",
    "database_unavailable",
    "is_database_down",
    "make_engine",
    "migrate",
    "reading",
    "transaction",
]
