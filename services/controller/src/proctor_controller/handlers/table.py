"""Every operation of the api with its handler."""

from collections.abc import Mapping

from proctor_controller.handlers import audit, pools, schedules, stored_plans
from proctor_controller.handlers.agents import groups, registry
from proctor_controller.handlers.calls import CallHandler
from proctor_controller.handlers.runs import artefacts, cases, documents, events, gates, plans, records, verbs, views

HANDLERS: Mapping[str, CallHandler] = {
    **registry.HANDLERS,
    **groups.HANDLERS,
    **audit.HANDLERS,
    **cases.HANDLERS,
    **plans.HANDLERS,
    **stored_plans.HANDLERS,
    **views.HANDLERS,
    **verbs.HANDLERS,
    **gates.HANDLERS,
    **documents.HANDLERS,
    **artefacts.HANDLERS,
    **events.HANDLERS,
    **records.HANDLERS,
    **schedules.HANDLERS,
    **pools.HANDLERS,
}
