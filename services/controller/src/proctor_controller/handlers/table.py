"""Every operation of the api with its handler."""

from collections.abc import Mapping

from proctor_controller.handlers import agents, audit, groups
from proctor_controller.handlers.calls import CallHandler

HANDLERS: Mapping[str, CallHandler] = {**agents.HANDLERS, **groups.HANDLERS, **audit.HANDLERS}
