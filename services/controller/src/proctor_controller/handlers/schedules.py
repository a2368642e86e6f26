"""Operations on schedules: plans by the clock. No SQL."""

import json
from typing import Any

from proctor_common.errors import Code, ProctorError, fault, faults, invalid, not_found
from proctor_common.ids import GROUP_NAME, PLAN_NAME, new_id
from proctor_common.messages.base import Encoded
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.plans import ScheduleList, SchedulePut, ScheduleRef
from proctor_common.messages.pages import SchedulePage
from proctor_common.messages.views import ScheduleView, TickView
from proctor_common.pg import transaction
from proctor_controller.context import ProcessContext
from proctor_controller.db import schedules as rows
from proctor_controller.db.schedules import Tick
from proctor_controller.db.session import session
from proctor_controller.domain.documents.method_parameters import MASK
from proctor_controller.domain.schedule import Schedule, TickOutcome
from proctor_controller.duties.cron import Cron, find_faults
from proctor_controller.duties.schedules import sealed_for
from proctor_controller.engine.submission.planning import STORED_PLAN, PlanningRequest, prepare_run
from proctor_controller.handlers.access import groups_of, own_group
from proctor_controller.handlers.auditing import note

SHOWN_TICKS = 20
OF_PLAN = frozenset({Code.INVALID, Code.NOT_FOUND, Code.TOO_LARGE})
"""Codes of faults of a plan, which are reported together with the schedule's own."""


def view_of(schedule: Schedule, ticks: list[Tick]) -> ScheduleView:
    """The view of a schedule; ``ticks``: newest first."""
    started = next((tick for tick in ticks if tick.outcome is TickOutcome.STARTED), None)
    return ScheduleView(
        name=schedule.name,
        cron=schedule.cron,
        timezone=schedule.timezone,
        plan=schedule.plan,
        parameters=dict(schedule.parameters),
        overlap=schedule.overlap,
        group=schedule.group,
        created_by=schedule.created_by,
        created_at=schedule.created_at,
        next_at=schedule.next_at,
        last_run=started.run if started else None,
        last_at=started.at if started else None,
        ticks=[TickView(at=tick.at, outcome=tick.outcome.value, run=tick.run, reason=tick.reason) for tick in ticks],
    )


async def list_schedules(context: ProcessContext, actor: Actor, body: ScheduleList) -> Encoded[SchedulePage]:
    """``schedule.list``: by name; the cursor is the last name."""
    after = body.cursor or ""
    if after and not PLAN_NAME.match(after):
        raise invalid("cursor: not one of this list", path="cursor")
    async with transaction(context.database) as connection:
        found = await rows.list_schedules(connection, groups=actor.groups, after=after, limit=body.limit + 1)
        ticks = await rows.newest_ticks(connection, [schedule.id for schedule in found], 5)
    return SchedulePage.of(
        [view_of(each, ticks.get(each.id, [])) for each in found], body.limit, lambda view: view.name
    )


async def get_schedule(context: ProcessContext, actor: Actor, body: ScheduleRef) -> ScheduleView:
    """``schedule.get``"""
    async with transaction(context.database) as connection:
        schedule = await rows.load_schedule(connection, body.name) if PLAN_NAME.match(body.name) else None
        if schedule is None or not actor.sees(schedule.group):
            raise not_found("schedule", body.name[:100])
        ticks = await rows.newest_ticks(connection, [schedule.id], SHOWN_TICKS)
    return view_of(schedule, ticks.get(schedule.id, []))


async def put_schedule(context: ProcessContext, actor: Actor, body: SchedulePut) -> ScheduleView:
    """``schedule.put``: make it, or change the one of this name; a tick that is due already is not caught up."""
    wrong = [fault("invalid", f"{each.path}: {each}", each.path) for each in find_faults(body.cron, body.timezone)]
    if not PLAN_NAME.match(body.name):
        message = "name: 1 to 63 of A-Z, a-z, 0-9, dot, underscore and hyphen, a letter or digit first"
        wrong.insert(0, fault("invalid", message, "name"))
    try:
        group = _group(actor, body.group)
        shown = await _shown(context, actor, body, group)
    except ProctorError as refused:
        if not wrong or refused.code not in OF_PLAN:
            raise
        wrong += refused.details.get("errors") or [fault(refused.code.value, refused.message, "plan")]
    if wrong:
        raise faults(wrong)
    cron = Cron(body.cron, body.timezone)
    whole = {"plan": body.plan, "parameters": body.parameters}
    async with transaction(context.database) as connection:
        former = await rows.load_schedule(connection, body.name, lock=True)
        if former is not None and not actor.sees(former.group):
            raise ProctorError(Code.CONFLICT, f"the name {body.name} is taken", name=body.name)
        id_ = new_id() if former is None else former.id
        schedule = Schedule(
            id=id_,
            name=body.name,
            cron=body.cron,
            timezone=body.timezone,
            plan=shown["plan"],
            next_at=cron.next_after(await rows.read_now(connection)),
            parameters=shown["parameters"],
            sealed=context.engine.services.seal.seal(whole, sealed_for(id_)) if shown != whole else None,
            overlap=body.overlap,
            group=group,
            bound=actor.groups is not None,
            created_by=actor.name,
        )
        await rows.save_schedule(connection, schedule)
        detail = {"cron": body.cron, "timezone": body.timezone, "group": group}
        await note(connection, actor, "schedule.put", body.name, detail)
    return await get_schedule(context, actor, ScheduleRef(name=body.name))


def _group(actor: Actor, group: str | None) -> str | None:
    """The group that the schedule and its runs belong to."""
    if group is not None:
        if not GROUP_NAME.match(group) or not actor.sees(group):
            raise not_found("group", group[:100])
        return group
    return own_group(actor)


async def _shown(context: ProcessContext, actor: Actor, body: SchedulePut, group: str | None) -> dict[str, Any]:
    """Plan and parameters with hidden values masked. Raises 404 and 422, like a submission at the first tick would."""
    request = PlanningRequest(
        run=new_id(),
        plan=body.plan,
        parameters=body.parameters,
        group=group,
        groups=groups_of(actor),
        created_by=actor.name,
    )
    async with session(context.database) as db:
        spec = await prepare_run(context.engine.services, db, request)
    plan = body.plan
    if isinstance(plan, str) and not STORED_PLAN.match(plan):
        plan = spec.document or plan
    elif not isinstance(plan, str) and spec.document is not None:
        plan = json.loads(spec.document)
    parameters = {name: MASK if name in spec.hidden else value for name, value in body.parameters.items()}
    return {"plan": plan, "parameters": parameters}


async def delete_schedule(context: ProcessContext, actor: Actor, body: ScheduleRef) -> ScheduleView:
    """``schedule.delete``: the schedule before its deletion; the runs that it started go on."""
    view = await get_schedule(context, actor, body)
    async with transaction(context.database) as connection:
        if not await rows.delete_schedule(connection, view.name):
            raise not_found("schedule", body.name)
        await note(connection, actor, "schedule.delete", view.name)
    return view
