"""What crosses the bus: frozen models, one module a conversation (orders, events, log, calls) and the views
controllers show.
"""
