"""The api's own Alembic chain: schema ``access`` (tokens, sessions, idempotency keys)."""

from proctor_common.pg import Chain

CHAIN = Chain("proctor_api.migrations", ("access",))
