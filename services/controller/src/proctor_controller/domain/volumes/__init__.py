"""The volume pool's rules: states, refill, breaker, settings, what a sync finds. Pure."""
