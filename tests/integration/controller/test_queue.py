"""Many steps that wait for one host of a large lab: a look at the queue costs little, and there are few of them."""

import time
from typing import Any

import pytest

from proctor_common.states import StepResult
from proctor_controller.db.hosts import candidates
from proctor_controller.db.session import session
from proctor_controller.domain.hosts.requirements import HostRole, Requirements
from proctor_controller.engine.engine import Engine
from support.engine import FakeAgent, until_finished
from support.postgres import Database
from support.steps import fan_out, plan, run, until_there

HOSTS, CELLS = 40, 120
WANTS = Requirements(roles=(HostRole("lab", plugin="shell", count=30),))


@pytest.fixture
def lab(agent: FakeAgent, control_database: Database) -> FakeAgent:
    """The agent on h1, and others beside it."""
    control_database.psql(
        f"""INSERT INTO control.agents (id, host, public_key, state, instance, slots, plugins, registered_at,
              last_heartbeat)
            SELECT gen_random_uuid(), 'h1-' || n, 'U' || n, 'online', 'i1', 16, plugins, now(), now()
            FROM control.agents, generate_series(2, {HOSTS}) AS n WHERE host = 'h1'"""
    )
    return agent


async def test_all_get_their_turn_and_newcomers_share_a_look(
    engine: Engine, lab: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str | None] = []
    find = candidates.next_turns

    async def count(db: Any, agent: str | None, limit: int) -> list[candidates.Turn]:
        looks.append(agent)
        return await find(db, agent, limit)

    monkeypatch.setattr(candidates, "next_turns", count)
    lab.ends = StepResult.PASSED
    spec = plan(*fan_out("cell", CELLS, role="lab", role_index=0), wants=WANTS)
    await run(engine, spec)
    assert (await until_finished(engine, spec.id, timeout=40))["result"] == "passed"
    assert len(lab.started) == CELLS
    # Each step that began to wait asked for all hosts: one look serves those that came before it.
    assert looks.count(None) < CELLS / 2


async def test_a_look_at_all_hosts_reads_each_waiting_step_once(engine: Engine, lab: FakeAgent) -> None:
    spec = plan(*fan_out("cell", CELLS, role="lab", role_index=0), wants=WANTS)
    await run(engine, spec)
    await until_there(engine, spec.id, f"cell[n={CELLS - 1}]", "waiting")
    took: list[float] = []
    async with session(engine.database) as db:
        for _ in range(10):
            begun = time.perf_counter()
            assert await candidates.next_turns(db, None, 20) == []
            took.append(time.perf_counter() - begun)
    # Less than a millisecond; pair by pair of host and step, with allocations as many as here, it was 140.
    assert min(took) < 0.03
