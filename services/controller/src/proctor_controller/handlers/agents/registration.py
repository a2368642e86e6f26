"""Registrations of agents: plugins, methods, targets, slots. No SQL."""

import asyncio
from datetime import timedelta

import structlog

from proctor_common import subjects
from proctor_common.bus import Message
from proctor_common.errors import ProctorError
from proctor_common.ids import is_id
from proctor_common.messages.base import BadMessage, decode
from proctor_common.messages.events import Registration, RegistrationReply
from proctor_common.pg import transaction
from proctor_common.states import AgentState
from proctor_controller.context import ProcessContext
from proctor_controller.db.agents import registry as rows
from proctor_controller.domain.hosts.agent import Agent, Claim, judge_instance
from proctor_controller.handlers.agents.method_schemas import MAX_REGISTRATION, find_fault
from proctor_controller.identity.connections import is_connected

log = structlog.get_logger(__name__)


class Registrations:
    """Answers the registrations of agents; the subject names the agent."""

    def __init__(self, context: ProcessContext) -> None:
        self._context = context

    async def answer(self, message: Message) -> bytes | None:
        """The reply; None while the database is away (the agent asks again)."""
        agent = subjects.agent_of(message.subject)
        try:
            brought = _read(message.data)
        except BadMessage as fault:
            log.warning("registration_refused", agent=agent, reason=str(fault))
            return self._refusal(agent, str(fault)).encode()
        try:
            return (await self._register(agent, brought)).encode()
        except ProctorError as fault:
            log.warning("registration_not_taken", agent=agent, error=fault.message)
            return None

    async def _register(self, agent: str, brought: Registration) -> RegistrationReply:
        context = self._context
        async with transaction(context.database) as connection:
            known = await rows.load_agent(connection, agent) if is_id(agent) else None
        if known is None or known.state is AgentState.REMOVED:
            return self._refusal(agent, "this agent was removed; it has to join again")
        fault = await _find_fault(known, brought)
        if fault:
            log.warning("registration_refused", agent=agent, host=known.host, reason=fault)
            return self._refusal(agent, fault, known)
        connected = await self._is_connected(known, brought.instance)
        async with transaction(context.database) as connection:
            found = await rows.lock_agent(connection, agent)
            if found is None or found[0].state is AgentState.REMOVED:
                return self._refusal(agent, "this agent was removed; it has to join again")
            present, now = found
            claim = judge_instance(
                present.instance,
                brought.instance,
                last_heartbeat=present.last_heartbeat,
                now=now,
                heartbeat=timedelta(seconds=context.settings.heartbeat),
                # The answer was about the former instance.
                present_connected=connected if present.instance == known.instance else None,
            )
            if claim is Claim.RIVAL:
                await rows.save_rival(connection, agent, brought.instance)
            else:
                await rows.save_registration(connection, agent, brought)
        if claim is Claim.RIVAL:
            return self._refuse_rival(present, brought.instance)
        log.info("agent_registered", agent=agent, host=present.host, instance=brought.instance, claim=claim.value)
        if present.state is AgentState.LOST:
            await context.engine.agent_status.agents_returned([agent])
        if not brought.leftovers:
            await context.engine.agent_status.capacity_changed([agent])
        return RegistrationReply(agent=agent, host=present.host, number=present.number, time=now)

    async def _is_connected(self, known: Agent, instance: str) -> bool | None:
        """Whether the present instance has a connection, if that matters."""
        if known.instance is None or known.instance == instance:
            return None
        return await is_connected(self._context.system, known.id, known.instance)

    def _refuse_rival(self, present: Agent, rival: str) -> RegistrationReply:
        log.error("two_instances", agent=present.id, host=present.host, instance=present.instance, rival=rival)
        return self._refusal(
            present.id,
            f"instance {present.instance} speaks as this agent and still beats; "
            "two processes must not share one key (a cloned machine?)",
            present,
        )

    def _refusal(self, agent: str, reason: str, known: Agent | None = None) -> RegistrationReply:
        return RegistrationReply(
            agent=agent,
            host=known.host if known else "",
            number=known.number if known else 0,
            time=self._context.clock.now(),
            refused=reason,
        )


def _read(payload: bytes) -> Registration:
    if len(payload) > MAX_REGISTRATION:
        raise BadMessage(f"a registration of {len(payload)} bytes is over the limit of {MAX_REGISTRATION}")
    return decode(Registration, payload)


async def _find_fault(known: Agent, brought: Registration) -> str:
    """Check a registration; plugins that are stored already have been checked."""
    dumped = brought.model_dump(mode="json", include={"plugins"})
    if known.plugins and dumped["plugins"] == known.plugins:
        return find_fault(brought.model_copy(update={"plugins": {}}))
    # Check up to 200 schemas in a thread: heartbeats wait for the loop.
    return await asyncio.to_thread(find_fault, brought)
