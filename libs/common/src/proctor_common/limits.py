"""Limits that hold in several places at once. Those that hold in one place stand there. Pure."""

MAX_FAULTS = 100
"""Faults that one answer names: whoever has more has made one mistake many times."""

MAX_LABELS = 32
"""Labels of an agent, and labels that a request or a plan's role asks for: an agent never has more."""

MAX_OUTPUT = 64 * 1024
"""Bytes, as JSON, of a method's output, which its agent cuts to fit, and of each output that a plan makes of it: they
travel with every event of the step.
"""

MAX_METHODS = 200
"""Methods of a plugin: an agent leaves a larger one out, a controller refuses a registration that has one."""

MAX_SCHEMA = 64 * 1024
"""Bytes of the JSON Schema of a method's parameters: all of an agent's fit into one registration."""

MAX_SCHEMA_DEPTH = 50
"""Levels of lists and objects in such a schema: what checks values by it goes through it by recursion."""

MAX_PLAN_DEPTH = 5
"""Plans that stand in each other: looked at when a run is submitted, and again when a step starts its plan, which may
have been stored anew by then.
"""
