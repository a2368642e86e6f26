"""Operations on groups. No SQL."""

from proctor_common.errors import Code, ProctorError, invalid, not_found
from proctor_common.ids import GROUP_NAME
from proctor_common.messages.base import Encoded
from proctor_common.messages.calls.agents import GroupBinding, GroupList, GroupRef
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.pages import GroupPage
from proctor_common.messages.views import GroupView
from proctor_common.pg import transaction
from proctor_common.states import AgentState
from proctor_controller.context import ProcessContext
from proctor_controller.db.agents import groups as rows
from proctor_controller.handlers.access import visible_agent
from proctor_controller.handlers.auditing import note


def view_of(group: rows.Group) -> GroupView:
    """The view of a group."""
    return GroupView(name=group.name, agents=group.hosts, created_at=group.created_at)


def _require_seen(actor: Actor, name: str) -> None:
    if not GROUP_NAME.match(name) or not actor.sees(name):
        raise not_found("group", name[:100])


async def list_groups(context: ProcessContext, actor: Actor, body: GroupList) -> Encoded[GroupPage]:
    """``group.list``: by name; the cursor is the last name."""
    after = body.cursor or ""
    if after and not GROUP_NAME.match(after):
        raise invalid("cursor: not one of this list", path="cursor")
    async with transaction(context.database) as connection:
        found = await rows.list_groups(connection, names=actor.groups, after=after, limit=body.limit + 1)
    return GroupPage.of([view_of(group) for group in found], body.limit, lambda view: view.name)


async def get_group(context: ProcessContext, actor: Actor, body: GroupRef) -> GroupView:
    """``group.get``"""
    _require_seen(actor, body.name)
    async with transaction(context.database) as connection:
        group = await rows.load_group(connection, body.name)
    if group is None:
        raise not_found("group", body.name)
    return view_of(group)


async def put_group(context: ProcessContext, actor: Actor, body: GroupRef) -> GroupView:
    """``group.put``: make it if there is none."""
    if not GROUP_NAME.match(body.name):
        raise invalid(
            "name: 1 to 63 of A-Z, a-z, 0-9, dot, underscore and hyphen, a letter or digit first", path="name"
        )
    if not actor.sees(body.name):
        raise ProctorError(Code.FORBIDDEN, "a token bound to groups makes no other groups")
    async with transaction(context.database) as connection:
        if await rows.insert_group(connection, body.name):
            await note(connection, actor, "group.put", body.name)
        group = await rows.load_group(connection, body.name)
    assert group is not None
    return view_of(group)


async def delete_group(context: ProcessContext, actor: Actor, body: GroupRef) -> GroupView:
    """``group.delete``: the group before its deletion; its agents stay."""
    _require_seen(actor, body.name)
    async with transaction(context.database) as connection:
        group = await rows.load_group(connection, body.name)
        if group is None or not await rows.delete_group(connection, group.name):
            raise not_found("group", body.name)
        await note(connection, actor, "group.delete", group.name, {"agents": group.hosts[:1000]})
    return view_of(group)


async def bind_agent(context: ProcessContext, actor: Actor, body: GroupBinding) -> GroupView:
    """``group.bind``: put an agent into a group; may be repeated."""
    agent, view = await _bind(context, actor, body, bound=True)
    await context.engine.agent_status.capacity_changed([agent])
    return view


async def unbind_agent(context: ProcessContext, actor: Actor, body: GroupBinding) -> GroupView:
    """``group.unbind``: take an agent out of a group; may be repeated."""
    return (await _bind(context, actor, body, bound=False))[1]


async def _bind(context: ProcessContext, actor: Actor, body: GroupBinding, *, bound: bool) -> tuple[str, GroupView]:
    _require_seen(actor, body.name)
    async with transaction(context.database) as connection:
        if await rows.load_group(connection, body.name) is None:
            raise not_found("group", body.name)
        agent = await visible_agent(connection, actor, body.agent)
        if agent.state is AgentState.REMOVED:
            raise not_found("agent", body.agent[:100])
        change = rows.bind_agent if bound else rows.unbind_agent
        if await change(connection, body.name, agent.id):
            action = "group.bind" if bound else "group.unbind"
            await note(connection, actor, action, body.name, {"agent": agent.id, "host": agent.host})
        group = await rows.load_group(connection, body.name)
    if group is None:
        raise not_found("group", body.name)
    return agent.id, view_of(group)
