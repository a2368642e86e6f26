"""Whatever order things happen in, and whatever is lost, doubled or late: the engine keeps its promises."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proctor_common.states import RunResult, RunState, StepResult
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.step import Condition, Retry, RetryOn
from proctor_controller.domain.runs.submission import EdgeSpec, RunSpec, StepSpec
from support.world import World

RESULTS = [StepResult.PASSED, StepResult.FAILED, StepResult.ERROR, StepResult.TIMED_OUT]
ALL = frozenset(RetryOn)


def _perform_more(world: World, n: int) -> None:
    for _ in range(4):
        world.perform(n)


Move = Callable[[World, int], object]
MOVES: dict[str, Move] = {
    "perform": lambda w, n: w.perform(n),
    "perform more": _perform_more,
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
    "cut off": lambda w, n: w.cut_off(n),
    "lose agent": lambda w, n: w.lose_agent(n),
    "return agent": lambda w, n: w.return_agent(n),
    "busy": lambda w, n: setattr(w.agents[f"a{n % 2}"], "busy", n % 3 == 0),
    "forge": lambda w, n: w.forge(n),
    "tick": lambda w, n: w.tick(),
    "wait": lambda w, n: w.advance([1, 6, 20, 70, 700, 4000][n % 6]),
    "cancel": lambda w, n: n % 10 == 0 and w.feed(events.CancelAsked(w.run.id, "somebody")),
}
PLACE = Placement(host="h")


@st.composite
def specs(draw: st.DrawFn) -> RunSpec:
    """Plans of up to five nodes with one or several instances, and edges that lead forward."""
    count = draw(st.integers(1, 5))
    steps: list[StepSpec] = []
    edges: list[EdgeSpec] = []
    for number in range(count):
        retry = Retry(attempts=draw(st.integers(1, 3)), delay_s=draw(st.sampled_from([0.0, 5.0])), on=ALL)
        idempotent = draw(st.booleans())
        for instance in range(draw(st.sampled_from([1, 1, 1, 3]))):
            steps.append(
                StepSpec(
                    id=f"s{number}.{instance}",
                    node=f"n{number}",
                    name=f"n{number}",
                    plugin="p",
                    method="m",
                    place=PLACE,
                    timeout_s=60,
                    retry=retry,
                    idempotent=idempotent,
                )
            )
        for source in range(number):
            if draw(st.booleans()):
                edges.append(EdgeSpec(f"n{source}", f"n{number}", draw(st.sampled_from(Condition))))
    return RunSpec(id="run", name="r", kind="plan", steps=tuple(steps), edges=tuple(edges), timeout_s=50_000)


moves = st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(0, 999)), max_size=120)


@given(specs(), moves, st.integers(0, 2**32))
def test_a_run_always_ends_and_no_attempt_starts_twice(
    spec: RunSpec, happenings: list[tuple[str, int]], seed: int
) -> None:
    world = World(spec)
    for name, number in happenings:
        MOVES[name](world, number)
    world.settle(random.Random(seed))
    assert world.run.state is RunState.FINISHED
    assert sum(world.run.tally.values()) == len(spec.steps)


DISPATCH = ["perform", "deliver", "time out", "hear", "busy", "tick", "wait", "cut off", "return agent", "crash"]


@pytest.mark.parametrize("seed", range(4))
def test_late_doubled_and_refused_orders_never_start_an_attempt_twice(seed: int) -> None:
    """Random walks among the moves around a dispatch only: deep where the test above is broad."""
    rng = random.Random(seed)
    step = StepSpec(id="s", node="n", name="n", plugin="p", method="m", place=PLACE)
    spec = RunSpec(id="run", name="r", kind="case", steps=(step,))
    for _ in range(250):
        world = World(spec, agents=3, slots=1)
        for _ in range(rng.randrange(60)):
            name = rng.choices(DISPATCH, [6, 5, 3, 6, 4, 4, 4, 1, 2, 1])[0]
            # Short waits: orders are valid for a minute.
            MOVES[name](world, rng.randrange(3 if name == "wait" else 1000))
        world.settle(rng)


@given(specs(), moves, st.integers(0, 2**32))
@settings(max_examples=settings().max_examples // 2)
def test_a_run_ends_even_if_no_agent_ever_comes_back(
    spec: RunSpec, happenings: list[tuple[str, int]], seed: int
) -> None:
    world = World(spec)
    for name, number in happenings:
        MOVES[name](world, number)
    for number in range(len(world.agents)):
        world.lose_agent(number)
    world.settle(random.Random(seed), rounds=8000, agents_return=False)


@given(specs(), st.integers(0, 2**32))
def test_an_undisturbed_run_passes_or_skips_only_what_cannot_hold(spec: RunSpec, seed: int) -> None:
    world = World(spec)
    world.settle(random.Random(seed))
    assert world.run.result is RunResult.PASSED
    assert set(world.run.tally) <= {StepResult.PASSED, StepResult.UPSTREAM_FAILED}
