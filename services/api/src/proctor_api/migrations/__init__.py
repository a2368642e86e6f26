"""The api's own Alembic chain: schemas ``access`` (tokens, sessions, keys) and ``catalog`` (the Test API)."""

from proctor_common.pg import MigrationChain

CHAIN = MigrationChain("proctor_api.migrations", ("access", "catalog"))
