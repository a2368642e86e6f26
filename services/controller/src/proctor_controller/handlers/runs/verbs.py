"""Users' requests to a run: cancel, pause, resume, run again, approve or reject a gate. No SQL.

Each may be repeated. If it changes nothing, the answer is the run; if the run's state does not allow it, a conflict
that says why.
"""

from dataclasses import replace

from proctor_common.errors import Code, ProctorError, invalid, not_found
from proctor_common.ids import is_id, new_id
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import RunAgain, RunRef, StepRef
from proctor_common.messages.views import RunView
from proctor_common.pg import transaction
from proctor_common.states import Role, RunResult, RunState, StepResult, StepState
from proctor_controller.context import ProcessContext
from proctor_controller.db.hosts.candidates import read_clock
from proctor_controller.db.runs.children import FoundStep, find_steps
from proctor_controller.db.runs.reruns import Case, end_hold, load_case, load_passed
from proctor_controller.db.runs.submissions import DuplicateRun
from proctor_controller.db.session import Session, session
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Decision
from proctor_controller.domain.runs.step import Phase, StepKind
from proctor_controller.domain.runs.submission import NodeSpec, RunSpec, StepSpec
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.submission.planning import prepare_run, request_again
from proctor_controller.handlers.access import existing_run, groups_of, visible_run
from proctor_controller.handlers.auditing import note

MAX_NAME = 400
PAUSED = frozenset({RunState.PAUSING, RunState.PAUSED})
RESUMED = frozenset({RunState.QUEUED, RunState.ALLOCATING, RunState.RUNNING})


async def cancel_run(context: ProcessContext, actor: Actor, body: RunRef) -> RunView:
    """Cancel a run; if it has ended and still keeps hosts, release them."""
    view = await visible_run(context, actor, body.run)
    if view.state is not RunState.FINISHED:
        outcome = await context.engine.feed(events.CancelAsked(view.id, by=actor.name))
        if isinstance(outcome, Decision):
            await _note(context, actor, "run.cancel", view)
    elif view.hold_until is not None:
        async with session(context.database) as db:
            held = await end_hold(db, view.id)
        if held:
            await context.engine.leasing.release(view.id)
            await _note(context, actor, "run.cancel", view)
    else:
        return view
    return await visible_run(context, actor, view.id)


async def pause_run(context: ProcessContext, actor: Actor, body: RunRef) -> RunView:
    """Start nothing new; running steps go on to their end."""
    view = await visible_run(context, actor, body.run)
    if view.state in PAUSED:
        return view
    outcome = await context.engine.feed(events.PauseAsked(view.id, by=actor.name))
    after = await visible_run(context, actor, view.id)
    if isinstance(outcome, Decision):
        await _note(context, actor, "run.pause", view)
    elif after.state not in PAUSED:
        raise ProctorError(Code.CONFLICT, f"run {after.number} is {after.state}: only a running one can be paused")
    return after


async def resume_run(context: ProcessContext, actor: Actor, body: RunRef) -> RunView:
    """Continue a paused run."""
    view = await visible_run(context, actor, body.run)
    if view.state in PAUSED and view.parent is not None:
        above = await visible_run(context, actor, view.parent)
        if above.state in PAUSED:
            message = f"run {above.number}, which it is part of, is {above.state}: resume that one"
            raise ProctorError(Code.CONFLICT, f"run {view.number} is {view.state}, and {message}")
    outcome = await context.engine.feed(events.ResumeAsked(view.id, by=actor.name))
    after = await visible_run(context, actor, view.id)
    if isinstance(outcome, Decision):
        await _note(context, actor, "run.resume", view)
    elif after.state not in RESUMED:
        raise ProctorError(Code.CONFLICT, f"run {after.number} is {after.state}: there is nothing to resume")
    return after


async def rerun(context: ProcessContext, actor: Actor, body: RunAgain) -> RunView:
    """A new run of the same document and parameters; ``failed_only``: steps that passed are not run again."""
    if not is_id(body.new_run):
        raise invalid("is not an id", path="new_run")
    engine = context.engine
    view = await visible_run(context, actor, body.run)
    if view.state is not RunState.FINISHED:
        raise ProctorError(Code.CONFLICT, f"run {view.number} is {view.state}: only one that has ended is run again")
    if body.failed_only and view.result is RunResult.PASSED:
        raise ProctorError(Code.CONFLICT, f"run {view.number} passed: it has no failed step to run again")
    async with session(engine.database) as db:
        try:
            spec = await _spec_again(engine, db, view, actor, body)
            new = await engine.submissions.submit(db, spec, await read_clock(db))
        except DuplicateRun:
            return await existing_run(db, actor, body.new_run)
    await _note(context, actor, "run.rerun", view)
    return new


async def _spec_again(engine: Engine, db: Session, view: RunView, actor: Actor, body: RunAgain) -> RunSpec:
    request = await request_again(engine.services, db, view.id, body.new_run, actor.name)
    if request is None:
        case = await load_case(db, view.id)
        if case is None:
            raise ProctorError(Code.CONFLICT, f"run {view.number} keeps nothing that it could be made from again")
        return _case_again(engine, case, view, actor, body)
    spec = await prepare_run(engine.services, db, replace(request, groups=groups_of(actor)))
    if not body.failed_only:
        return spec
    passed = await load_passed(db, view.id)
    steps = tuple(
        replace(step, reused=passed.get((step.node, step.instance))) if step.phase is Phase.MAIN else step
        for step in spec.steps
    )
    return replace(spec, steps=steps)


def _case_again(engine: Engine, case: Case, view: RunView, actor: Actor, body: RunAgain) -> RunSpec:
    opened = engine.services.seal.open(case.sealed, case.step) if case.sealed is not None else None
    step = StepSpec(
        id=new_id(),
        node=case.node,
        name=case.node,
        plugin=case.plugin,
        method=case.method,
        place=case.place,
        parameters=case.parameters if opened is None else opened["parameters"],
        secrets=() if opened is None else tuple(tuple(path) for path in opened["secrets"]),
        target=case.target,
        timeout_s=case.timeout_s,
        grace_s=case.grace_s,
    )
    return RunSpec(
        id=body.new_run,
        name=case.name,
        kind=view.kind,
        steps=(step,),
        group=case.group,
        parameters=case.shown,
        created_by=actor.name,
        timeout_s=case.run_timeout_s,
        node_specs=() if case.rules is None else (NodeSpec(case.node, rules=case.rules),),
        rerun_of=view.id,
    )


async def _note(context: ProcessContext, actor: Actor, action: str, view: RunView, **more: str) -> None:
    async with transaction(context.database) as connection:
        await note(connection, actor, action, view.id, {**more, "run_number": view.number})


async def approve(context: ProcessContext, actor: Actor, body: StepRef) -> RunView:
    """Approve a gate. The same again returns the run."""
    return await _decide(context, actor, body, approved=True)


async def reject(context: ProcessContext, actor: Actor, body: StepRef) -> RunView:
    """Reject a gate, which ends as failed. The same again returns the run."""
    return await _decide(context, actor, body, approved=False)


async def _decide(context: ProcessContext, actor: Actor, body: StepRef, *, approved: bool) -> RunView:
    view = await visible_run(context, actor, body.run)
    gate = await _find_gate(context, view.id, body.step)
    if not any(actor.role.covers(Role(role)) for role in gate.roles if role in list(Role)):
        raise ProctorError(Code.FORBIDDEN, f"this gate is decided by {' or '.join(gate.roles)}, not by {actor.role}")
    if gate.state is StepState.RUNNING:
        outcome = await context.engine.feed(events.GateDecided(view.id, gate.id, approved, by=actor.name))
        if isinstance(outcome, Decision):
            await _note(context, actor, "run.approve" if approved else "run.reject", view, step=body.step)
            return await visible_run(context, actor, view.id)
        gate = await _find_gate(context, view.id, body.step)
    wanted = StepResult.PASSED if approved else StepResult.FAILED
    if gate.state is not StepState.FINISHED:
        raise ProctorError(Code.CONFLICT, f"the gate {body.step} is not open yet: {gate.waiting_for or gate.state}")
    # A reused gate was approved in the former run.
    given = StepResult.PASSED if gate.result is StepResult.REUSED else gate.result
    if given is not wanted:
        said = f"{gate.result}" + (f" ({gate.reason})" if gate.reason else "")
        how = "been decided" if given in {StepResult.PASSED, StepResult.FAILED} else "ended"
        raise ProctorError(Code.CONFLICT, f"the gate {body.step} has {how}: {said}")
    return await visible_run(context, actor, view.id)


async def _find_gate(context: ProcessContext, run: str, name: str) -> FoundStep:
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
