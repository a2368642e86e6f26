"""All SQL of schema ``access``: tokens, sessions, idempotency keys. Takes and returns plain records."""
