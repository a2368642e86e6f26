"""Builds a decision: moves rows along the transition tables and keeps their counters consistent. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Unpack

from proctor_common.states import RunResult, RunState, StepResult, StepState
from proctor_controller.domain.expressions.evaluate import ExpressionFault
from proctor_controller.domain.runs.decision import (
    AttemptChanges,
    AttemptRow,
    Decision,
    Effect,
    EventRow,
    FollowUp,
    LookLater,
    Policy,
    RecordRow,
    RecordsWaiting,
    ServeQueue,
    Slice,
    SlotHeld,
    SlotReleased,
)
from proctor_controller.domain.runs.events import NodeDecided
from proctor_controller.domain.runs.run import RUN_TRANSITIONS, Run, RunChanges, is_over, result_of
from proctor_controller.domain.runs.scope import Scope, returned, step_scope
from proctor_controller.domain.runs.step import (
    STEP_TRANSITIONS,
    SUCCESSES,
    AttemptEnd,
    Edge,
    Node,
    Phase,
    Step,
    StepChanges,
    StepMoves,
)
from proctor_controller.domain.runs.step_rules import Rules
from proctor_controller.domain.runs.verdict import (
    JUDGED,
    RECORDED,
    StepVerdict,
    describe,
    fill_record,
    judge,
    judge_child,
    null_outputs,
)

NOT_AGAIN = "not tried again: what this attempt left may still run, and the step is not idempotent"
_WITH_OUTPUTS = frozenset({StepResult.PASSED, StepResult.REUSED})


class IllegalTransition(Exception):
    """A defect of the engine: it tried a transition that the table does not have. Nothing is saved."""


class Draft:
    """Works on copies of the slice's rows; :meth:`decision` gives those that changed."""

    def __init__(self, part: Slice, now: datetime, policy: Policy) -> None:
        self.now = now
        self.policy = policy
        self.run: Run = replace(part.run, version=part.run.version + 1)
        self._before = part
        self._steps = {step.id: step for step in part.steps}
        self._nodes = {node.name: node for node in part.nodes}
        self._edges = part.edges
        for edges in part.edges.values():
            for edge in edges:
                self._nodes.setdefault(edge.target.name, edge.target)
        self._known = dict(self._nodes)
        self._attempts: dict[tuple[str, int], AttemptRow] = {}
        self._events: list[EventRow] = []
        self._held: list[SlotHeld] = []
        self._released: list[SlotReleased] = []
        self._records: list[RecordRow] = []
        self._returned: dict[str, Mapping[str, Any]] = {}
        self._effects: list[Effect] = []

    # -- reading --------------------------------------------------------------------------------------------------

    def step(self, step: str) -> Step:
        """The step as it stands in the draft."""
        return self._steps[step]

    @property
    def steps(self) -> Iterable[Step]:
        """The slice's steps as they stand in the draft."""
        return list(self._steps.values())

    def node(self, name: str) -> Node:
        """The node as it stands in the draft."""
        return self._nodes[name]

    def scope_of(self, step: Step, outputs: Mapping[str, Any] | None = None) -> Scope:
        """What the step's expressions may read, including what its method returned if it has just ended."""
        before = self._before
        result = self._returned.get(step.id)
        return step_scope(before.scope or {}, step, result=result, outputs=outputs, undone=before.undone.get(step.id))

    @property
    def scope(self) -> Scope:
        """What expressions of the run itself may read."""
        return dict(self._before.scope or {})

    @property
    def may_read_outputs(self) -> bool:
        """Whether the scope has the steps that the run's outputs read."""
        return self._before.ending

    def undone(self, step: str) -> Mapping[str, Any] | None:
        """What a rollback undoes; None if there is nothing to undo."""
        return self._before.undone.get(step)

    def after(self, seconds: float) -> datetime:
        """The time ``seconds`` from now."""
        return self.now + timedelta(seconds=seconds)

    # -- moving ---------------------------------------------------------------------------------------------------

    def change_run(self, **changes: Unpack[RunChanges]) -> None:
        """Change columns of the run other than its state and result."""
        self.run = replace(self.run, **changes)

    def move_run(self, to: RunState, *, reason: str = "", result: RunResult | None = None) -> None:
        """One transition of the run, with its event."""
        old = self.run.state
        if to not in RUN_TRANSITIONS[old]:
            raise IllegalTransition(f"run {self.run.id}: {old} -> {to}")
        seq = self._record("run", old, to, result=result, reason=reason)
        self.run = replace(self.run, event_seq=seq, state=to, result=result, reason=reason or self.run.reason)

    def change_step(self, step: str, **changes: Unpack[StepChanges]) -> Step:
        """Change columns of a step other than its state and result."""
        changed = self._steps[step] = replace(self._steps[step], **changes)
        return changed

    def move_step(
        self,
        step: str,
        to: StepState,
        *,
        reason: str = "",
        result: StepResult | None = None,
        **changes: Unpack[StepMoves],
    ) -> Step:
        """One transition of a step, with its event; ``changes`` are further columns."""
        row = self._steps[step]
        if to not in STEP_TRANSITIONS[row.state]:
            raise IllegalTransition(f"step {row.id} of run {row.run}: {row.state} -> {to}")
        if row.state is StepState.PENDING:
            self._count_notified(row.node)
        host = changes.get("host", row.host)
        seq = self._record("step", row.state, to, row=row, host=host, result=result, reason=reason)
        changes.setdefault("waiting_for", None)
        moved = self._steps[step] = replace(row, state=to, result=result, reason=reason, **changes)
        self.run = replace(self.run, event_seq=seq, live=self.run.live + moved.is_in_flight - row.is_in_flight)
        return moved

    def rest_step(self, step: str, why: str | None) -> None:
        """The run of a nested plan rests; ``why``: what it waits for; None: it goes on."""
        row = self._steps[step]
        moved = self.change_step(step, waiting_for=why)
        self.change_run(live=self.run.live + moved.is_in_flight - row.is_in_flight)

    def _count_notified(self, name: str) -> None:
        node = self._nodes[name]
        if node.max_parallel is not None:
            self._nodes[name] = replace(node, untold=node.untold - 1)

    def _record(
        self,
        kind: str,
        old: RunState | StepState,
        new: RunState | StepState,
        *,
        row: Step | None = None,
        host: str | None = None,
        result: RunResult | StepResult | None = None,
        reason: str = "",
    ) -> int:
        """Add the event of a transition; returns its number, which the caller sets in the run."""
        seq = self.run.event_seq + 1
        self._events.append(
            EventRow(
                seq=seq,
                kind=kind,
                old=old.value,
                new=new.value,
                step=row.id if row else None,
                step_name=row.label if row else None,
                attempt=row.attempt if row else None,
                host=host,
                result=result.value if result else None,
                reason=reason,
            )
        )
        return seq

    def attempt(self, step: Step, **changes: Unpack[AttemptChanges]) -> None:
        """Write the row of the step's attempt, which may be new, with ``changes``."""
        key = (step.id, step.attempt)
        row = self._attempts.get(key)
        if row is None:
            row = AttemptRow(
                step=step.id,
                attempt=step.attempt,
                agent=step.agent or "",
                token=step.token or "",
                state=step.state,
                started_at=step.started_at,
            )
        self._attempts[key] = replace(row, **changes)

    def hold(self, held: SlotHeld) -> None:
        """Claim a slot for the attempt together with the decision."""
        self._held.append(held)

    def release(self, step: Step, *, serve: bool = True) -> None:
        """Release the step's slot and serve the queue; without ``serve`` the watchdog does that."""
        if step.agent and step.token:
            self._released.append(SlotReleased(step.agent, step.token))
            if serve:
                self.effect(ServeQueue(step.agent))

    def effect(self, effect: Effect) -> None:
        """Add an effect, to begin after the commit."""
        self._effects.append(effect)

    # -- ends -----------------------------------------------------------------------------------------------------

    def end_attempt(
        self,
        step: str,
        result: StepResult,
        *,
        reason: str = "",
        end: AttemptEnd | None = None,
        reported: bool = False,
        again: bool = True,
    ) -> None:
        """The live attempt of a step has ended: release its slot; then start another attempt (unless ``again`` is
        False), or end the step. The plan's rules judge what its agent ``reported``.
        """
        row = self._steps[step]
        verdict = StepVerdict(result, reason)
        rules = self._nodes[row.node].rules
        if rules is not None and reported and end is not None and result in JUDGED:
            self._returned[step] = returned(result.value, end.output, end.error, end.exit_code)
            verdict = judge(rules, self.scope_of(row), result, reason, end.error)
        self.release(row)
        self.attempt(
            row,
            state=StepState.FINISHED,
            result=verdict.result,
            reason=verdict.reason,
            end=end,
            reported=reported,
            finished_at=self.now,
        )
        if again and end is not None and end.may_live_on and not row.idempotent and row.may_retry(verdict.result):
            again = False
            verdict = replace(verdict, reason=f"{verdict.reason}; {NOT_AGAIN}".removeprefix("; "))
        self._go_on(row, verdict, again=again)

    def end_child(self, step: str, verdict: StepVerdict, result: Mapping[str, Any]) -> None:
        """The run of a nested plan has ended, which is the end of the step's attempt. ``result``: for expressions."""
        row = self._steps[step]
        self._returned[step] = result
        self._go_on(row, judge_child(self._nodes[row.node].rules, self.scope_of(row), verdict))

    def _go_on(self, row: Step, verdict: StepVerdict, *, again: bool = True) -> None:
        """Another attempt if the plan asks for one; else the end of the step."""
        result, reason = verdict.result, verdict.reason
        again = again and not verdict.is_final and row.state is not StepState.CANCELLING
        again = again and not is_over(self.run, row.phase, self.now)
        if again and row.may_retry(result):
            wait = row.retry.delay(row.tries)
            resume = self.now + wait
            self.move_step(
                row.id, StepState.RETRY_WAIT, reason=reason or result.value, token=None, deadline=resume, due_at=resume
            )
            if wait.total_seconds() <= self.policy.short_wait_s:
                self.effect(LookLater(row.id, wait.total_seconds()))
        else:
            self.finish_step(row.id, result, reason=reason, outputs=verdict.outputs)

    def finish_step(
        self, step: str, result: StepResult, *, reason: str = "", outputs: Mapping[str, Any] | None = None
    ) -> None:
        """End a step: count it in its run and its node, and notify the node's dependants."""
        row = self._steps[step]
        rules = self._nodes[row.node].rules
        if rules is not None:
            outputs = null_outputs(rules) if outputs is None or result not in _WITH_OUTPUTS else outputs
            result, reason = self._record_end(replace(row, outputs=outputs), rules, result, reason)
            outputs = outputs if result in _WITH_OUTPUTS else null_outputs(rules)
        self.move_step(
            step,
            StepState.FINISHED,
            result=result,
            reason=reason,
            outputs=outputs,
            deadline=None,
            due_at=None,
            finished_at=self.now,
        )
        if row.phase is Phase.MAIN:
            tally = dict(self.run.tally)
            tally[result] = tally.get(result, 0) + 1
            before = result_of(self.run)
            self.change_run(undecided=self.run.undecided - 1, tally=tally)
            if result_of(self.run) is not before:
                # The run's reason is that of the first step that determines its result.
                why = f": {reason}" if reason and reason != result.value else ""
                self.change_run(reason=f"{row.node} {result.value}{why}")
        else:
            left = self.run.cleanup.get(row.phase, 0) - 1
            self.change_run(cleanup={**self.run.cleanup, row.phase: left})
        self._count_in_node(row.node, result, was_notified=row.state is not StepState.PENDING)

    def _record_end(self, row: Step, rules: Rules, result: StepResult, reason: str) -> tuple[StepResult, str]:
        """Store what the plan asks to record; if that cannot be evaluated, the step ends in error."""
        if rules.record is None or result not in RECORDED:
            return result, reason
        try:
            body = fill_record(rules.record, self.scope_of(row, row.outputs), row, result, self.now)
        except ExpressionFault as fault:
            return StepResult.ERROR, describe("record", fault)
        self._records.append(RecordRow(row.id, row.attempt, body))
        self.effect(RecordsWaiting())
        return result, reason

    def _count_in_node(self, name: str, result: StepResult, *, was_notified: bool) -> None:
        before = self._nodes[name]
        failed = before.failed + (0 if result in SUCCESSES else 1)
        node = self._nodes[name] = replace(before, unfinished=before.unfinished - 1, failed=failed)
        # Steps of a phase that is being ended are notified one by one.
        if is_over(self.run, node.phase, self.now):
            return
        if node.unfinished > 0:
            first_failure = node.is_stopping and not before.is_stopping and not node.dead
            if first_failure or (node.untold > 0 and was_notified and not node.is_stopping and not node.dead):
                self.open_node(name)
                self.effect(FollowUp(NodeDecided(self.run.id, name)))
            return
        for edge in self._edges.get(name, ()):
            self._decide_edge(edge, success=node.failed == 0)

    def _decide_edge(self, edge: Edge, *, success: bool) -> None:
        target = self._nodes[edge.target.name]
        holds = edge.condition.holds(success)
        undecided = target.undecided - 1
        decided = not target.dead and (not holds or undecided == 0)
        self._nodes[target.name] = replace(
            target,
            undecided=undecided,
            dead=target.dead or not holds,
            due_at=self.now if decided else target.due_at,
        )
        if decided:
            self.effect(FollowUp(NodeDecided(self.run.id, target.name)))

    def open_node(self, name: str) -> None:
        """The node's edges are decided: its instances must be notified."""
        self._nodes[name] = replace(self._nodes[name], due_at=self.now)

    def close_node(self, name: str) -> None:
        """All instances of the node have been notified."""
        self._nodes[name] = replace(self._nodes[name], due_at=None)

    def decision(self) -> Decision:
        """The rows that differ from the slice, and all effects."""
        before = {step.id: step for step in self._before.steps}
        return Decision(
            before=self._before.run.version,
            run=self.run,
            steps=tuple(step for step in self._steps.values() if step != before[step.id]),
            nodes=tuple(node for node in self._nodes.values() if node != self._known[node.name]),
            attempts=tuple(self._attempts.values()),
            events=tuple(self._events),
            held=tuple(self._held),
            released=tuple(self._released),
            records=tuple(self._records),
            effects=tuple(self._effects),
        )
