"""Whole runs in random worlds: cleanup in its phases, waits, pauses, requests at any time. Each run ends, rightly."""

import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from proctor_common.states import RunResult, RunState, StepResult, StepState
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.hosts.requirements import Concurrency, Requirements, Rollback
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.run import FAILURES
from proctor_controller.domain.runs.step import Condition, Phase, Retry, RetryOn
from proctor_controller.domain.runs.submission import EdgeSpec, NodeSpec, RunSpec, StepSpec
from support.world import World

RESULTS = [StepResult.PASSED, StepResult.FAILED, StepResult.ERROR, StepResult.TIMED_OUT]
BLAMED = {RunResult.ERROR: {"error", "lost"}, RunResult.FAILED: {"failed", "timed_out"}}
PLACE = Placement(host="h")
Move = Callable[[World, int], object]
RUN = "run"


def perform_some(world: World, number: int) -> None:
    for _ in range(3):
        world.perform(number)


MOVES: dict[str, Move] = {
    "perform": perform_some,
    "crash": lambda w, n: w.crash(),
    "deliver": lambda w, n: w.deliver(n),
    "time out": lambda w, n: w.time_out(n),
    "hear": lambda w, n: w.hear(n),
    "hear twice": lambda w, n: w.hear(n, again=True),
    "lose reply": lambda w, n: w.lose_reply(n),
    "end": lambda w, n: w.end_some(n // 4, RESULTS[n % 4]),
    "report": lambda w, n: w.report(n),
    "report twice": lambda w, n: w.report(n, again=True),
    "restart agent": lambda w, n: w.restart_agent(n),
    "lose agent": lambda w, n: w.lose_agent(n),
    "return agent": lambda w, n: w.return_agent(n),
    "tick": lambda w, n: w.tick(),
    "wait": lambda w, n: w.advance([1, 6, 20, 70, 400, 4000][n % 6]),
    "pause": lambda w, n: w.feed(events.PauseAsked(RUN, "somebody")),
    "resume": lambda w, n: w.feed(events.ResumeAsked(RUN, "somebody")),
    "cancel": lambda w, n: n % 5 == 0 and w.feed(events.CancelAsked(RUN, "somebody")),
    "held": lambda w, n: w.feed(events.HostsHeld(RUN)),
    "not yet": lambda w, n: w.feed(events.MustWait(RUN, f"a host ({n % 3})", admitted=n % 2 == 0)),
    "never": lambda w, n: n % 10 == 0 and w.feed(events.CannotBegin(RUN, "there is none", rejected=n % 20 == 0)),
}


@st.composite
def specs(draw: st.DrawFn) -> RunSpec:
    """Up to four nodes, some with a rollback, and cleanup before and after; perhaps one that has to wait first."""
    count = draw(st.integers(1, 4))
    steps: list[StepSpec] = []
    edges: list[EdgeSpec] = []
    nodes: list[NodeSpec] = []
    undone: list[str] = []

    def add(name: str, phase: Phase, instances: int = 1, attempts: int = 1) -> None:
        retry = Retry(attempts=attempts, delay_s=5.0, on=frozenset(RetryOn))
        nodes.append(NodeSpec(name, phase=phase))
        for number in range(instances):
            instance = f"i={number}" if instances > 1 else ""
            steps.append(
                StepSpec(
                    id=f"{name}.{number}", node=name, name=name, plugin="p", method="m", place=PLACE, instance=instance,
                    timeout_s=60, retry=retry, idempotent=attempts > 1, phase=phase,
                )
            )  # fmt: skip

    for number in range(count):
        instances = draw(st.sampled_from([1, 1, 3]))
        add(f"n{number}", Phase.MAIN, instances, draw(st.integers(1, 2)))
        for source in range(number):
            if draw(st.booleans()):
                edges.append(EdgeSpec(f"n{source}", f"n{number}", draw(st.sampled_from(Condition))))
        if draw(st.booleans()):
            add(f"rollback.n{number}", Phase.ROLLBACK, instances)
            edges += [EdgeSpec(f"rollback.n{number}", earlier, Condition.COMPLETED) for earlier in undone]
            undone.append(f"rollback.n{number}")
    for phase in (Phase.ON_FAILURE, Phase.ALWAYS):
        for number in range(draw(st.integers(0, 2))):
            add(f"{phase.value}[{number}]", phase)
            if number:
                edges.append(EdgeSpec(f"{phase.value}[{number - 1}]", f"{phase.value}[{number}]", Condition.COMPLETED))
    wants = Requirements(
        concurrency=Concurrency("k") if draw(st.booleans()) else None,
        rollback=draw(st.sampled_from(Rollback)),
        queue_s=5000.0,
        cleanup_s=draw(st.sampled_from([10.0, 300.0])),
    )
    return RunSpec(
        id=RUN, name="r", kind="plan", steps=tuple(sorted(steps, key=lambda each: each.phase is not Phase.MAIN)),
        edges=tuple(edges), node_specs=tuple(nodes), wants=wants, timeout_s=draw(st.sampled_from([500.0, 50_000.0])),
    )  # fmt: skip


happenings = st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(0, 999)), max_size=100)


@given(specs(), happenings, st.integers(0, 2**32))
def test_every_run_ends_and_cleans_up_as_its_result_asks(
    spec: RunSpec, happened: list[tuple[str, int]], seed: int
) -> None:
    world = World(spec)
    for name, number in happened:
        MOVES[name](world, number)
    asked = world.run.cancel_by is not None
    world.settle(random.Random(seed))
    run = world.run
    assert run.state is RunState.FINISHED
    assert sum(run.tally.values()) == spec.main_steps
    assert set(run.cleanup.values()) <= {0}
    if run.result is RunResult.CANCELLED and run.cause is not None:
        assert asked, "nobody asked for it"
    if run.cause is None and run.result in BLAMED:
        node, result = run.reason.split(":")[0].split(" ")
        assert result in BLAMED[run.result], "the reason is of another result"
        assert any(step.node == node and step.result == result for step in world.steps.values())
    for step in world.steps.values():
        began = step.result not in {StepResult.SKIPPED, None}
        if step.phase is Phase.ON_FAILURE and began:
            assert run.result in FAILURES
        if step.phase is Phase.ROLLBACK and began and step.result is not StepResult.TIMED_OUT:
            (main,) = [
                s for s in world.steps.values() if f"rollback.{s.node}" == step.node and s.instance == step.instance
            ]
            assert main.result is StepResult.PASSED, "undone although it did not pass"
        if step.phase is not Phase.MAIN and run.started_at is None:
            assert step.result is StepResult.SKIPPED, "nothing had begun"


def test_the_reason_of_a_run_is_the_first_step_that_gives_it_its_result() -> None:
    names = ("passes", "fails", "breaks", "breaks_later")
    steps = (StepSpec(id=name, node=name, name=name, plugin="p", method="m", place=PLACE) for name in names)
    specs = tuple(NodeSpec(name) for name in names)
    world = World(RunSpec(id=RUN, name="r", kind="plan", steps=tuple(steps), edges=(), node_specs=specs), agents=4)
    told = []
    for name, result in zip(
        names, [StepResult.PASSED, StepResult.FAILED, StepResult.ERROR, StepResult.ERROR], strict=True
    ):
        while not (agents := [agent for agent in world.agents.values() if (name, 1) in agent.running]):
            world.perform(0)
            world.deliver(0)
            world.hear(0)
        world.end(agents[0], (name, 1), result)
        world.report(0)
        told.append(world.run.reason)
    assert told == ["", "fails failed", "breaks error", "breaks error"]


@given(specs(), st.integers(0, 2**32))
def test_an_undisturbed_run_does_what_is_always_done(spec: RunSpec, seed: int) -> None:
    world = World(spec)
    world.settle(random.Random(seed))
    assert world.run.result is RunResult.PASSED
    for step in world.steps.values():
        if step.phase is Phase.ALWAYS:
            assert step.result is StepResult.PASSED
        if step.phase is Phase.ON_FAILURE:
            assert step.result is StepResult.SKIPPED


@given(specs(), happenings)
def test_a_run_at_rest_starts_nothing(spec: RunSpec, happened: list[tuple[str, int]]) -> None:
    world = World(spec)
    for name, number in happened:
        before = set(world.leases)
        resting = world.run.state in {RunState.PAUSING, RunState.PAUSED}
        MOVES[name](world, number)
        if resting and world.run.state in {RunState.PAUSING, RunState.PAUSED}:
            assert set(world.leases) <= before
            assert world.run.state is RunState.PAUSING or all(
                step.state not in {StepState.DISPATCHED, StepState.RUNNING} for step in world.steps.values()
            )
