"""Periodic jobs that one controller at a time does, under a lease with an epoch."""
