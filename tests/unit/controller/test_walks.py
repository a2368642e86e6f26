"""Long walks through worlds in which much goes wrong: every line of both tables is taken, and what must hold holds."""

import random
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TypeVar

from proctor_common.states import RunResult, RunState, StepResult
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.hosts.requirements import Concurrency, Requirements, Rollback
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.run import RUN_TRANSITIONS
from proctor_controller.domain.runs.step import STEP_TRANSITIONS, Condition, Phase, Retry, RetryOn, StepKind
from proctor_controller.domain.runs.step_rules import Gate, NestedPlan, Rules
from proctor_controller.domain.runs.submission import EdgeSpec, NodeSpec, RunSpec, StepSpec
from support.step_world import StepWorld

S = TypeVar("S", bound=StrEnum)
RESULTS = [StepResult.PASSED, StepResult.FAILED, StepResult.ERROR, StepResult.TIMED_OUT]
RUN = "run"
Move = Callable[[StepWorld, int], object]


def pause_and_end(world: StepWorld, number: int) -> None:
    """Somebody asks for a pause while the last steps end."""
    world.feed(events.PauseAsked(RUN, "somebody"))
    for _ in range(6):
        world.end_some(number // 4, RESULTS[number % 4])
        world.report(number)


WORK: dict[str, Move] = {
    "perform": lambda w, n: w.perform(n),
    "deliver": lambda w, n: w.deliver(n),
    "hear": lambda w, n: w.hear(n),
    "report": lambda w, n: w.report(n),
    "end": lambda w, n: w.end_some(n // 4, RESULTS[n % 4]),
    "tick": lambda w, n: w.tick(),
    "wait a little": lambda w, n: w.advance([1, 6, 12][n % 3]),
}
TROUBLE: dict[str, Move] = {
    "crash": lambda w, n: w.crash(),
    "time out": lambda w, n: w.time_out(n),
    "hear twice": lambda w, n: w.hear(n, again=True),
    "lose reply": lambda w, n: w.lose_reply(n),
    "report twice": lambda w, n: w.report(n, again=True),
    "report together": lambda w, n: w.report_together(n),
    "restart agent": lambda w, n: w.restart_agent(n),
    "cut off": lambda w, n: w.cut_off(n),
    "lose agent": lambda w, n: w.lose_agent(n),
    "return agent": lambda w, n: w.return_agent(n),
    "forge": lambda w, n: w.forge(n),
    "wait": lambda w, n: w.advance([20, 70, 400, 700][n % 4]),
    "pause": lambda w, n: w.feed(events.PauseAsked(RUN, "somebody")),
    "pause and end": pause_and_end,
    "resume": lambda w, n: w.feed(events.ResumeAsked(RUN, "somebody")),
    "cancel": lambda w, n: n % 4 == 0 and w.feed(events.CancelAsked(RUN, "somebody")),
    "not yet": lambda w, n: w.feed(events.MustWait(RUN, f"a host ({n % 3})", admitted=n % 2 == 0)),
    "never": lambda w, n: n % 5 == 0 and w.feed(events.CannotBegin(RUN, "there is none", rejected=n % 2 == 0)),
    "gate": lambda w, n: w.decide_gate(n, approved=n % 3 > 0),
    "end child": lambda w, n: w.end_child(n, [RunResult.PASSED, RunResult.FAILED, RunResult.CANCELLED][n % 3]),
    "child rests": lambda w, n: w.rest_child(n, rests=n % 2 == 0),
}

MOVES = {**WORK, **TROUBLE}


def any_plan(rng: random.Random) -> RunSpec:
    """Up to three main nodes of all kinds, some with a rollback, and cleanup; perhaps it has to wait first."""
    steps, nodes, edges = list[StepSpec](), list[NodeSpec](), list[EdgeSpec]()

    def add(
        name: str, phase: Phase = Phase.MAIN, kind: StepKind = StepKind.METHOD, instances: int = 1, of: str = ""
    ) -> None:
        rules = {StepKind.GATE: Rules(gate=Gate(timeout_s=100)), StepKind.PLAN: Rules(child=NestedPlan("p@1"))}.get(
            kind
        )
        bound = rng.choice([None, None, 1, 2])
        nodes.append(NodeSpec(name, rules=rules, phase=phase, max_parallel=bound, fail_fast=rng.random() < 0.3))
        on = frozenset(RetryOn)
        retry = Retry(rng.randint(1, 3), delay_s=rng.choice([0.0, 5.0, 30.0]), on=on)
        idempotent = rng.random() < 0.7
        steps.extend(
            StepSpec(
                id=f"{name}.{n}", node=name, name=name, plugin="p", method="m", place=Placement(host="h"), kind=kind,
                phase=phase, instance=str(n), timeout_s=60, retry=retry, idempotent=idempotent,
                of=f"{of}.{n}" if of else None,
            )
            for n in range(instances)
        )  # fmt: skip

    for number in range(rng.randint(1, 3)):
        name, instances = f"n{number}", rng.choice([1, 1, 3])
        kind = rng.choice([StepKind.METHOD] * 4 + [StepKind.GATE, StepKind.PLAN])
        add(name, kind=kind, instances=instances)
        edges += [EdgeSpec(f"n{n}", name, rng.choice(list(Condition))) for n in range(number) if rng.random() < 0.5]
        if kind is StepKind.METHOD and rng.random() < 0.5:
            add(f"rollback.{name}", Phase.ROLLBACK, instances=instances, of=name)
    for phase in (Phase.ON_FAILURE, Phase.ALWAYS):
        if rng.random() < 0.4:
            add(f"{phase}[0]", phase)
    wants = Requirements(
        concurrency=Concurrency("k") if rng.random() < 0.4 else None,
        rollback=rng.choice(list(Rollback)),
        queue_s=500.0,
        cleanup_s=rng.choice([10.0, 300.0]),
    )
    return RunSpec(
        id=RUN, name="r", kind="plan", steps=tuple(sorted(steps, key=lambda each: each.phase is not Phase.MAIN)),
        edges=tuple(edges), node_specs=tuple(nodes), wants=wants, timeout_s=rng.choice([500.0, 50_000.0]),
    )  # fmt: skip


def walk(rng: random.Random) -> StepWorld:
    """One run, from its beginning to its end. Mostly the work goes on; now and then something else happens."""
    world = StepWorld(any_plan(rng), slots=rng.choice([1, 2]))
    if not world.spec.wants.is_plain and rng.random() < 0.5:
        for name in rng.choices(["not yet", "never", "cancel", "wait", "tick"], [6, 1, 1, 1, 1], k=6):
            MOVES[name](world, rng.randrange(1000))
    often, liked = rng.choice([0.05, 0.2, 0.3]), rng.sample(sorted(TROUBLE), 4)
    liked += rng.sample(["cancel", "lose agent", "pause", "pause and end"], 2)
    for _ in range(rng.randint(5, 120)):
        name = rng.choice(liked if rng.random() < often else sorted(WORK))
        MOVES[name](world, rng.randrange(1000))
    stay_away = world.spec.timeout_s < 1000 and rng.random() < 0.4
    for number in range(2 if stay_away else 0):
        world.lose_agent(number)
    world.settle(rng, rounds=1500, agents_return=not stay_away)
    assert world.run.state is RunState.FINISHED
    assert sum(world.run.tally.values()) == world.spec.main_steps
    return world


def lines(kind: str, table: Mapping[S, frozenset[S]]) -> set[tuple[str, str, str]]:
    return {(kind, old.value, new.value) for old, allowed in table.items() for new in allowed}


LINES = lines("run", RUN_TRANSITIONS) | lines("step", STEP_TRANSITIONS)


def test_every_line_of_both_tables_is_taken(long_run: bool) -> None:
    """A property that is tried only where little happens says little: these walks take every transition there is."""
    rng, left = random.Random(3), set(LINES)
    for number in range(20_000 if long_run else 4000):
        left -= walk(rng).taken
        if not left and number > 250 and not long_run:
            return
    assert not left, f"never taken: {sorted(left)}"
