"""Operations on agents: enrol, join, show, drain, release, remove. No SQL."""

import re

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from proctor_common import subjects
from proctor_common.bus import BusError
from proctor_common.errors import Code, ProctorError, fault, faults, invalid, not_found
from proctor_common.ids import GROUP_NAME, HOST_NAME, new_id, new_token, token_hash
from proctor_common.limits import MAX_LABELS
from proctor_common.messages.base import Encoded
from proctor_common.messages.calls.agents import AgentList, AgentRef, Enrol, Join
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.events import PluginSpec, TargetSpec
from proctor_common.messages.orders import DrainOrder
from proctor_common.messages.pages import AgentPage
from proctor_common.messages.views import AgentView, EnrolmentView, JoinView, NatsAddress
from proctor_common.pg import transaction
from proctor_common.states import AgentState
from proctor_controller.context import ProcessContext
from proctor_controller.db.agents import registry as rows
from proctor_controller.db.agents.enrolments import (
    Enrolment,
    insert_enrolment,
    lock_enrolment,
    pending_groups,
    use_enrolment,
)
from proctor_controller.db.agents.groups import missing_groups
from proctor_controller.domain.hosts.agent import Agent
from proctor_controller.handlers.access import visible_agent
from proctor_controller.handlers.auditing import note
from proctor_controller.identity.connections import close_clients
from proctor_controller.identity.nkey import BadKey, public_bytes

log = structlog.get_logger(__name__)

TOLD_SECONDS = 1.0
MAX_GROUPS = 32
LABEL_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}\Z")
LABEL_VALUE = re.compile(r"^[A-Za-z0-9._/:@+-]{0,255}\Z")
ALIVE = (AgentState.ONLINE, AgentState.SUSPECT)


def view_of(agent: Agent) -> AgentView:
    """The view of an agent."""
    return AgentView(
        id=agent.id,
        number=agent.number,
        host=agent.host,
        state=agent.state,
        draining=agent.draining,
        reason=agent.reason() or agent.warning(),
        slots=agent.slots,
        used_slots=agent.used_slots,
        leases=agent.leases,
        default_target=agent.default_target,
        targets={name: TargetSpec.model_validate(target) for name, target in agent.targets.items()},
        groups=agent.groups,
        labels=agent.labels,
        plugins={name: PluginSpec.model_validate(plugin) for name, plugin in agent.plugins.items()},
        load_errors=agent.load_errors,
        last_heartbeat=agent.last_heartbeat,
        version=agent.version,
        ready=not agent.reason(),
    )


def require_whole(actor: Actor, agent: Agent) -> None:
    """Refuse a caller bound to groups if the agent serves other groups too."""
    foreign = [group for group in agent.groups if actor.groups is not None and group not in actor.groups]
    if foreign:
        raise ProctorError(Code.FORBIDDEN, f"{agent.host} serves groups that this token is not bound to")


async def get_agent(context: ProcessContext, actor: Actor, body: AgentRef) -> AgentView:
    """``agent.get``"""
    async with transaction(context.database) as connection:
        return view_of(await visible_agent(connection, actor, body.agent))


async def list_agents(context: ProcessContext, actor: Actor, body: AgentList) -> Encoded[AgentPage]:
    """``agent.list``: by host name; the cursor is the last name."""
    after = body.cursor or ""
    if after and not HOST_NAME.match(after):
        raise invalid("cursor: not one of this list", path="cursor")
    async with transaction(context.database) as connection:
        found = await rows.list_agents(connection, groups=actor.groups, after=after, limit=body.limit + 1)
    return AgentPage.of([view_of(agent) for agent in found], body.limit, lambda view: view.host)


async def drain_agent(context: ProcessContext, actor: Actor, body: AgentRef) -> AgentView:
    """``agent.drain``: no new work; running steps continue, and so do runs that have leased the host."""
    return await _set_draining(context, actor, body, draining=True)


async def undrain_agent(context: ProcessContext, actor: Actor, body: AgentRef) -> AgentView:
    """``agent.undrain``"""
    view = await _set_draining(context, actor, body, draining=False)
    try:
        # Otherwise it would refuse orders until its next heartbeat is answered.
        order = DrainOrder(draining=False).encode()
        await context.bus.request(subjects.order(view.id, "drain"), order, timeout=TOLD_SECONDS)
    except BusError as fault:
        log.debug("agent_not_told", agent=view.id, error=str(fault))
    await context.engine.agent_status.capacity_changed([view.id])
    return view


async def _set_draining(context: ProcessContext, actor: Actor, body: AgentRef, *, draining: bool) -> AgentView:
    async with transaction(context.database) as connection:
        agent = await visible_agent(connection, actor, body.agent)
        if agent.state is AgentState.REMOVED:
            raise ProctorError(Code.CONFLICT, f"{agent.host} was removed")
        require_whole(actor, agent)
        if await rows.set_draining(connection, agent.id, draining):
            await note(connection, actor, "agent.drain" if draining else "agent.undrain", agent.host, {"id": agent.id})
        changed = await rows.load_agent(connection, agent.id)
        assert changed is not None
        return view_of(changed)


async def release_agent(context: ProcessContext, actor: Actor, body: AgentRef) -> AgentView:
    """``agent.release``: what is left on its targets now no longer prevents exclusive leases."""
    async with transaction(context.database) as connection:
        agent = await visible_agent(connection, actor, body.agent)
        if agent.state is AgentState.REMOVED:
            raise ProctorError(Code.CONFLICT, f"{agent.host} was removed")
        require_whole(actor, agent)
        await rows.release_remains(connection, agent.id)
        await note(connection, actor, "agent.release", agent.host, {"id": agent.id, "remains": agent.remains})
    await context.engine.agent_status.capacity_changed([agent.id])
    return view_of(agent)


async def remove_agent(context: ProcessContext, actor: Actor, body: AgentRef) -> AgentView:
    """``agent.remove``: its key is invalid from the commit on; its connections are closed."""
    async with transaction(context.database) as connection:
        agent = await visible_agent(connection, actor, body.agent)
        require_whole(actor, agent)
        removed = await rows.revoke_agent(connection, agent.id, f"removed by {actor.name}")
        if removed:
            await note(connection, actor, "agent.remove", agent.host, {"id": agent.id})
        changed = await rows.load_agent(connection, agent.id)
        assert changed is not None
    if removed:
        # If this fails (no answer, a crash here), the duty ``agents`` closes them.
        await close_clients(context.system, agent.id)
        await context.engine.agent_status.agents_lost([agent.id])
    return view_of(changed)


async def enrol_agent(context: ProcessContext, actor: Actor, body: Enrol) -> EnrolmentView:
    """``agent.enrol``: a one-time token for one host name. The groups must exist. A bound caller must be bound to all
    groups of the host's agent, in any state, and of its pending enrolment.
    """
    groups = _groups_for(actor, body)
    _check_enrolment(body)
    token = new_token("join")
    async with transaction(context.database) as connection:
        missing = await missing_groups(connection, groups)
        if missing:
            raise not_found("group", missing[0])
        _require_free(await rows.find_host(connection, body.host), body.host, actor.groups)
        _require_all(actor.groups, await pending_groups(connection, body.host), body.host)
        expires_at = await insert_enrolment(
            connection,
            new_id(),
            token_hash=token_hash(token),
            host=body.host,
            groups=groups,
            bound=actor.groups,
            labels=body.labels,
            created_by=actor.name,
            lifetime=context.settings.enrolment_lifetime,
        )
        await note(connection, actor, "agent.enrol", body.host, {"groups": groups, "labels": body.labels})
    return EnrolmentView(host=body.host, token=token, expires_at=expires_at, groups=groups, labels=body.labels)


def _groups_for(actor: Actor, body: Enrol) -> list[str]:
    groups = sorted(set(body.groups))
    if actor.groups is None:
        return groups
    if not groups and len(actor.groups) == 1:
        return list(actor.groups)
    if not groups or any(group not in actor.groups for group in groups):
        raise ProctorError(Code.FORBIDDEN, "a token bound to groups enrols agents for one of its groups")
    return groups


def _check_enrolment(body: Enrol) -> None:
    errors: list[tuple[str, str]] = []
    if not HOST_NAME.match(body.host):
        errors.append(("host", "host: 1 to 63 of A-Z, a-z, 0-9, dot, underscore and hyphen"))
    if len(body.groups) > MAX_GROUPS or not all(GROUP_NAME.match(group) for group in body.groups):
        errors.append(("groups", f"groups: at most {MAX_GROUPS} names of groups"))
    if len(body.labels) > MAX_LABELS:
        errors.append(("labels", f"labels: at most {MAX_LABELS}"))
    for name, value in list(body.labels.items())[:MAX_LABELS]:
        if not LABEL_NAME.match(name):
            errors.append(("labels", f"labels: not a name: {name[:80]!r}"))
        elif not LABEL_VALUE.match(value):
            errors.append((f"labels.{name}", f"labels.{name}: at most 255 of A-Z, a-z, 0-9 and ._/:@+-"))
    if errors:
        raise faults([fault("invalid", text, path) for path, text in errors])


def _require_all(bound: list[str] | None, groups: list[str] | None, host: str) -> None:
    """Raise 404 for a caller bound to groups if the host belongs to others too."""
    if bound is not None and groups is not None and not (groups and set(groups) <= set(bound)):
        raise not_found("agent", host)


def _require_free(agent: Agent | None, host: str, bound: list[str] | None) -> None:
    if agent is None:
        return
    _require_all(bound, agent.groups, host)
    if agent.state in ALIVE:
        message = f"an agent of host {host} is {agent.state}; remove it first"
        raise ProctorError(Code.CONFLICT, message, agent=agent.id)


async def join_agent(context: ProcessContext, actor: Actor, body: Join) -> JoinView:
    """``agent.join``: a token admits an agent's key."""
    try:
        public_bytes(body.public_key, "U")
    except BadKey as fault:
        raise invalid(f"public_key: {fault}", path="public_key") from None
    try:
        async with transaction(context.database) as connection:
            enrolment = await lock_enrolment(connection, token_hash(body.token[:256]))
            if enrolment is None:
                raise ProctorError(Code.UNAUTHENTICATED, "no such join token")
            if enrolment.used_key is not None:
                agent, replaced = await _join_again(connection, enrolment, body.public_key), False
            else:
                agent, replaced = await _join_first(connection, actor, enrolment, body.public_key)
    except IntegrityError as fault:
        raise ProctorError(Code.CONFLICT, "another agent has this host or this key already") from fault
    if replaced:
        await close_clients(context.system, agent)
    return JoinView(agent=agent, host=enrolment.host, nats=await _address(context))


async def _join_again(connection: AsyncConnection, enrolment: Enrolment, public_key: str) -> str:
    """The same key again: the same answer, as long as the key is valid."""
    if enrolment.used_key != public_key:
        raise ProctorError(Code.CONFLICT, "this join token was used with another key; ask for a new one")
    if not enrolment.fresh:
        raise _expired()
    agent = await rows.load_agent(connection, enrolment.agent) if enrolment.agent else None
    if agent is None or agent.state is AgentState.REMOVED or agent.public_key != public_key:
        raise ProctorError(Code.CONFLICT, f"the agent of {enrolment.host} was removed; ask for a new join token")
    return agent.id


async def _join_first(
    connection: AsyncConnection, actor: Actor, enrolment: Enrolment, public_key: str
) -> tuple[str, bool]:
    """The agent's id, and whether it had another key before."""
    if not enrolment.fresh:
        raise _expired()
    former = await rows.find_host(connection, enrolment.host, lock=True)
    # Check again: the host may have joined, or changed groups, since it was enrolled.
    _require_free(former, enrolment.host, enrolment.bound)
    if former is None:
        agent = new_id()
        await rows.insert_agent(connection, agent, host=enrolment.host, public_key=public_key, labels=enrolment.labels)
    else:
        # The host was reinstalled: it remains the same agent, with another key.
        agent = former.id
        await rows.rekey_agent(connection, agent, public_key=public_key, labels=enrolment.labels)
    await rows.bind_groups(connection, agent, enrolment.groups)
    await use_enrolment(connection, enrolment.id, public_key=public_key, agent=agent)
    await note(connection, actor, "agent.join", enrolment.host, {"id": agent, "public_key": public_key})
    return agent, former is not None and former.public_key != public_key


def _expired() -> ProctorError:
    return ProctorError(Code.UNAUTHENTICATED, "the join token has expired; ask for a new one")


async def _address(context: ProcessContext) -> NatsAddress:
    settings = context.settings
    return NatsAddress(urls=settings.agent_nats_urls or settings.nats_urls, ca=context.ca)
