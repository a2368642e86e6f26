"""The pool's keeper against a backend that loses answers, fails, refuses, forgets; and against its own death."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.ids import new_id
from proctor_controller.domain.volumes.settings import LocalSettings, PoolSettings
from proctor_controller.pool.backends import NoBackendError
from proctor_controller.volumes.backend import (
    AnswerLost,
    Backend,
    BackendDown,
    BadRequest,
    FoundState,
    QuotaRefused,
    Stuck,
)
from proctor_controller.volumes.local import LocalBackend
from support.keeper import KeeperWorld
from support.postgres import Database
from support.wait import eventually


@pytest.fixture
def world(rows: AsyncEngine, control_database: Database, tmp_path: Path) -> KeeperWorld:
    return KeeperWorld(rows, control_database, tmp_path)


async def test_a_lost_answer_is_looked_for_and_nothing_is_made_twice(world: KeeperWorld) -> None:
    world.settings(igw=3)
    world.backend.lose_answers = 2
    async with world.kept():
        await world.until("state = 'ready'", 3)
    assert max(Counter(world.backend.posts).values()) == 1
    assert len(await world.there()) == 3


async def test_what_was_not_made_after_a_lost_answer_is_given_up_after_a_while(world: KeeperWorld) -> None:
    world.settings(igw=1)
    world.backend.refusals = [AnswerLost("no answer within 30 s")]
    async with world.kept() as keeper:
        await world.until("state = 'intent' AND posted_at IS NOT NULL", 1)
        assert len(world.backend.posts) == 1, "looked for, not asked for again"
        await world.alter("UPDATE control.volumes SET posted_at = now() - interval '1 minute', version = version + 1")
        await world.until("state = 'ready'", 1)
        await world.job("sync", keeper)
    assert world.count("state = 'failed'") == 1
    assert len(set(world.backend.posts)) == 2, "another row, another id"


async def test_a_volume_that_shows_up_late_is_swept_by_its_id_and_a_strangers_is_not(world: KeeperWorld) -> None:
    world.settings(igw=1)
    stranger = LocalBackend(world.folder, "another installation", LocalSettings(), qemu_img="")
    theirs = await stranger.create(new_id(), "spare-igw-like-ours", "igw", 1)
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 1)
        late = new_id()
        await world.backend.create(late, "spare-igw", "igw", 1)
        world.settings(igw=1, extra="stray_age = 30m\n")
        world.file.write_text(world.file.read_text().replace("stray_age = 0\n", ""))
        await world.alter("UPDATE control.pool_settings SET reload = reload + 1")
        keeper.woken.set()
        await asyncio.sleep(0)
        await world.job("replenish", keeper)
        await world.job("sync", keeper)
        assert late in await world.there(), "seen once it is only noted"
        await world.alter("UPDATE control.pool_strays SET first_seen = now() - interval '1 hour'")
        assert "1 strays deleted" in await world.job("sync", keeper)
    assert set(await world.there()) == {world.sql("SELECT id FROM control.volumes WHERE state = 'ready'")}
    assert await stranger.get(theirs) is not None


async def test_three_failures_in_a_row_stop_creation_but_for_one_try_a_minute(world: KeeperWorld) -> None:
    world.settings(igw=20, extra="concurrency = 2\n")
    world.backend.always = {"igw": BackendDown("connection refused")}
    async with world.kept() as keeper:
        open_ = "SELECT failures >= 3 AND opened_at IS NOT NULL FROM control.pool_breakers WHERE scope = ''"
        await eventually(lambda: world.sql(open_) == "t", 10, "the breaker to open")
        vnfp = await world.vnfp(keeper=keeper)
        stopped = len(world.backend.posts)
        reason = f"SELECT reason FROM control.vnfps WHERE id = '{vnfp}'"
        await eventually(lambda: "connection refused" in world.sql(reason), 10, "the VNF to say what it waits for")
        assert stopped <= 4
        assert len(world.backend.posts) == stopped
        world.backend.always = {}
        await world.alter("UPDATE control.pool_breakers SET probe_at = now()")
        keeper.woken.set()
        await eventually(lambda: world.vnfp_state(vnfp) == "active", 10, "the VNF, which goes first")
        await world.until("state = 'ready'", 20)
    assert max(Counter(world.backend.posts).values()) <= 3


async def test_a_type_whose_volumes_fail_does_not_stop_the_others(world: KeeperWorld) -> None:
    world.settings(igw=2, dhcp=5)
    world.backend.always = {"igw": BadRequest("no such type: igw")}
    async with world.kept():
        await world.until("state = 'ready' AND type = 'dhcp'", 5)
        breaker = "SELECT reason FROM control.pool_breakers WHERE scope = 'igw' AND opened_at IS NOT NULL"
        await eventually(lambda: world.sql(breaker) == "no such type: igw", 10, "the breaker of the type")
    assert world.sql("SELECT count(*) FROM control.pool_breakers WHERE scope = '' AND opened_at IS NOT NULL") == "0"


async def test_a_volume_in_error_is_deleted_and_its_row_kept(world: KeeperWorld) -> None:
    world.settings(igw=2, extra="fail_rate = 1\n")
    async with world.kept() as keeper:
        # Two are made at once: the breaker opens behind the third, with perhaps a fourth on its way.
        await eventually(lambda: world.count("state = 'failed' AND gone_at IS NOT NULL") >= 3, 10, "three failures")
        await eventually(lambda: world.count("gone_at IS NULL AND backend_id IS NOT NULL") == 0, 10, "no volume left")
        assert await world.there() == {}
        # Who waits is given three tries, then told.
        vnfp = await world.vnfp(keeper=keeper)

        async def told() -> bool:
            # The breaker's minute passes.
            await world.alter("UPDATE control.pool_breakers SET probe_at = now()")
            keeper.woken.set()
            return world.vnfp_state(vnfp) == "error"

        await eventually(told, 15, "the VNF to be told")
    assert world.count(f"vnfp = '{vnfp}' AND state = 'failed'") == 3


async def test_at_the_quota_an_idle_spare_gives_way_to_who_waits(world: KeeperWorld) -> None:
    world.settings(dhcp=3, extra="quota = 3\n")
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 3)
        vnfp = await world.vnfp(type="igw", keeper=keeper)
        await eventually(lambda: world.vnfp_state(vnfp) == "active", 10, "the VNF")
        assert world.count("state = 'ready'") == 2
        # The spares hold until the next run: no asking again and again.
        posts = len(world.backend.posts)
        assert world.sql("SELECT held_until > now() FROM control.pool_settings") == "t"
        keeper.woken.set()
        assert "the quota" in await world.job("replenish", keeper) or len(world.backend.posts) == posts
    assert len(await world.there()) == 3


async def test_at_the_quota_spares_hold_and_do_not_churn(world: KeeperWorld) -> None:
    world.settings(igw=10, extra="quota = 4\nconcurrency = 3\n")
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 4)
        await world.job("replenish", keeper)
        posts = len(world.backend.posts)
        await world.alter("UPDATE control.volumes SET reason = reason")
        for _ in range(20):
            keeper.woken.set()
            await asyncio.sleep(0.01)
        assert len(world.backend.posts) == posts
        assert world.count("state = 'ready'") == 4
        assert world.count("state = 'intent'") == 0


async def test_a_keeper_that_dies_while_the_backend_answers_leaves_nothing_behind(world: KeeperWorld) -> None:
    world.settings(igw=1)
    asked = asyncio.Event()

    async def hang() -> None:
        asked.set()
        await asyncio.Event().wait()

    world.backend.before_answer = hang
    async with world.kept():
        await asyncio.wait_for(asked.wait(), 10)
    assert world.count("backend_id IS NOT NULL") == 0
    world.backend.before_answer = None
    async with world.kept():
        await world.until("state = 'ready'", 1)
    assert max(Counter(world.backend.posts).values()) == 1
    assert len(await world.there()) == 1


async def test_a_keeper_that_has_lost_the_duty_changes_nothing(world: KeeperWorld) -> None:
    world.settings(igw=1)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        asked.set()
        await go_on.wait()

    world.backend.before_answer = hang
    async with world.kept(lease=1.5):
        await asyncio.wait_for(asked.wait(), 10)
        # As if it had been paused for long: another one holds the duty, with a higher epoch.
        await world.alter("UPDATE control.duties SET epoch = epoch + 1, owner = 'another' WHERE name = 'pool'")
        go_on.set()
        await eventually(lambda: world.duty is not None and world.duty.held is None, 10, "the duty to be lost")
        assert world.count("backend_id IS NOT NULL OR state <> 'intent'") == 0
        await world.alter("UPDATE control.duties SET expires_at = now() WHERE name = 'pool'")
        await world.until("state = 'ready'", 1)
    assert len(world.backend.posts) == 1


async def test_a_rename_is_tried_until_it_is_done(world: KeeperWorld) -> None:
    world.settings(igw=1)
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 1)
        world.backend.rename_faults = [BackendDown("refused"), AnswerLost("timeout")]
        vnfp = await world.vnfp("vnf-7", keeper=keeper)
        assert world.vnfp_state(vnfp) == "active", "the claim does not wait for it"
        await world.until(f"vnfp = '{vnfp}' AND state = 'in_use' AND named = 'vnf-7'", 1)
    assert "vnf-7" in {found.name for found in (await world.there()).values()}


async def test_what_the_backend_will_not_delete_is_shown_as_leaked_until_it_is_gone(world: KeeperWorld) -> None:
    world.settings(igw=1)
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 1)
        vnfp = await world.vnfp(keeper=keeper)
        await world.until("state = 'in_use'", 1)
        world.backend.delete_faults = [Stuck("error_deleting: only an admin can clear it")]
        await world.alter(f"UPDATE control.vnfps SET state = 'deleting' WHERE id = '{vnfp}'")
        await world.alter(f"UPDATE control.volumes SET state = 'deleting', version = version + 1 WHERE vnfp = '{vnfp}'")
        keeper.woken.set()
        await world.until("state = 'leaked'", 1)
        await world.job("sync", keeper)
        await world.until("state = 'deleted'", 1)
        await eventually(lambda: world.vnfp_state(vnfp) == "deleted", 10, "the VNF to be deleted")


async def test_a_volume_in_use_that_goes_wrong_is_told_and_kept(world: KeeperWorld) -> None:
    world.settings(igw=1)
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 1)
        vnfp = await world.vnfp(keeper=keeper)
        await world.until("state = 'in_use'", 1)
        backend_id = world.sql(f"SELECT backend_id FROM control.volumes WHERE vnfp = '{vnfp}'")
        world.backend.words[backend_id] = FoundState.ERROR
        await world.job("sync", keeper)
        assert world.vnfp_state(vnfp) == "error"
        assert await world.backend.get(backend_id) is not None
        assert world.count("state = 'in_use'") == 1


async def test_a_list_that_lags_loses_no_volume(world: KeeperWorld) -> None:
    world.settings(igw=3)
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 3)
        world.backend.hidden = set(await world.there())
        await world.job("sync", keeper)
        assert world.count("state = 'ready'") == 3


async def test_old_spares_are_renewed_a_few_at_a_time(world: KeeperWorld) -> None:
    world.settings(igw=4, extra="max_age = 1h\n")
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 4)
        await world.alter("UPDATE control.volumes SET ready_at = now() - interval '2 hours'")
        await world.job("replenish", keeper)
        assert world.count("reason = 'older than max_age'") == 1
        await world.until("state = 'deleted'", 1)
        await world.until("state = 'ready'", 4)


async def test_a_target_set_by_hand_stands_until_the_files_own_value_changes(world: KeeperWorld) -> None:
    world.settings(igw=3)
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 3)
        await world.alter("UPDATE control.pools SET target = 1 WHERE type = 'igw'")
        keeper.woken.set()
        await world.until("state = 'ready'", 1)
    async with world.kept() as keeper:
        await world.job("replenish", keeper)
        assert world.count("state = 'ready'") == 1
    world.settings(igw=2)
    async with world.kept():
        await world.until("state = 'ready'", 2)


async def test_settings_with_a_fault_are_refused_and_the_old_ones_stay(world: KeeperWorld) -> None:
    world.settings(igw=2)
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 2)
        world.file.write_text(world.file.read_text().replace("backup_nums_igw = 2", "backup_nums_igw = many"))
        await world.alter("UPDATE control.pool_settings SET reload = reload + 1")
        await world.job("replenish", keeper)
        assert world.sql("SELECT target FROM control.pools WHERE type = 'igw'") == "2"
        assert world.count("state = 'ready'") == 2


async def test_who_waits_gets_a_spare_that_turns_up_first(world: KeeperWorld) -> None:
    world.settings(igw=1)
    world.backend.always = {"igw": QuotaRefused("no more than 0")}
    async with world.kept() as keeper:
        vnfp = await world.vnfp(keeper=keeper)
        await eventually(lambda: len(world.backend.posts) > 0, 10, "the first try")
        spare = new_id()
        made = await LocalBackend.create(world.backend, spare, "spare", "igw", 1)
        await world.alter(
            "INSERT INTO control.volumes (id, type, size_gb, name, named, state, from_pool, backend_id, posted_at)"
            f" VALUES ('{spare}', 'igw', 1, 'spare', 'spare', 'ready', true, '{made}', now())"
        )
        keeper.woken.set()
        await eventually(lambda: world.vnfp_state(vnfp) == "active", 10, "the VNF")
        await world.until(f"vnfp = '{vnfp}' AND id = '{spare}' AND state = 'in_use'", 1)


async def test_a_vnf_that_is_deleted_before_its_volume_was_made_leaves_nothing(world: KeeperWorld) -> None:
    world.settings(igw=0, extra="create_delay = 0.3\n")
    async with world.kept() as keeper:
        vnfp = await world.vnfp(keeper=keeper)
        await world.until("state = 'creating'", 1)
        await world.alter(f"UPDATE control.vnfps SET state = 'deleting' WHERE id = '{vnfp}'")
        await world.alter(f"UPDATE control.volumes SET state = 'deleting', version = version + 1 WHERE vnfp = '{vnfp}'")
        keeper.woken.set()
        await eventually(lambda: world.vnfp_state(vnfp) == "deleted", 10, "the VNF to be deleted")
    assert await world.there() == {}


async def test_a_vnf_whose_spare_turns_out_to_be_gone_gets_another_volume(world: KeeperWorld) -> None:
    world.settings(igw=1)
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 1)
        for found in (await world.there()).values():
            await LocalBackend.delete(world.backend, found.backend_id)
        vnfp = await world.vnfp(keeper=keeper)
        await world.until(f"vnfp = '{vnfp}' AND state = 'in_use'", 1)
        assert world.vnfp_state(vnfp) == "active"
    assert world.count(f"vnfp = '{vnfp}' AND state = 'failed' AND gone_at IS NOT NULL") == 1


async def test_what_is_deleted_while_a_rename_fails_goes_at_once(world: KeeperWorld) -> None:
    world.settings(igw=1)
    async with world.kept() as keeper:
        await world.until("state = 'ready'", 1)
        world.backend.rename_faults = [BackendDown("refused")] * 100
        vnfp = await world.vnfp(keeper=keeper)
        await eventually(lambda: len(world.backend.rename_faults) < 97, 10, "some tries")
        await world.alter(f"UPDATE control.vnfps SET state = 'deleting' WHERE id = '{vnfp}'")
        await world.alter(f"UPDATE control.volumes SET state = 'deleting', version = version + 1 WHERE vnfp = '{vnfp}'")
        keeper.woken.set()
        await eventually(lambda: world.vnfp_state(vnfp) == "deleted", 5, "the VNF to be deleted")


async def test_a_backend_that_cannot_be_opened_is_told(world: KeeperWorld) -> None:
    world.settings(igw=1)
    told = "the local backend needs a folder"

    def refuse(settings: PoolSettings, installation: str, folder: Path | None) -> Backend:
        raise NoBackendError(told)

    world.open = refuse  # type: ignore[method-assign]
    async with world.kept():
        reason = "SELECT reason FROM control.pool_breakers WHERE scope = '' AND opened_at IS NOT NULL"
        await eventually(lambda: world.sql(reason) == told, 10, "the reason")
