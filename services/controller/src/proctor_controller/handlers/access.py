"""What a caller may see: an agent or a run by any of its names, and the group of a request. No SQL."""

from sqlalchemy.ext.asyncio import AsyncConnection

from proctor_common.errors import Code, ProctorError, invalid, not_found
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.views import RunView
from proctor_controller.context import ProcessContext
from proctor_controller.db.agents.registry import find_agent
from proctor_controller.db.runs.views import RunKey, find_run, parse_key
from proctor_controller.db.session import Session, session
from proctor_controller.domain.hosts.agent import Agent


async def visible_agent(connection: AsyncConnection, actor: Actor, name: str) -> Agent:
    """The agent with this id, number or host name, if the caller may see it. Raises ProctorError ``not_found``.

    A caller bound to groups sees the agents in one of them.
    """
    agent = await find_agent(connection, name[:100])
    if agent is None or not (actor.groups is None or any(group in actor.groups for group in agent.groups)):
        raise not_found("agent", name[:100])
    return agent


def key_of(run: str) -> RunKey:
    """The run's key. Raises 404 for a malformed one."""
    key = parse_key(run)
    if key is None:
        raise not_found("run", run[:100])
    return key


async def visible_run(context: ProcessContext, actor: Actor, run: str) -> RunView:
    """The run, if the caller may see it; else raises 404."""
    async with session(context.database) as db:
        view = await find_run(db, key_of(run), actor.groups)
    if view is None:
        raise not_found("run", run)
    return view


async def existing_run(db: Session, actor: Actor, run: str) -> RunView:
    """The run that an earlier copy of the request has started. Raises 409 if it is somebody else's."""
    view = await find_run(db, RunKey(run, None), actor.groups)
    if view is None:
        raise ProctorError(Code.CONFLICT, "there is a run with this id already")
    return view


def groups_of(actor: Actor) -> tuple[str, ...] | None:
    """The groups that the caller is bound to; None: not bound."""
    return None if actor.groups is None else tuple(actor.groups)


def run_group(actor: Actor, group: str | None) -> str | None:
    """The group of a run: the requested one, or a bound caller's only one. Raises 404, 422."""
    if actor.groups is None:
        return group
    if group is not None:
        if group not in actor.groups:
            # For a bound caller other groups do not exist.
            raise not_found("group", group)
        return group
    if not actor.groups:
        raise ProctorError(Code.FORBIDDEN, "this token is bound to no group that exists")
    if len(actor.groups) > 1:
        raise invalid(f"name one of your groups: {', '.join(sorted(actor.groups))}", path="group")
    return actor.groups[0]


def own_group(actor: Actor) -> str | None:
    """The group of a plan or schedule without a requested group: a bound caller's only one. Raises 422."""
    if actor.groups is None:
        return None
    if len(actor.groups) != 1:
        raise invalid("name one of your groups", path="group")
    return actor.groups[0]
