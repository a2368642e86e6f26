"""Who an agent is on the bus: keys, users signed for the server, connections that are closed again."""
