"""Requests and times that come together: which of them counts."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from proctor_common.states import RunResult, RunState, StepResult, StepState
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.hosts.requirements import Concurrency, Requirements, Rollback
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Decision, Stale
from proctor_controller.domain.runs.step import Condition, Phase, StepKind
from proctor_controller.domain.runs.step_rules import NestedPlan, Rules
from proctor_controller.domain.runs.submission import EdgeSpec, NodeSpec, RunSpec, StepSpec
from support.step_world import StepWorld
from support.world import World

PLACE = Placement(host="h")
RUN = "run"
S = RunState
Ask = Callable[[str, str], events.Event]
ASKED: dict[str, tuple[Ask, dict[RunState, RunState]]] = {
    "cancel": (events.CancelAsked, {S.QUEUED: S.QUEUED, S.ALLOCATING: S.ALLOCATING, S.RUNNING: S.CANCELLING,
                                    S.PAUSING: S.CANCELLING, S.PAUSED: S.FINALIZING}),
    "pause": (events.PauseAsked, {S.RUNNING: S.PAUSING}),
    "resume": (events.ResumeAsked, {S.PAUSING: S.RUNNING, S.PAUSED: S.RUNNING}),
}  # fmt: skip
"""What a request makes of a run at once, by its state; in each other state it changes none. One that has not begun has
still its cleanup to skip.
"""


def world_in(state: RunState) -> World:
    """A run of two steps, one after the other, in this state; while it goes on the first one lives."""
    steps = [StepSpec(id=name, node=name, name=name, plugin="p", method="m", place=PLACE) for name in "ab"]
    steps.append(replace(steps[0], id="r", node="rollback.a", name="rollback.a", phase=Phase.ROLLBACK))
    steps.append(replace(steps[0], id="z", node="always[0]", name="always[0]", phase=Phase.ALWAYS))
    nodes = tuple(NodeSpec(each.node, phase=each.phase) for each in steps)
    edges = (EdgeSpec("a", "b", Condition.SUCCEEDED),)
    wants = Requirements(concurrency=Concurrency("k"), rollback=Rollback.ON_FAILURE)
    world = World(RunSpec(RUN, "r", "plan", tuple(steps), edges, node_specs=nodes, wants=wants))
    moves: list[Callable[[], object]] = []
    if state is S.ALLOCATING:
        moves.append(lambda: world.feed(events.MustWait(RUN, "a host", admitted=True)))
    if state not in {S.QUEUED, S.ALLOCATING}:
        moves += [lambda: settled(world)]
    if state in {S.PAUSING, S.PAUSED}:
        moves.append(lambda: world.feed(events.PauseAsked(RUN, "first")))
    if state is S.CANCELLING:
        moves.append(lambda: world.feed(events.CancelAsked(RUN, "first")))
    if state in {S.PAUSED, S.ROLLING_BACK, S.FINALIZING, S.FINISHED}:
        moves += [lambda: end(world, "a", StepResult.PASSED)]
    if state in {S.ROLLING_BACK, S.FINALIZING, S.FINISHED}:
        moves += [lambda: end(world, "b", StepResult.FAILED)]
    if state in {S.FINALIZING, S.FINISHED}:
        moves += [lambda: end(world, "r", StepResult.PASSED)]
    if state is S.FINISHED:
        moves += [lambda: end(world, "z", StepResult.PASSED)]
    for move in moves:
        move()
    assert world.run.state is state
    return world


def settled(world: World) -> None:
    """All that follows at once has happened."""
    while world.effects or world.orders or world.replies:
        world.perform(0)
        world.deliver(0)
        world.hear(0)


def end(world: World, step: str, result: StepResult) -> None:
    (agent,) = [agent for agent in world.agents.values() if (step, 1) in agent.running]
    world.end(agent, (step, 1), result)
    world.report(0)
    settled(world)


@pytest.mark.parametrize("state", RunState)
@pytest.mark.parametrize("verb", ASKED)
def test_each_request_does_what_the_table_says_in_every_state_and_once(state: RunState, verb: str) -> None:
    asked, becomes = ASKED[verb]
    world = world_in(state)
    before = world.run
    first = world.feed(asked(RUN, "alice"))
    assert world.run.state is becomes.get(state, state)
    if state not in becomes:
        # Of a request to cancel that comes too late only the name is kept, and the first one's.
        assert replace(world.run, version=0, cancel_by=None) == replace(before, version=0, cancel_by=None)
    if verb == "cancel" and isinstance(first, Decision):
        assert world.run.cancel_by == "alice"
    again = world.run
    assert isinstance(world.feed(asked(RUN, "bob")), Stale)
    assert world.run == again
    if verb == "cancel" and state in {S.QUEUED, S.ALLOCATING}:
        settled(world)
        assert (world.run.state, world.run.result) == (S.FINISHED, RunResult.CANCELLED)


def test_a_request_to_cancel_counts_before_the_runs_timeout() -> None:
    step = StepSpec(id="s", node="n", name="n", plugin="p", method="m", place=PLACE)
    spec = RunSpec(id=RUN, name="r", kind="plan", steps=(step,), edges=(), node_specs=(NodeSpec("n"),), timeout_s=100)
    for requests, result in ((["alice", "bob"], RunResult.CANCELLED), ([], RunResult.TIMED_OUT)):
        world = World(spec)
        for _ in range(4):
            world.perform(0)
            world.deliver(0)
            world.hear(0)
        world.advance(101)
        world.tick()
        assert (world.run.state, world.run.cause) == (RunState.CANCELLING, RunResult.TIMED_OUT)
        for name in requests:
            world.feed(events.CancelAsked(RUN, name))
        for _ in range(100):
            world.perform(0)
            world.hear(0)
            world.report(0)
            world.tick()
            world.advance(1)
        assert (world.run.state, world.run.result) == (RunState.FINISHED, result)
        if requests:
            assert world.run.cancel_by == "alice", "the first one"
            assert world.run.reason == "cancelled by alice; the run's timeout has passed"


def test_the_timeout_of_a_nested_plan_that_rests_waits_until_its_run_goes_on() -> None:
    """A run is paused when nothing is in flight: to stop a child would be."""
    step = StepSpec(id="s", node="n", name="n", plugin="", method="", place=PLACE, kind=StepKind.PLAN, timeout_s=60)
    nodes = (NodeSpec("n", rules=Rules(child=NestedPlan("p@1"))),)
    world = StepWorld(RunSpec(id=RUN, name="r", kind="plan", steps=(step,), edges=(), node_specs=nodes, timeout_s=9000))
    for _ in range(4):
        world.perform(0)
    world.feed(events.PauseAsked(RUN, "somebody"))
    world.rest_child(0, rests=True)
    assert world.run.state is RunState.PAUSED
    world.advance(100)
    world.feed(events.StepDue(RUN, "s"))
    assert (world.run.state, world.steps["s"].state) == (RunState.PAUSED, StepState.RUNNING)
    world.feed(events.ResumeAsked(RUN, "somebody"))
    world.advance(20)
    world.feed(events.StepDue(RUN, "s"))
    assert world.steps["s"].state is StepState.CANCELLING
