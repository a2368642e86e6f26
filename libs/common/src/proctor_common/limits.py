"""Limits that are used in several modules. Others are defined where they are used. Pure."""

MAX_FAULTS = 100
"""Faults in one answer; more are usually one mistake repeated."""

MAX_LABELS = 32
"""Labels of an agent, and labels in a request or a plan's role, as an agent never has more."""

MAX_OUTPUT = 64 * 1024
"""Bytes, as JSON, of a method's output, which its agent cuts to fit, and of each output that a plan makes of it: they
travel with every event of the step.
"""

MAX_METHODS = 200
"""Methods of a plugin: an agent leaves out a larger plugin, a controller refuses its registration."""

MAX_SCHEMA = 64 * 1024
"""Bytes of the JSON Schema of a method's parameters, so that all of an agent's fit into one registration."""

MAX_SCHEMA_DEPTH = 50
"""Levels of lists and objects in such a schema, which is processed recursively."""

MAX_PLAN_DEPTH = 5
"""Plans that stand in each other: looked at when a run is submitted, and again when a step starts its plan, which may
have been stored anew by then.
"""
