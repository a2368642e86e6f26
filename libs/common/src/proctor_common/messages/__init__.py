"""Messages on the bus: frozen models, a module for each conversation (orders, events, log, calls), and views."""
