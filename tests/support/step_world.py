"""The world around `decide`, with what plans ask of steps: expressions, gates, nested plans, bounds on instances."""

from collections import Counter
from dataclasses import replace
from typing import Any

from proctor_common.states import RunResult, StepResult, StepState
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decide.dispatch import decide
from proctor_controller.domain.runs.decide.joining import after, as_changed, join
from proctor_controller.domain.runs.decision import Decision, Slice, Stale, StartChild, StopChild
from proctor_controller.domain.runs.run import CLEANUP
from proctor_controller.domain.runs.scope import InstanceFacts, returned, steps_scope
from proctor_controller.domain.runs.step import Phase, Step, StepKind
from proctor_controller.domain.runs.submission import RunSpec, first_scope
from proctor_controller.domain.runs.verdict import RECORDED
from support.world import Key, World


class StepWorld(World):
    """Asserts in addition what must hold of steps."""

    def __init__(self, spec: RunSpec, agents: int = 2, slots: int = 2) -> None:
        self.children: dict[Key, RunResult | None] = {}
        self.stopped: set[Key] = set()
        self.approved: set[str] = set()
        self.records: Counter[Key] = Counter()
        super().__init__(spec, agents, slots)

    def slice_of(self, event: events.Event) -> Slice:
        part = super().slice_of(event)
        found = [InstanceFacts(s.node, s.instance, s.result, s.outputs, s.host) for s in self.steps.values()]
        scope = {**first_scope(self.spec), "steps": steps_scope(found)}
        undone = {step.id: self._undone(step) for step in part.steps if step.phase is Phase.ROLLBACK}
        return replace(part, scope=scope, undone=undone, ending=self.run.state in CLEANUP)

    def _undone(self, step: Step) -> dict[str, Any]:
        name = step.node.removeprefix("rollback.")
        main = next(s for s in self.steps.values() if (s.node, s.instance) == (name, step.instance))
        result = returned(main.result.value if main.result else None)
        return {"result": result, "outputs": dict(main.outputs or {}), "host": main.host}

    def feed(self, event: events.Event) -> Decision | Stale:
        outcome = super().feed(event)
        if isinstance(outcome, Decision):
            for record in outcome.records:
                self.records[record.step, record.attempt] += 1
                assert self.records[record.step, record.attempt] == 1, "recorded twice"
            self._check_steps(outcome)
        return outcome

    def _check_steps(self, outcome: Decision) -> None:
        for node in self.nodes.values():
            mine = [step for step in self.steps.values() if step.node == node.name]
            assert node.unfinished == sum(step.state is not StepState.FINISHED for step in mine)
            if node.max_parallel is not None:
                assert node.untold == sum(step.state is StepState.PENDING for step in mine)
                assert node.unfinished - node.untold <= node.max_parallel, "too many under way"
        for step in outcome.steps:
            if step.state is not StepState.FINISHED:
                continue
            rules = self.nodes[step.node].rules
            if rules is not None and rules.outputs:
                assert set(step.outputs or {}) == set(rules.outputs)
            if rules is not None and rules.record is not None:
                kept = (step.id, step.attempt) in self.records
                assert kept == (step.result in RECORDED) or step.reason.startswith("record")
            if step.kind is StepKind.GATE and step.result is StepResult.PASSED:
                assert step.id in self.approved
            if step.phase is Phase.ROLLBACK and step.result is StepResult.PASSED:
                assert self._undone(step)["result"]["verdict"] == "passed", "what never was is undone"
            if step.kind is StepKind.PLAN:
                alive = [key for key, result in self.children.items() if key[0] == step.id and result is None]
                assert not alive, "a step has ended whose child runs on"

    # -- things that happen ---------------------------------------------------------------------------------------

    def perform(self, index: int) -> None:
        if not self.effects:
            return
        effect = self.effects[index % len(self.effects)]
        if not isinstance(effect, StartChild | StopChild):
            super().perform(index)
            return
        self.effects.remove(effect)
        key = (effect.step, effect.attempt)
        step = self.steps[effect.step]
        if isinstance(effect, StartChild):
            if key in self.children:
                self._tell_end(key)
            elif step.state is StepState.RUNNING and step.attempt == effect.attempt:
                # A child is stored only while its step runs.
                self.children[key] = None
        elif key not in self.children:
            self._ended(key, RunResult.CANCELLED)
        elif self.children[key] is None:
            self.stopped.add(key)
        else:
            self._tell_end(key)

    def report_together(self, index: int) -> None:
        """Several reports arrive at once, and are decided in one breath: it comes to the same as one by one."""
        batch: dict[str, events.StepEnded] = {}
        for event in self.reports[index % 3 : index % 3 + 4]:
            if self.agents[event.agent].listening:
                batch.setdefault(event.step, event)
        slices = {step: self.slice_of(event) for step, event in batch.items()}
        whole: Decision | None = None
        for step, event in batch.items():
            part = slices[step] if whole is None else after(slices[step], whole)
            outcome = decide(part, event, self.now)
            if isinstance(outcome, Decision):
                whole = outcome if whole is None else join(whole, outcome)
        for event in batch.values():
            self.reports.remove(event)
            self.feed(event)
        if whole is None:
            return
        assert replace(whole.run, version=0) == replace(self.run, version=0)
        assert {step.id: self.steps[step.id] for step in whole.steps} == {step.id: step for step in whole.steps}
        for node in whole.nodes:
            # Of a node that an edge leads to, the slice may bring only what a decision changes.
            assert as_changed(self.nodes[node.name], {node.name: node}) == self.nodes[node.name]

    def end_child(self, index: int, result: RunResult) -> None:
        """A child run ends, and may or may not get to say so."""
        alive = [key for key, ended in self.children.items() if ended is None]
        if alive:
            key = alive[index % len(alive)]
            self.children[key] = RunResult.CANCELLED if key in self.stopped else result
            if index % 3:
                self._tell_end(key)

    def rest_child(self, index: int, *, rests: bool) -> None:
        """A child run is paused, or goes on, and its parent hears of it, perhaps late."""
        alive = [key for key, ended in self.children.items() if ended is None]
        if alive:
            step, attempt = alive[index % len(alive)]
            self.feed(events.ChildRests(self.run.id, step, attempt, "a run to be resumed" if rests else None))

    def _tell_end(self, key: Key) -> None:
        result = self.children[key]
        if result is not None:
            self._ended(key, result)

    def _ended(self, key: Key, result: RunResult) -> None:
        self.feed(events.ChildEnded(self.run.id, key[0], key[1], f"{key[0]}.{key[1]}", result, {"o": 1}))

    def decide_gate(self, index: int, *, approved: bool) -> None:
        """Somebody presses a button, whether or not it is there."""
        gates = [step for step in self.steps.values() if step.kind is StepKind.GATE]
        if gates:
            step = gates[index % len(gates)]
            if approved:
                self.approved.add(step.id)
            self.feed(events.GateDecided(self.run.id, step.id, approved, "somebody"))

    def tick(self) -> None:
        super().tick()
        self.end_child(1, RunResult.PASSED)
        for node in list(self.nodes.values()):
            if node.due_at is not None and self.run.cause is None:
                self.feed(events.NodeDecided(self.run.id, node.name))
