"""Agents' identity on the bus: keys, users signed for the server, closing of connections."""
