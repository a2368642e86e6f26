"""Every operation of the api with its handler."""

from collections.abc import Mapping

from proctor_controller.handlers import (
    agents,
    artefacts,
    audit,
    cases,
    documents,
    events,
    gates,
    groups,
    plans,
    pools,
    records,
    runs,
    schedules,
    stored_plans,
    verbs,
)
from proctor_controller.handlers.calls import CallHandler

HANDLERS: Mapping[str, CallHandler] = {
    **agents.HANDLERS,
    **groups.HANDLERS,
    **audit.HANDLERS,
    **cases.HANDLERS,
    **plans.HANDLERS,
    **stored_plans.HANDLERS,
    **runs.HANDLERS,
    **verbs.HANDLERS,
    **gates.HANDLERS,
    **documents.HANDLERS,
    **artefacts.HANDLERS,
    **events.HANDLERS,
    **records.HANDLERS,
    **schedules.HANDLERS,
    **pools.HANDLERS,
}
