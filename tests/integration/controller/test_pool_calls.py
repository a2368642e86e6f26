"""The pool's operations: what is refused and to whom, and that a refusal changes nothing."""

from pathlib import Path

from proctor_common.errors import Code
from proctor_common.ids import new_id
from proctor_common.messages.calls.operation import Actor
from proctor_common.states import Role
from support.control import Control, SecureNats, refused
from support.pool import LocalCloud, pool_world
from support.postgres import Database

BOUND = Actor(name="lab", role=Role.ADMIN, groups=["lab-a"])


async def test_what_is_refused_and_to_whom(secure_nats: SecureNats, control_database: Database, tmp_path: Path) -> None:
    cloud = LocalCloud()
    async with pool_world(secure_nats, control_database, cloud, tmp_path, cloud.ini(1, 0)) as world:
        await world.full()
        vnfp = await world.create("vnf-1")

        # A token that is bound to groups has no part in what belongs to none.
        for op in ("pool.list", "volume.list", "vnfp.list"):
            assert (await world.here.call(op, actor=BOUND))["items"] == [], op
        async with refused(Code.FORBIDDEN):
            await world.here.call("vnfp.create", {"id": new_id(), "name": "a", "type": "igw"}, BOUND)
        async with refused(Code.FORBIDDEN):
            await world.here.call("pool.put", {"type": "igw", "target": 0}, BOUND)
        for op in ("vnfp.get", "vnfp.delete"):
            async with refused(Code.NOT_FOUND):
                await world.here.call(op, {"vnfp": vnfp["id"]}, BOUND)

        for op, body in (
            ("vnfp.get", {"vnfp": new_id()}),
            ("vnfp.get", {"vnfp": "../x"}),
            ("vnfp.delete", {"vnfp": new_id()}),
            ("volume.delete", {"volume": new_id()}),
            ("vnfp.create", {"id": new_id(), "name": "a", "type": "nope"}),
            ("pool.put", {"type": "nope", "target": 1}),
        ):
            async with refused(Code.NOT_FOUND):
                await world.call(op, body)
        async with refused(Code.CONFLICT):
            await world.call("volume.delete", {"volume": vnfp["volume"]["id"]})
        async with refused(Code.INVALID):
            await world.create("a\x07")
        async with refused(Code.INVALID):
            await world.call("volume.list", {"cursor": "nonsense"})

        # The same request again, as after a broken connection, makes nothing twice.
        again = await world.call("vnfp.create", {"id": vnfp["id"], "name": "vnf-1", "type": "igw"})
        assert again["volume"]["id"] == vnfp["volume"]["id"]

        good = world.file.read_text()
        world.file.write_text(good.replace("concurrency=10", "concurrency=none"))
        async with refused(Code.INVALID) as faults:
            await world.call("pool.reload")
        assert [each["path"] for each in faults[0].details["errors"]] == ["concurrency"]
        assert (await world.pools())["igw"]["target"] == 1
        deeds = {(entry["action"], entry["object"]) for entry in (await world.call("audit.list"))["items"]}
        assert not deeds & {("pool.put", "nope"), ("pool.reload", str(world.file))}


async def test_without_a_settings_file_there_are_no_pools(here: Control) -> None:
    assert (await here.call("pool.list"))["items"] == []
    async with refused(Code.NOT_FOUND) as faults:
        await here.call("vnfp.create", {"id": new_id(), "name": "a", "type": "igw"})
    assert faults[0].details["name"] == "igw"
    async with refused(Code.CONFLICT):
        await here.call("pool.reload")


async def test_lists_go_on_page_by_page(secure_nats: SecureNats, control_database: Database, tmp_path: Path) -> None:
    cloud = LocalCloud()
    async with pool_world(secure_nats, control_database, cloud, tmp_path, cloud.ini(3, 1)) as world:
        await world.full()
        seen: list[str] = []
        cursor = None
        while True:
            page = await world.call("volume.list", {"limit": 3, **({"cursor": cursor} if cursor else {})})
            seen += [row["id"] for row in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == 8
        assert seen == sorted(seen, reverse=True)
        assert {row["type"] for row in await world.volumes(type="dhcp")} == {"dhcp"}
