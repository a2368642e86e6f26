"""The steps that an event is about: the database gives those that the world of the property tests gives by lists."""

import random
from dataclasses import replace
from typing import cast

from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.bus import Bus
from proctor_common.ids import new_id
from proctor_controller.db.hosts.candidates import read_clock
from proctor_controller.db.runs.columns import NODE_COLUMNS, RUN_COLUMNS, STEP_COLUMNS, to_node, to_run, to_step
from proctor_controller.db.runs.decisions import load_slice
from proctor_controller.db.session import Session, session
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.hosts.requirements import Concurrency, Requirements
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import BATCH
from proctor_controller.domain.runs.step import Phase
from proctor_controller.domain.runs.submission import EdgeSpec, NodeSpec, RunSpec, StepSpec
from support.engine import make_runs_engine
from support.world import World

EVENTS = (
    events.RunCreated, events.CancelAsked, events.PauseAsked, events.ResumeAsked, events.HostsHeld, events.RunDue,
)  # fmt: skip
STATES = ("pending", "running", "cancelling", "finished")
RUN_STATES = ("queued", "allocating", "running", "cancelling", "rolling_back", "finalizing")


def plan(instances: int, wants: Requirements) -> RunSpec:
    """Two nodes one after the other, the second with a bound, and a step of cleanup."""
    names = [("a", Phase.MAIN)] * instances + [("b", Phase.MAIN)] * 4 + [("always[0]", Phase.ALWAYS)]
    steps = [
        StepSpec(
            id=new_id(), node=name, name=name, plugin="p", method="m", place=Placement(host="h"), phase=phase,
            instance=str(index),
        )
        for index, (name, phase) in enumerate(names)
    ]  # fmt: skip
    return RunSpec(
        id=new_id(), name="r", kind="plan", steps=tuple(steps), edges=(EdgeSpec("a", "b"),), wants=wants,
        node_specs=(NodeSpec("b", max_parallel=2, fail_fast=True),), document="{}",
    )  # fmt: skip


async def change_at_random(db: Session, run: str, rng: random.Random) -> None:
    """Leave the run's rows as nothing would, so that all that decides about the reach is seen."""
    await db.execute(
        """UPDATE control.runs SET state = $2, phase = $3, cause = $4, started_at = now(),
             deadline = now() + $5 * interval '1 hour' WHERE id = $1""",
        run, rng.choice(RUN_STATES), rng.choice(["main", "always"]), rng.choice([None, None, "cancelled"]),
        rng.choice([-1.0, 1.0]),
    )  # fmt: skip
    few = rng.random() < 0.5
    for row in await db.fetch("SELECT id FROM control.steps WHERE run_id = $1", run):
        state = rng.choice(STATES) if few else "pending"
        result = "passed" if state == "finished" else None
        await db.execute("UPDATE control.steps SET state = $2, result = $3 WHERE id = $1", row["id"], state, result)
    for row in await db.fetch("SELECT name FROM control.nodes WHERE run_id = $1", run):
        due = "now()" if rng.random() < 0.3 else "NULL"
        await db.execute(
            f"""UPDATE control.nodes SET due_at = {due}, undecided = $3, dead = $4, failed = $5, untold = $6,
                  unfinished = 4 WHERE run_id = $1 AND name = $2""",
            run, row["name"], rng.randint(0, 1), rng.random() < 0.3, rng.randint(0, 1), rng.randint(2, 4),
        )  # fmt: skip


async def stored_world(db: Session, spec: RunSpec) -> World:
    """The world whose rows are those of the database."""
    world = World(replace(spec, wants=Requirements()))
    world.now = await read_clock(db)
    row = await db.fetchrow(f"SELECT {RUN_COLUMNS} FROM control.runs r WHERE id = $1", spec.id)
    assert row is not None
    world.run = to_run(row)
    nodes = f"SELECT n.name AS node, {NODE_COLUMNS} FROM control.nodes n WHERE run_id = $1"
    world.nodes = {node["node"]: to_node(node, spec.id, node["node"]) for node in await db.fetch(nodes, spec.id)}
    steps = f"SELECT {STEP_COLUMNS} FROM control.steps s WHERE run_id = $1 ORDER BY idx"
    world.steps = {str(step["id"]): to_step(step) for step in await db.fetch(steps, spec.id)}
    return world


async def test_the_database_gives_the_steps_that_the_world_gives(rows: AsyncEngine) -> None:
    rng = random.Random(5)
    engine = make_runs_engine(rows, cast(Bus, None), perform=False)
    try:
        async with session(rows) as db:
            for number in range(60):
                wants = Requirements(concurrency=Concurrency("k")) if number % 3 == 0 else Requirements()
                spec = plan(BATCH + 5 if number % 10 == 0 else 3, wants)
                await engine.submissions.submit(db, spec, await read_clock(db))
                await change_at_random(db, spec.id, rng)
                world = await stored_world(db, spec)
                asked: list[events.OfRun] = [kind(spec.id) for kind in EVENTS]
                asked += [events.MustWait(spec.id, "a host"), events.CannotBegin(spec.id, "none")]
                asked += [events.NodeDecided(spec.id, name) for name in world.nodes]
                for event in asked:
                    loaded = await load_slice(db, event)
                    assert loaded is not None
                    found, expected = loaded.part, world.slice_of(event)
                    assert [step.id for step in found.steps] == [step.id for step in expected.steps], event
                    assert found.more == expected.more, event
                    assert {node.name for node in found.nodes} == {node.name for node in expected.nodes}
    finally:
        await engine.close()
