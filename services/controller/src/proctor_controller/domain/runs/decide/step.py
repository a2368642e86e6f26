"""Decisions about one step: its slot, its orders, its end, its agent. Pure."""

from datetime import timedelta

from proctor_common.states import RunState, StepResult, StepState
from proctor_controller.domain.runs.decide.child import decide_child_due
from proctor_controller.domain.runs.decide.gate import decide_gate_due
from proctor_controller.domain.runs.decide.node import make_ready, place_ready
from proctor_controller.domain.runs.decide.stop import cancel_attempt, send_cancel
from proctor_controller.domain.runs.decision import QueryAttempt, SlotHeld, Stale, StartAttempt
from proctor_controller.domain.runs.decision_builder import Draft
from proctor_controller.domain.runs.events import (
    AgentLost,
    AgentReturned,
    Forgotten,
    LeasesHeld,
    NeverStarted,
    NoSlot,
    OfAttempt,
    OrderAnswer,
    OrderAnswered,
    OrderUndelivered,
    OrderUnknown,
    RenderFailed,
    StepDue,
    StepEnded,
    StillRunning,
)
from proctor_controller.domain.runs.run import may_dispatch
from proctor_controller.domain.runs.step import LIVE, AttemptEnd, Cause, Step, StepKind


def _is_current(step: Step, event: OfAttempt) -> bool:
    """Whether the event is about the attempt that holds the step's lease."""
    return step.state in LIVE and step.attempt == event.attempt and step.token == event.token


# -- slots --------------------------------------------------------------------------------------------------------


def decide_leases_held(draft: Draft, event: LeasesHeld) -> Stale | None:
    """Dispatch the step to the agent whose slot was claimed."""
    step = draft.step(event.step)
    if step.state not in {StepState.READY, StepState.WAITING}:
        return Stale(f"the step is {step.state}")
    if not may_dispatch(draft.run, step.phase, draft.now):
        return Stale(f"the run is {draft.run.state}")
    if step.state is StepState.WAITING:
        draft.move_step(step.id, StepState.READY)
    offer = event.offer
    not_after = draft.after(draft.policy.order_valid_s)
    index = draft.run.attempt_seq + 1
    draft.change_run(attempt_seq=index)
    step = draft.move_step(
        step.id,
        StepState.DISPATCHED,
        agent=offer.agent,
        host=offer.host,
        token=offer.token,
        sends=1,
        deadline=not_after,
        due_at=draft.after(draft.policy.resend_s * 2),
        started_at=None,
    )
    draft.attempt(step, index=index)
    draft.hold(SlotHeld(offer.agent, offer.token, step.id, step.attempt))
    draft.effect(StartAttempt(step.id, step.attempt, offer.token, offer.agent, 1, not_after))
    return None


def decide_no_slot(draft: Draft, event: NoSlot) -> Stale | None:
    """The step waits for a slot, and says what for; it ends if there will never be one."""
    step = draft.step(event.step)
    if step.state not in {StepState.READY, StepState.WAITING}:
        return Stale(f"the step is {step.state}")
    if event.never:
        draft.finish_step(step.id, StepResult.ERROR, reason=event.why)
    elif step.state is StepState.READY:
        draft.move_step(step.id, StepState.WAITING, reason=event.why, waiting_for=event.why, due_at=None)
        # Only the event has the reason: the step's own would be wrong when it waits for something else later.
        draft.change_step(step.id, reason="")
    elif step.waiting_for == event.why:
        return Stale("it waits for the same")
    else:
        draft.change_step(step.id, waiting_for=event.why)
    return None


# -- orders -------------------------------------------------------------------------------------------------------


def decide_answer(draft: Draft, event: OrderAnswered) -> Stale | None:
    """What the agent said to a start order."""
    step = draft.step(event.step)
    if not _is_current(step, event):
        return Stale("not the step's current attempt")
    match event.answer:
        case OrderAnswer.ACCEPTED:
            return _accepted(draft, step, event.ago)
        case OrderAnswer.EXPIRED | OrderAnswer.TOMBSTONED:
            return _never_started(draft, step, event.reason or f"the agent said {event.answer.value}")
    if step.state is not StepState.DISPATCHED:
        return Stale(f"the step is {step.state}")
    if event.answer is OrderAnswer.BUSY:
        if max(step.sends, event.sends) > 1:
            # An earlier copy may still arrive: only a tombstone proves that it will never start.
            _query(draft, step)
            return None
        _wait_again(draft, step, f"host {step.host} is busy{': ' if event.reason else ''}{event.reason}")
    elif event.answer is OrderAnswer.REFUSED:
        _end_unstarted(draft, step, event.reason or "the agent refused the order")
    else:
        _end_unstarted(draft, step, "the agent holds this attempt under another token")
    return None


def _end_unstarted(draft: Draft, step: Step, reason: str, *, again: bool = True) -> None:
    """The attempt has never run and never will, so its log is empty. ``again``: another one may follow."""
    draft.end_attempt(step.id, StepResult.ERROR, reason=reason, end=AttemptEnd(StepResult.ERROR), again=again)


def _accepted(draft: Draft, step: Step, ago: float = 0.0) -> Stale | None:
    if step.state not in {StepState.DISPATCHED, StepState.LOST}:
        return Stale(f"the step is {step.state}")
    started = step.started_at or draft.now - timedelta(seconds=ago)
    policy = draft.policy
    over = started + timedelta(seconds=step.timeout_s + step.grace_s + policy.timeout_margin_s)
    moved = draft.move_step(step.id, StepState.RUNNING, started_at=started, deadline=over, due_at=over, refusals=0)
    draft.attempt(moved)
    return None


def _wait_again(draft: Draft, step: Step, why: str) -> None:
    """The order was certainly not taken: the same attempt may go to an agent again, under another token."""
    # Wait, or an agent that takes no orders now would be asked again and again.
    draft.release(step, serve=False)
    make_ready(draft, step, place=False)
    draft.move_step(step.id, StepState.WAITING, reason=why, waiting_for=why, due_at=None)


def _never_started(draft: Draft, step: Step, reason: str) -> Stale | None:
    """The agent's journal has a tombstone: this attempt is over before it began; another one follows."""
    if step.state is StepState.CANCELLING:
        if step.started_at is None:
            _end_cancelled(draft, step, reason="", end=AttemptEnd(StepResult.CANCELLED, tree_gone=True))
        else:
            _end_cancelled(draft, step, reason=reason)
    elif step.state is StepState.RUNNING or step.started_at is not None:
        draft.end_attempt(step.id, StepResult.LOST, reason="agent_forgot")
    elif step.refusals + 1 >= draft.policy.max_refusals:
        _end_unstarted(draft, step, f"no agent would start it; the last one: {reason}")
    else:
        _close_unstarted(draft, step, reason)
        if step.state is StepState.LOST:
            draft.move_step(step.id, StepState.RETRY_WAIT, reason=reason, token=None)
        make_ready(draft, draft.step(step.id), attempt=step.attempt + 1, refusals=step.refusals + 1)
    return None


def _close_unstarted(draft: Draft, step: Step, reason: str) -> None:
    draft.release(step)
    draft.attempt(
        step,
        state=StepState.FINISHED,
        result=StepResult.CANCELLED,
        reason=f"never started: {reason}",
        end=AttemptEnd(StepResult.CANCELLED),
        finished_at=draft.now,
    )


def decide_undelivered(draft: Draft, event: OrderUndelivered) -> Stale | None:
    """This copy of the order reached nobody; if it was the only one, the attempt may go elsewhere."""
    step = draft.step(event.step)
    if not _is_current(step, event) or step.state is not StepState.DISPATCHED:
        return Stale("not the step's current attempt")
    if max(step.sends, event.sends) > 1:
        return Stale("an earlier copy may have arrived")
    _wait_again(draft, step, f"the agent of host {step.host} does not answer")
    return None


def decide_render_failed(draft: Draft, event: RenderFailed) -> Stale | None:
    """There is no order to send. If an earlier one may have been sent all the same, ask the agent first."""
    step = draft.step(event.step)
    if not _is_current(step, event) or step.state is not StepState.DISPATCHED:
        return Stale("not the step's current attempt")
    if max(step.sends, event.sends) > 1:
        _query(draft, step)
    else:
        _end_unstarted(draft, step, event.reason, again=False)
    return None


def decide_unknown(draft: Draft, event: OrderUnknown) -> Stale | None:
    """No answer: the watchdog repeats the order, and from now on only a tombstone proves that it did not arrive."""
    step = draft.step(event.step)
    if not _is_current(step, event) or step.state is not StepState.DISPATCHED:
        return Stale("not the step's current attempt")
    draft.change_step(step.id, sends=step.sends + 1, due_at=draft.after(draft.policy.resend_s))
    return None


# -- what agents report -------------------------------------------------------------------------------------------


def decide_ended(draft: Draft, event: StepEnded) -> Stale | None:
    """The agent reports the end of the attempt. The caller keeps reports under stale tokens as evidence."""
    step = draft.step(event.step)
    if not _is_current(step, event) or step.agent != event.agent:
        return Stale("not the step's current attempt")
    if step.started_at is None:
        # It arrived before the answer to the order.
        draft.change_step(step.id, started_at=event.end.started_at or draft.now)
    draft.end_attempt(step.id, event.end.result, reason=event.end.reason, end=event.end, reported=True)
    return None


def decide_never_started(draft: Draft, event: NeverStarted) -> Stale | None:
    """The agent answered a query or a cancel with a tombstone."""
    step = draft.step(event.step)
    if not _is_current(step, event):
        return Stale("not the step's current attempt")
    return _never_started(draft, step, "the agent had not started it")


def decide_still_running(draft: Draft, event: StillRunning) -> Stale | None:
    """The agent has the attempt."""
    step = draft.step(event.step)
    if not _is_current(step, event):
        return Stale("not the step's current attempt")
    return _accepted(draft, step)


def decide_forgotten(draft: Draft, event: Forgotten) -> Stale | None:
    """The end was confirmed to the agent, which has dropped it, but is unknown here: it is lost."""
    step = draft.step(event.step)
    if not _is_current(step, event):
        return Stale("not the step's current attempt")
    draft.end_attempt(step.id, StepResult.LOST, reason="the agent no longer has the end of this attempt")
    return None


# -- agents -------------------------------------------------------------------------------------------------------


def decide_agent_lost(draft: Draft, event: AgentLost) -> Stale | None:
    """The step is lost, not failed: its agent may come back within the grace."""
    step = draft.step(event.step)
    if step.agent != event.agent or step.state not in {StepState.DISPATCHED, StepState.RUNNING}:
        return Stale(f"the step is {step.state}")
    moved = draft.move_step(
        step.id,
        StepState.LOST,
        reason="agent_lost",
        deadline=draft.after(draft.policy.lost_grace_s),
        due_at=draft.after(min(draft.policy.requery_s, draft.policy.lost_grace_s)),
    )
    draft.attempt(moved)
    return None


def decide_agent_returned(draft: Draft, event: AgentReturned) -> Stale | None:
    """Ask the agent what became of the attempt."""
    step = draft.step(event.step)
    if step.agent != event.agent or step.state is not StepState.LOST:
        return Stale(f"the step is {step.state}")
    _query(draft, step)
    return None


def _query(draft: Draft, step: Step) -> None:
    if step.agent and step.token:
        draft.effect(QueryAttempt(step.id, step.attempt, step.token, step.agent))
    draft.change_step(step.id, due_at=draft.after(draft.policy.requery_s))


# -- the watchdog -------------------------------------------------------------------------------------------------


def decide_due(draft: Draft, event: StepDue) -> Stale | None:
    """A deadline has passed, or an effect may have been lost: do (again) what the state asks for."""
    step = draft.step(event.step)
    if step.due_at is None or (step.due_at > draft.now and step.state is not StepState.READY):
        return Stale("not due")
    match step.state:
        case StepState.READY:
            place_ready(draft, draft.change_step(step.id, due_at=draft.after(draft.policy.ready_due_s)))
        case StepState.DISPATCHED:
            _resend(draft, step)
        case StepState.RUNNING if step.kind is StepKind.GATE:
            decide_gate_due(draft, step)
        case StepState.RUNNING | StepState.CANCELLING if step.kind is StepKind.PLAN:
            decide_child_due(draft, step)
        case StepState.RUNNING:
            cancel_attempt(draft, step, Cause.TIMED_OUT)
        case StepState.LOST:
            _lost_due(draft, step)
        case StepState.CANCELLING:
            _cancelling_due(draft, step)
        case StepState.RETRY_WAIT:
            make_ready(draft, step, attempt=step.attempt + 1, tries=step.tries + 1)
        case _:
            draft.change_step(step.id, due_at=None)
    return None


def _resend(draft: Draft, step: Step) -> None:
    sends = step.sends + 1
    draft.change_step(step.id, sends=sends, due_at=draft.after(draft.policy.resend_s))
    if step.agent and step.token and step.deadline:
        draft.effect(StartAttempt(step.id, step.attempt, step.token, step.agent, sends, step.deadline))


def _lost_due(draft: Draft, step: Step) -> None:
    if step.deadline is not None and draft.now >= step.deadline:
        draft.end_attempt(step.id, StepResult.LOST, reason=step.reason or "agent_lost")
    else:
        _query(draft, step)
        due = draft.step(step.id).due_at
        if step.deadline and due and due > step.deadline:
            draft.change_step(step.id, due_at=step.deadline)


def _cancelling_due(draft: Draft, step: Step) -> None:
    if step.deadline is not None and draft.now >= step.deadline:
        _end_cancelled(draft, step, reason="unconfirmed")
        return
    due = draft.after(draft.policy.resend_s)
    draft.change_step(step.id, due_at=min(due, step.deadline) if step.deadline else due)
    send_cancel(draft, step)


def _end_cancelled(draft: Draft, step: Step, *, reason: str, end: AttemptEnd | None = None) -> None:
    result = StepResult.TIMED_OUT if step.cause is Cause.TIMED_OUT else StepResult.CANCELLED
    if draft.run.state is RunState.CANCELLING and step.cause is not Cause.TIMED_OUT:
        result = StepResult.CANCELLED
    draft.end_attempt(step.id, result, reason=reason, end=end)
