"""Backends of the volume pool: where volumes really are. A backend knows no database and no rule of the pool."""
