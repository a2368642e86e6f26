"""``run.approve`` and ``run.reject``: a person decides a gate. No SQL."""

from collections.abc import Mapping

from proctor_common.errors import Code, ProctorError, not_found
from proctor_common.messages.calls import Actor, StepRef
from proctor_common.messages.views import RunView
from proctor_common.pg import transaction
from proctor_common.states import Role, StepResult, StepState
from proctor_controller.context import ProcessContext
from proctor_controller.db.runs.gates import FoundStep, find_steps
from proctor_controller.db.session import session
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Decision
from proctor_controller.domain.runs.step import StepKind
from proctor_controller.handlers.agents.registry import note
from proctor_controller.handlers.calls import CallHandler
from proctor_controller.handlers.runs.views import find_visible

MAX_NAME = 400


async def approve(context: ProcessContext, actor: Actor, body: StepRef) -> RunView:
    """Let what waits for the gate go on. The same again: the run as it stands."""
    return await _decide(context, actor, body, approved=True)


async def reject(context: ProcessContext, actor: Actor, body: StepRef) -> RunView:
    """Refuse: the gate ends as failed. The same again: the run as it stands."""
    return await _decide(context, actor, body, approved=False)


async def _decide(context: ProcessContext, actor: Actor, body: StepRef, *, approved: bool) -> RunView:
    view = await find_visible(context, body.run, actor.groups)
    gate = await _find(context, view.id, body.step)
    if not any(actor.role.covers(Role(role)) for role in gate.roles if role in list(Role)):
        raise ProctorError(Code.FORBIDDEN, f"this gate is decided by {' or '.join(gate.roles)}, not by {actor.role}")
    if gate.state is StepState.RUNNING:
        outcome = await context.engine.feed(events.GateDecided(view.id, gate.id, approved, by=actor.name))
        if isinstance(outcome, Decision):
            async with transaction(context.database) as connection:
                action = "run.approve" if approved else "run.reject"
                await note(connection, actor, action, view.id, {"step": body.step, "run_number": view.number})
            return await find_visible(context, view.id, actor.groups)
        gate = await _find(context, view.id, body.step)
    wanted = StepResult.PASSED if approved else StepResult.FAILED
    if gate.state is not StepState.FINISHED:
        raise ProctorError(Code.CONFLICT, f"the gate {body.step} is not open yet: {gate.waiting_for or gate.state}")
    # One that a former run has passed was approved there.
    given = StepResult.PASSED if gate.result is StepResult.REUSED else gate.result
    if given is not wanted:
        said = f"{gate.result}" + (f" ({gate.reason})" if gate.reason else "")
        how = "been decided" if given in {StepResult.PASSED, StepResult.FAILED} else "ended"
        raise ProctorError(Code.CONFLICT, f"the gate {body.step} has {how}: {said}")
    return await find_visible(context, view.id, actor.groups)


async def _find(context: ProcessContext, run: str, name: str) -> FoundStep:
    if "\0" in name or len(name) > MAX_NAME:
        raise not_found("step", name[:100])
    async with session(context.database) as db:
        found = await find_steps(db, run, name)
    if not found:
        raise not_found("step", name)
    if found[0].kind is not StepKind.GATE:
        raise ProctorError(Code.CONFLICT, f"the step {name} is not a gate")
    if len(found) > 1:
        raise ProctorError(Code.CONFLICT, f"there are several gates {name}: name one of them as {name}[instance]")
    return found[0]


HANDLERS: Mapping[str, CallHandler] = {"run.approve": approve, "run.reject": reject}
