"""``plan.put|get|list|delete``: stored plans, each change a new version. No SQL."""

import json

from pydantic_core import to_json

from proctor_common.errors import Code, ProctorError, invalid, not_found
from proctor_common.ids import GROUP_NAME, PLAN_NAME
from proctor_common.messages.base import Encoded
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.plans import PlanList, PlanPut, PlanRef
from proctor_common.messages.pages import ROOM, PlanPage
from proctor_common.messages.views import PlanView
from proctor_common.pg import transaction
from proctor_controller.context import ProcessContext
from proctor_controller.db import plans as rows
from proctor_controller.db.session import session
from proctor_controller.engine.submission.planning import check_stored
from proctor_controller.handlers.access import groups_of, own_group
from proctor_controller.handlers.auditing import note

ROOM_FOR_REST = 16 * 1024
"""Size of a plan's view without its text."""


def view_of(plan: rows.StoredPlan, *, with_text: bool = True) -> PlanView:
    """The view of a stored plan."""
    return PlanView(
        name=plan.name,
        version=plan.version,
        versions=list(plan.versions),
        plan=plan.document if with_text else None,
        group=plan.group,
        created_at=plan.created_at,
        created_by=plan.created_by,
    )


async def put_plan(context: ProcessContext, actor: Actor, body: PlanPut) -> PlanView:
    """``plan.put``: the newest version afterwards. Raises 422 with all faults, 409 for another group's name."""
    if not PLAN_NAME.match(body.name):
        raise invalid("must be 1 to 63 letters, digits, dots, dashes or underscores", path="name")
    document = body.plan if isinstance(body.plan, str) else json.dumps(body.plan, ensure_ascii=False)
    if len(to_json(document)) > ROOM - ROOM_FOR_REST:
        raise ProctorError(Code.TOO_LARGE, "the plan is too large to be shown again", limit="1 MiB as JSON")
    async with session(context.database) as db:
        await check_stored(db, body.name, body.plan, groups_of(actor))
    async with transaction(context.database) as connection:
        await rows.lock_plan(connection, body.name)
        known = await rows.load_plan(connection, body.name, None)
        if known is not None and not actor.sees(known.group):
            raise ProctorError(Code.CONFLICT, "there is a plan of this name already: choose another one")
        group = _owner(actor, body.group, known)
        if known is not None and known.document == document and known.group == group:
            return view_of(known)
        await rows.insert_plan(connection, body.name, document, group, actor.name)
        await note(connection, actor, "plan.put", body.name)
        stored = await rows.load_plan(connection, body.name, None)
    assert stored is not None
    return view_of(stored)


def _owner(actor: Actor, group: str | None, known: rows.StoredPlan | None) -> str | None:
    """The group that the plan belongs to."""
    if group is not None:
        if not GROUP_NAME.match(group) or not actor.sees(group):
            if actor.groups is None:
                raise invalid("is not a group's name", path="group")
            raise not_found("group", group[:100])
        return group
    if known is not None:
        return known.group
    return own_group(actor)


async def get_plan(context: ProcessContext, actor: Actor, body: PlanRef) -> PlanView:
    """``plan.get``"""
    return view_of(await _find(context, actor, body))


async def _find(context: ProcessContext, actor: Actor, body: PlanRef) -> rows.StoredPlan:
    version = body.version
    shown = body.name if version is None else f"{body.name}@{version}"
    if not PLAN_NAME.match(body.name) or (version is not None and not 0 < version < 2**31):
        raise not_found("plan", shown[:100])
    async with transaction(context.database) as connection:
        plan = await rows.load_plan(connection, body.name, version)
    if plan is None or not actor.sees(plan.group):
        raise not_found("plan", shown)
    return plan


async def list_plans(context: ProcessContext, actor: Actor, body: PlanList) -> Encoded[PlanPage]:
    """``plan.list``: by name; the cursor is the last name."""
    after = body.cursor or ""
    if after and not PLAN_NAME.match(after):
        raise invalid("cursor: not one of this list", path="cursor")
    async with transaction(context.database) as connection:
        found = await rows.list_plans(connection, groups=actor.groups, after=after, limit=body.limit + 1)
    return PlanPage.of([view_of(plan, with_text=False) for plan in found], body.limit, lambda view: view.name)


async def delete_plan(context: ProcessContext, actor: Actor, body: PlanRef) -> PlanView:
    """``plan.delete``: all versions; the plan before its deletion."""
    plan = await _find(context, actor, PlanRef(name=body.name))
    async with transaction(context.database) as connection:
        if not await rows.delete_plan(connection, plan.name):
            raise not_found("plan", body.name)
        await note(connection, actor, "plan.delete", plan.name)
    return view_of(plan)
