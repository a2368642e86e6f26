"""Whatever order things happen in: what plans ask of their steps holds, and every run ends."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor_common.states import RunResult, RunState, StepResult
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.hosts.requirements import Requirements, Rollback
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.step import Condition, Phase, Retry, RetryOn, StepKind
from proctor_controller.domain.runs.step_rules import Gate, NestedPlan, Rules
from proctor_controller.domain.runs.submission import EdgeSpec, NodeSpec, RunSpec, StepSpec
from support.step_world import StepWorld

RESULTS = [StepResult.PASSED, StepResult.FAILED, StepResult.ERROR, StepResult.TIMED_OUT]
ENDS = [RunResult.PASSED, RunResult.FAILED, RunResult.CANCELLED]


MOVES: dict[str, Callable[[StepWorld, int], object]] = {
    "perform": lambda w, n: w.perform(n),
    "perform again": lambda w, n: w.perform(n),
    "crash": lambda w, n: w.crash() if n % 5 == 0 else None,
    "deliver": lambda w, n: w.deliver(n),
    "hear": lambda w, n: w.hear(n),
    "end": lambda w, n: w.end_some(n // 4, RESULTS[n % 4]),
    "report": lambda w, n: w.report(n),
    "report together": lambda w, n: w.report_together(n),
    "lose agent": lambda w, n: w.lose_agent(n) if n % 3 == 0 else None,
    "return agent": lambda w, n: w.return_agent(n),
    "approve": lambda w, n: w.decide_gate(n, approved=n % 3 > 0),
    "end child": lambda w, n: w.end_child(n, ENDS[n % 3]),
    "child rests": lambda w, n: w.rest_child(n, rests=True),
    "child goes on": lambda w, n: w.rest_child(n, rests=False),
    "tick": lambda w, n: w.tick(),
    "wait": lambda w, n: w.advance([1, 6, 20, 70, 700][n % 5]),
    "pause": lambda w, n: n % 3 == 0 and w.feed(events.PauseAsked(w.run.id, "somebody")),
    "resume": lambda w, n: w.feed(events.ResumeAsked(w.run.id, "somebody")),
    "cancel": lambda w, n: n % 12 == 0 and w.feed(events.CancelAsked(w.run.id, "somebody")),
}
RULES = [
    None,
    Rules(condition="matrix.n != 1"),
    Rules(condition="params.nothing"),
    Rules(outputs={"a": "${{ matrix.n }}"}, record={"case": "c${{ matrix.n }}"}),
    Rules(outputs={"a": "${{ result.nothing }}"}),
    Rules(failed_when="matrix.n == 2", record={"case": "${{ params.nothing }}"}),
    Rules(until="matrix.n == 0", expect=None),
    Rules(expect={"kind": "x"}),
]


def cleanup(phase: Phase, steps: list[StepSpec], nodes: list[NodeSpec], edges: list[EdgeSpec]) -> None:
    """The nodes of a phase: rollbacks in the reverse order of the main edges, others one after the other."""
    main = [step for step in steps if step.phase is Phase.MAIN]
    if phase is Phase.ROLLBACK:
        undone = [step for step in main if step.kind is StepKind.METHOD]
        names = {step.node for step in undone}
        steps += [replace(s, id=f"r{s.id}", node=f"rollback.{s.node}", phase=phase, of=s.id) for s in undone]
        edges += [
            EdgeSpec(f"rollback.{edge.target}", f"rollback.{edge.source}", Condition.COMPLETED)
            for edge in list(edges)
            if edge.source in names and edge.target in names
        ]
    else:
        steps += [
            replace(main[0], id=f"{phase}{n}", node=f"{phase}[{n}]", kind=StepKind.METHOD, phase=phase) for n in (0, 1)
        ]
        edges.append(EdgeSpec(f"{phase}[0]", f"{phase}[1]", Condition.COMPLETED))
    known = {node.name for node in nodes}
    nodes += [
        NodeSpec(name, phase=phase) for name in sorted({s.node for s in steps if s.phase is phase}) if name not in known
    ]


@st.composite
def specs(draw: st.DrawFn) -> RunSpec:
    """Up to four nodes of all kinds, fanned out and bounded or not, with edges that lead forward."""
    steps: list[StepSpec] = []
    nodes: list[NodeSpec] = []
    edges: list[EdgeSpec] = []
    for number in range(draw(st.integers(1, 4))):
        name = f"n{number}"
        kind = draw(st.sampled_from([StepKind.METHOD, StepKind.METHOD, StepKind.METHOD, StepKind.GATE, StepKind.PLAN]))
        rules = draw(st.sampled_from(RULES))
        if kind is StepKind.GATE:
            rules = Rules(gate=Gate(timeout_s=100))
        elif kind is StepKind.PLAN:
            rules = Rules(child=NestedPlan("p@1"))
        bound = draw(st.sampled_from([None, None, 1, 2]))
        nodes.append(NodeSpec(name, rules=rules, max_parallel=bound, fail_fast=draw(st.booleans())))
        retry = Retry(
            attempts=draw(st.integers(1, 3)), delay_s=draw(st.sampled_from([0.0, 5.0])), on=frozenset(RetryOn)
        )
        for n in range(draw(st.sampled_from([1, 3, 5]))):
            steps.append(
                StepSpec(
                    id=f"s{number}.{n}", node=name, name=name, plugin="p", method="m", place=Placement(host="h"),
                    kind=kind, instance=str(n), matrix={"n": n}, timeout_s=60, retry=retry,
                )
            )  # fmt: skip
        for source in range(number):
            if draw(st.booleans()):
                edges.append(EdgeSpec(f"n{source}", name, draw(st.sampled_from(Condition))))
    for phase in draw(st.sets(st.sampled_from([Phase.ROLLBACK, Phase.ON_FAILURE, Phase.ALWAYS]))):
        cleanup(phase, steps, nodes, edges)
    outputs = {"sum": "${{ steps.n0.result }}"} if draw(st.booleans()) else {}
    wants = Requirements(rollback=draw(st.sampled_from(Rollback)), cleanup_s=200, outputs=outputs, outputs_refs=("n0",))
    return RunSpec(
        id="run", name="r", kind="plan", steps=tuple(steps), edges=tuple(edges), node_specs=tuple(nodes),
        timeout_s=9000, wants=wants,
    )  # fmt: skip


moves = st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(0, 999)), max_size=100)


@given(specs(), moves, st.integers(0, 2**32))
def test_what_plans_ask_of_steps_holds_and_every_run_ends(
    spec: RunSpec, happenings: list[tuple[str, int]], seed: int
) -> None:
    world = StepWorld(spec)
    for name, number in happenings:
        MOVES[name](world, number)
    world.settle(random.Random(seed), rounds=1000)
    assert world.run.state is RunState.FINISHED
    assert sum(world.run.tally.values()) == spec.main_steps


def fanned(rng: random.Random) -> RunSpec:
    """A few nodes of several instances each, so that much ends at the same time."""
    steps, nodes, edges = list[StepSpec](), list[NodeSpec](), list[EdgeSpec]()
    for number in range(rng.randint(1, 4)):
        name = f"n{number}"
        bound = rng.choice([None, 1, 2, 3])
        rules = rng.choice(
            [None, Rules(outputs={"a": "${{ matrix.n }}"}, record={"case": "c"}), Rules(until="matrix.n > 0")]
        )
        nodes.append(NodeSpec(name, rules=rules, max_parallel=bound, fail_fast=rng.random() < 0.3))
        retry = Retry(rng.randint(1, 2))
        for n in range(rng.randint(1, 5)):
            steps.append(
                StepSpec(
                    id=f"s{number}.{n}", node=name, name=name, plugin="p", method="m", place=Placement(host="h"),
                    instance=str(n), matrix={"n": n}, retry=retry,
                )
            )  # fmt: skip
        edges += [EdgeSpec(f"n{s}", name, rng.choice(list(Condition))) for s in range(number) if rng.random() < 0.6]
    return RunSpec("run", "r", "plan", tuple(steps), tuple(edges), node_specs=tuple(nodes))


@pytest.mark.parametrize("seed", range(2))
def test_ends_that_are_decided_in_one_breath_come_to_the_same(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        world = StepWorld(fanned(rng), agents=3, slots=4)
        for _ in range(30):
            for _ in range(12):
                world.perform(0)
                world.deliver(0)
                world.hear(0)
            for _ in range(rng.randint(1, 6)):
                world.end_some(rng.randrange(100), rng.choice(RESULTS if rng.random() < 0.3 else RESULTS[:1]))
            world.report_together(rng.randrange(3) if rng.random() < 0.3 else 0)
            world.advance(2)
            world.tick()
        world.settle(rng, rounds=300)
