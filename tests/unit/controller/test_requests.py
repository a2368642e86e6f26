"""Requests and times that come together: what counts is written in the table of testplan.md, section 4."""

from proctor_common.states import RunResult, RunState, StepState
from proctor_controller.domain import events
from proctor_controller.domain.placement import Place
from proctor_controller.domain.rules import Child, Rules
from proctor_controller.domain.step import Kind
from proctor_controller.domain.submission import NodeSpec, RunSpec, StepSpec
from support.step_world import StepWorld
from support.world import World

PLACE = Place(host="h")
RUN = "run"


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
    step = StepSpec(id="s", node="n", name="n", plugin="", method="", place=PLACE, kind=Kind.PLAN, timeout_s=60)
    nodes = (NodeSpec("n", rules=Rules(child=Child("p@1"))),)
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
