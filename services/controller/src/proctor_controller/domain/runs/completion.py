"""The end of a run, once its main steps are decided: phases of cleanup, outputs, result. Pure."""

from proctor_common.states import RunState
from proctor_controller.domain.expressions.evaluate import ExpressionFault, fill
from proctor_controller.domain.runs.decision import FollowUp, NotifyParent, ReleaseRun
from proctor_controller.domain.runs.decision_builder import Draft
from proctor_controller.domain.runs.events import RunDue
from proctor_controller.domain.runs.run import FAILURES, PHASES, UNSTARTED, asks_rollback, result_of
from proctor_controller.domain.runs.step import Phase


def settle_run(draft: Draft) -> None:
    """Move the run on as far as its steps allow."""
    run = draft.run
    if run.state is RunState.PAUSING and run.live == 0 and run.undecided > 0:
        draft.move_run(RunState.PAUSED)
        notify_parent(draft)
    if run.undecided > 0 or run.state in {RunState.FINISHED, RunState.PAUSED}:
        return
    if run.state in UNSTARTED and run.cause is None:
        return
    while draft.run.phase is Phase.MAIN or not draft.run.cleanup.get(draft.run.phase, 0):
        following = PHASES[PHASES.index(draft.run.phase) + 1 :]
        if not following:
            _finish(draft)
            return
        _enter(draft, following[0])


def _enter(draft: Draft, phase: Phase) -> None:
    """Begin the next phase of cleanup. on_failure runs before the rollbacks, while hosts still show what happened."""
    run = draft.run
    draft.change_run(phase=phase)
    if run.state not in UNSTARTED:
        if run.state not in {RunState.ROLLING_BACK, RunState.FINALIZING}:
            rolls_back = asks_rollback(run) and run.cleanup.get(Phase.ROLLBACK, 0) > 0
            draft.move_run(RunState.ROLLING_BACK if rolls_back else RunState.FINALIZING)
            draft.change_run(deadline=draft.after(run.wants.cleanup_s))
        elif phase is Phase.ALWAYS and run.state is RunState.ROLLING_BACK:
            draft.move_run(RunState.FINALIZING)
            draft.change_run(deadline=draft.after(run.wants.cleanup_s))
    if run.cleanup.get(phase, 0):
        _look_soon(draft)


def _look_soon(draft: Draft) -> None:
    draft.change_run(due_at=draft.now)
    draft.effect(FollowUp(RunDue(draft.run.id)))


def _finish(draft: Draft) -> None:
    run = draft.run
    if run.wants.outputs and run.outputs is None and run.state not in UNSTARTED:
        if not draft.may_read_outputs:
            # They are filled in from steps that this slice does not bring.
            _look_soon(draft)
            return
        _fill_outputs(draft)
    result = result_of(draft.run)
    hold = run.wants.hold
    held = draft.after(hold.for_s) if hold is not None and result in FAILURES and run.started_at is not None else None
    draft.move_run(RunState.FINISHED, result=result)
    draft.change_run(due_at=None, deadline=None, finished_at=draft.now, waiting_for=None, hold_until=held)
    if not run.wants.is_plain:
        draft.effect(ReleaseRun())
    notify_parent(draft)


def notify_parent(draft: Draft) -> None:
    """Have the step that started this nested run notified of what the run does."""
    if draft.run.parent_step is not None:
        draft.effect(NotifyParent())


def _fill_outputs(draft: Draft) -> None:
    """The run's own outputs. An output that cannot be evaluated is null; if the run passed, its reason says why."""
    scope, outputs = draft.scope, dict[str, object]()
    for name, template in draft.run.wants.outputs.items():
        try:
            outputs[name] = fill(template, scope)
        except ExpressionFault as fault:
            outputs[name] = None
            draft.change_run(reason=draft.run.reason or f"outputs.{name}: {fault}")
    draft.change_run(outputs=outputs)
