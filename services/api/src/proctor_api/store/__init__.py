"""All SQL of the schema ``access``: tokens, sessions, idempotency keys."""
