"""``proctor up``: the whole system on this machine, from its data directory, until Ctrl-C."""
