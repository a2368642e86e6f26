"""What one event of a step costs the engine in runs of 100, 1,000 and 10,000 steps: it must not grow with the run.

The engine on a PostgreSQL of its own, without agents: their answers are fed as events. A step has two, the answer to
its order and its end; what follows at once from an end (its dependants, their slots) is part of it.
"""

import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any, cast

from bench.figures import Figure, Report
from proctor_common.bus import Bus
from proctor_common.ids import new_id
from proctor_common.pg import make_engine, migrate
from proctor_common.states import StepResult, StepState
from proctor_controller.context import CHAIN, SERVER_SETTINGS
from proctor_controller.db.hosts.candidates import make_slots, read_clock
from proctor_controller.db.sealing import Seal
from proctor_controller.db.session import session
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Decision, PlaceStep
from proctor_controller.domain.runs.step import AttemptEnd, Step
from proctor_controller.domain.runs.submission import EdgeSpec, RunSpec, StepSpec
from proctor_controller.engine.engine import Engine
from proctor_controller.engine.queue import offer_slot
from proctor_controller.engine.services import make_services

SIZES = (100, 1000, 10_000)
WIDTH = 10
TARGET = 1.5
PLUGINS = '{"p": {"description": "", "version": "1", "methods": {"m": {"description": "", "parameters": {}}}}}'


def diamonds(size: int) -> RunSpec:
    """Chains that meet: a step waits for the one WIDTH before it, and for that one's neighbour."""
    steps = tuple(
        StepSpec(id=new_id(), node=f"s{n}", name=f"s{n}", plugin="p", method="m", place=Placement(host="bench"))
        for n in range(size)
    )
    edges = [EdgeSpec(f"s{n - WIDTH}", f"s{n}") for n in range(WIDTH, size)]
    edges += [EdgeSpec(f"s{n - WIDTH - 1}", f"s{n}") for n in range(WIDTH + 1, size)]
    return RunSpec(id=new_id(), name="bench", kind="plan", steps=steps, edges=tuple(edges), document="{}")


def measure(report: Report, scale: float = 1.0) -> None:
    """Milliseconds for one event by size, the sizes in turns."""
    # The server that the tests use; a checkout has it.
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from support.postgres import PostgresServer

    server = PostgresServer()
    try:
        server.start()
        costs = asyncio.run(_costs(server.create_database().dsn, max(60, int(300 * scale)), 3))
    finally:
        server.close()
    least = costs[SIZES[0]]
    for size in SIZES:
        ratio = costs[size] / least
        met = ratio <= TARGET if size == SIZES[-1] else None
        name = f"engine: one event in a run of {size} steps"
        report.add(Figure(name, f"{costs[size]:.2f} ms", f"{least:.2f} ms", ratio, f"<= {TARGET} times", met))


async def _costs(dsn: str, count: int, rounds: int) -> dict[int, float]:
    database = make_engine(dsn, application_name="bench", server_settings=SERVER_SETTINGS)
    await migrate(database, CHAIN)
    engine = Engine(make_services(database, cast(Bus, None), Seal(None), perform=False))
    agent = new_id()
    try:
        async with session(database) as db:
            await db.execute(
                """INSERT INTO control.agents (id, host, public_key, state, labels, instance, slots, plugins,
                     registered_at, last_heartbeat)
                   VALUES ($1, 'bench', 'U', 'online', '{}', 'i', 64, $2::text::jsonb, now(), now())""",
                agent,
                PLUGINS,
            )
            await make_slots(db, agent)
        found: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(rounds):
            for size in SIZES:
                found[size].append(await _cost(engine, agent, size, count))
        return {size: statistics.median(costs) for size, costs in found.items()}
    finally:
        await engine.close()
        await database.dispose()


async def _cost(engine: Engine, agent: str, size: int, count: int) -> float:
    """Milliseconds for one event, the mean over the first ``count`` steps of a run."""
    spec = diamonds(size)
    async with session(engine.database) as db:
        await engine.submissions.submit(db, spec, await read_clock(db))
        for table in ("runs", "steps", "nodes", "edges", "attempts", "leases", "run_events"):
            await db.execute(f"ANALYZE control.{table}")
        rows = await db.fetch("SELECT id FROM control.steps WHERE run_id = $1 AND state = 'ready'", spec.id)
    waiting, live, fed, spent = [str(row["id"]) for row in rows], list[Step](), 0, 0.0

    async def feed(event: events.Event) -> None:
        nonlocal fed, spent
        begun = time.perf_counter()
        outcome: Any = await engine.feed(event)
        spent += time.perf_counter() - begun
        fed += 1
        assert isinstance(outcome, Decision), outcome
        live.extend(each for each in outcome.steps if each.state is StepState.DISPATCHED)
        waiting.extend(each.step for each in outcome.effects if isinstance(each, PlaceStep))

    for done in range(min(count, size)):
        for step in waiting[:]:
            waiting.remove(step)
            await feed(events.LeasesHeld(spec.id, step, offer_slot(agent, "bench")))
        if done == 20:
            fed, spent = 0, 0.0
        step_now = live.pop(0)
        token = step_now.token or ""
        await feed(events.OrderAnswered(spec.id, step_now.id, step_now.attempt, token, events.OrderAnswer.ACCEPTED))
        end = AttemptEnd(StepResult.PASSED)
        await feed(events.StepEnded(spec.id, step_now.id, step_now.attempt, token, agent, end))
    await engine.feed(events.CancelAsked(spec.id, "bench"))
    async with session(engine.database) as db:
        await db.execute("UPDATE control.leases SET step_id = NULL, attempt = NULL, token = NULL")
        await db.execute("DELETE FROM control.runs WHERE id = $1", spec.id)
    return spent / fed * 1e3
