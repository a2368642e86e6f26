"""Claims: one spare, one claimant; for a run all or nothing; each answer the same when it is asked for again."""

import asyncio
import json

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.clock import SystemClock
from proctor_common.ids import new_id
from proctor_common.states import VolumeState
from proctor_controller.db.duties import Held
from proctor_controller.db.pool import claims as rows
from proctor_controller.db.pool.pools import apply_types
from proctor_controller.db.pool.volumes import change_volume, insert_spares, load_volume, mark_posted
from proctor_controller.db.session import close_sessions, session
from proctor_controller.domain.hosts.requirements import Requirements, VolumeRequirement
from proctor_controller.domain.volumes.settings import PoolType
from proctor_controller.pool.claims import (
    Claimed,
    Claims,
    Never,
    RunVolume,
    WaitForVolumes,
    Wanted,
    by_name,
    ends_of,
    wanted_of,
)
from support.postgres import Database

TYPES = {"igw": PoolType("igw", 2, 1), "dhcp": PoolType("dhcp", 2, 5)}


async def no_wake() -> None:
    return None


@pytest.fixture
async def engine(rows: AsyncEngine) -> AsyncEngine:
    async with session(rows) as db:
        await apply_types(db, TYPES)
    return rows


async def make_spares(engine: AsyncEngine, type: str, count: int, size_gb: int = 1) -> list[str]:
    """Spares that are ready, the oldest first."""
    async with session(engine) as db:
        await db.execute(
            "INSERT INTO control.duties (name, owner, epoch, expires_at) VALUES ('pool', 'test', 1, 'infinity')"
            " ON CONFLICT DO NOTHING"
        )
        held = Held("pool", 1)
        made = await insert_spares(db, {type: count}, {type: size_gb})
        for each in made:
            volume = await load_volume(db, each)
            assert volume is not None
            volume = await mark_posted(db, held, volume)
            assert volume is not None
            volume = await change_volume(db, held, volume, state=VolumeState.CREATING, backend_id=f"b-{each}")
            assert volume is not None
            assert await change_volume(db, held, volume, state=VolumeState.READY)
    return made


async def test_a_spare_goes_to_one_claimant_however_many_ask_at_once(
    engine: AsyncEngine, control_database: Database
) -> None:
    spares = await make_spares(engine, "igw", 20)

    async def claim(n: int) -> dict[str, bool]:
        async with session(engine) as db:
            demands = [rows.Demand(new_id(), f"vnf-{n}-{i}") for i in range(3)]
            return await rows.claim_for_vnfps(db, "igw", 1, demands)

    answers = await asyncio.gather(*(claim(n) for n in range(10)))
    hits = [vnfp for answer in answers for vnfp, hit in answer.items() if hit]
    assert len(hits) == 20
    assert sum(map(len, answers)) == 30
    owners = control_database.psql("SELECT count(DISTINCT vnfp) FROM control.volumes WHERE state = 'claimed'")
    assert owners == "20"
    assert control_database.psql("SELECT count(*) FROM control.volumes WHERE state = 'intent'") == "10"
    assert control_database.psql("SELECT count(*) FROM control.vnfps WHERE state = 'active'") == "20"
    assert {row for row in control_database.psql("SELECT id FROM control.volumes WHERE from_pool").split()} == set(
        spares
    )
    await close_sessions(engine)


async def test_the_oldest_spare_that_is_large_enough_is_taken_and_bears_the_name_at_once(
    engine: AsyncEngine, control_database: Database
) -> None:
    small = await make_spares(engine, "igw", 1, size_gb=1)
    large = await make_spares(engine, "igw", 2, size_gb=10)
    async with session(engine) as db:
        vnfp = new_id()
        assert await rows.claim_for_vnfps(db, "igw", 5, [rows.Demand(vnfp, "vnf-a")]) == {vnfp: True}
        again = await rows.claim_for_vnfps(db, "igw", 5, [rows.Demand(vnfp, "vnf-a")])
    assert again == {}, "the same request again claims nothing"
    taken = control_database.psql("SELECT id, name, named <> name FROM control.volumes WHERE state = 'claimed'")
    assert taken == f"{large[0]}|vnf-a|t"
    assert control_database.psql(f"SELECT state FROM control.volumes WHERE id = '{small[0]}'") == "ready"
    await close_sessions(engine)


async def test_a_run_gets_all_its_volumes_or_none(engine: AsyncEngine, control_database: Database) -> None:
    claims = Claims(engine, SystemClock(), no_wake, lambda *_: None)
    await make_spares(engine, "igw", 1)
    run = new_id()
    both = [Wanted("a", "igw", mode="require"), Wanted("b", "igw", mode="require")]
    none = "a spare of type igw: none is ready"
    control_database.psql("UPDATE control.pools SET target = 0")
    assert await claims.claim_for_run(run, both) == WaitForVolumes(f"{none}, and none is kept (its target is 0)")
    control_database.psql("UPDATE control.pools SET target = 2")
    control_database.psql(
        "INSERT INTO control.pool_breakers (scope, failures, opened_at, reason) VALUES ('igw', 3, now(), 'no answer')"
    )
    stopped = "creation is stopped after 3 failures in a row: no answer"
    assert await claims.claim_for_run(run, both) == WaitForVolumes(f"{none} (0 of 2 being made); {stopped}")
    control_database.psql("DELETE FROM control.pool_breakers")
    assert control_database.psql("SELECT count(*) FROM control.volumes WHERE state = 'ready'") == "1"

    await make_spares(engine, "igw", 1)
    answer = await claims.claim_for_run(run, both)
    assert isinstance(answer, Claimed)
    assert [each.key for each in answer.volumes] == ["a", "b"]
    assert await claims.claim_for_run(run, both) == answer, "asked again it says the same"

    await claims.settle_run(run, {"a": "retain"})
    await claims.settle_run(run, {"a": "retain"})
    states = control_database.psql("SELECT key, state, retain FROM control.volumes ORDER BY key")
    assert states.split() == ["a|claimed|t", "b|deleting|f"]
    late = await claims.claim_for_run(run, both)
    assert isinstance(late, Never), "what was settled is not claimed again"
    await close_sessions(engine)


@pytest.mark.parametrize(("began", "left"), [(True, "claimed|t"), (False, "deleting|f")])
async def test_a_run_whose_controller_died_at_its_end_is_settled_as_it_asked(
    engine: AsyncEngine, control_database: Database, began: bool, left: str
) -> None:
    """One that never began has left nothing on its volumes: none of them stays."""
    claims = Claims(engine, SystemClock(), no_wake, lambda *_: None)
    await make_spares(engine, "igw", 2)
    wants = Requirements(volumes=(VolumeRequirement("a", "igw", on_end="retain"), VolumeRequirement("b", "igw")))
    run = new_id()
    assert isinstance(await claims.claim_for_run(run, wanted_of(wants.volumes)), Claimed)
    control_database.psql(
        f"""INSERT INTO control.runs (id, name, kind, state, version, event_seq, attempt_seq, undecided, timeout_s,
                wants)
            VALUES ('{run}', 'r', 'plan', 'running', 1, 1, 1, 1, 1, '{json.dumps(wants.to_json())}')"""
    )
    assert await claims.settle_over() == 0, "it is still at work"
    control_database.psql(
        "UPDATE control.runs SET state = 'finished', result = 'cancelled', finished_at = now() - interval '1 minute'"
        + (", started_at = now() - interval '2 minutes'" if began else "")
    )
    assert await claims.settle_over() == 1
    states = control_database.psql("SELECT key, state, retain FROM control.volumes WHERE run IS NOT NULL ORDER BY key")
    assert states.split() == [f"a[0]|{left}", "b[0]|deleting|f"]
    assert await claims.settle_over() == 0
    await close_sessions(engine)


async def test_a_run_waits_for_what_is_made_for_it_and_is_told_what_cannot_be(engine: AsyncEngine) -> None:
    claims = Claims(engine, SystemClock(), no_wake, lambda *_: None)
    await make_spares(engine, "igw", 2)
    run = new_id()
    answer = await claims.claim_for_run(run, [Wanted("a", "igw"), Wanted("b", "igw", mode="bypass")])
    assert answer == WaitForVolumes("volume b, which is being made")
    assert await claims.claim_for_run(new_id(), [Wanted("a", "nope")]) == Never("no such type of volume: nope")
    await claims.settle_run(run, {})
    await close_sessions(engine)


def test_what_a_plan_wants_is_claimed_one_by_one_and_shown_by_name() -> None:
    wants = [
        VolumeRequirement(name="data", type="igw", count=2, size_gb=5),
        VolumeRequirement(name="log", type="dhcp", on_end="retain"),
    ]
    assert [(each.key, each.type, each.size_gb, each.mode) for each in wanted_of(wants)] == [
        ("data[0]", "igw", 5, "prefer"),
        ("data[1]", "igw", 5, "prefer"),
        ("log[0]", "dhcp", None, "prefer"),
    ]
    assert ends_of(wants) == {"data[0]": "delete", "data[1]": "delete", "log[0]": "retain"}
    held = [RunVolume(f"data[{n}]", f"id-{n}", "n", "igw", 5, f"/{n}", True) for n in range(2)]
    assert [each["path"] for each in by_name(Claimed(tuple(held)))["data"]] == ["/0", "/1"]
