"""Chaos for the pool: claimants and runs at work while the cloud misbehaves and controllers are killed.

What is done, and when, follows from the seed; how the processes interleave does not.
"""

import asyncio
import os
import random
import signal
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.errors import ProctorError
from proctor_common.ids import new_id
from proctor_controller.db.pool.claims import Demand
from proctor_controller.db.pool.vnfps import delete_vnfp, load_vnfps, release_volume
from proctor_controller.db.session import session
from proctor_controller.pool.claims import Claimed, Mode, Wanted
from proctor_controller.pool.pool import VolumePool
from proctor_controller.volumes.cinder.answers import INSTALLATION_KEY, VOLUME_KEY
from support.cloud import Cloud, CloudVolume
from support.pool_process import Keepers
from support.wait import NeverHappenedError, eventually

TYPES = {"igw": 8, "bgw": 8, "dhcp": 4}
RATES: dict[str, dict[str, float]] = {
    "create": {
        "lost": 0.05,
        "500": 0.04,
        "error": 0.04,
        "stuck": 0.015,
        "slow": 0.01,
        "hang": 0.01,
        "half": 0.01,
        "garbage": 0.01,
        "reset": 0.02,
        "html": 0.01,
        "503": 0.01,
        "429": 0.01,
        "413": 0.01,
        "401": 0.01,
    },
    "delete": {
        "lost": 0.04,
        "500": 0.03,
        "reset": 0.03,
        "error_deleting": 0.02,
        "slow": 0.01,
        "401": 0.01,
        "429": 0.01,
    },
    "get": {"reset": 0.02, "503": 0.01, "garbage": 0.005, "slow": 0.005, "401": 0.01, "no route": 0.01},
    "list": {"reset": 0.05, "503": 0.03, "half": 0.02, "slow": 0.01, "401": 0.02},
    "rename": {"lost": 0.04, "500": 0.03, "reset": 0.02, "slow": 0.01},
    "limits": {"503": 0.1, "429": 0.05},
    "token": {"503": 0.02},
}
MOMENTS = ("before", "after", "answered")
"""When a controller is killed: as a call arrives, once it was carried out, or as its answer is sent."""


class Chaos:
    """`claims` counts what was tried; `held`: VNF or run and key -> our id and the backend's of what it was given."""

    def __init__(self, cloud: Cloud, keepers: Keepers, pool: VolumePool, database: AsyncEngine, seed: int) -> None:
        self.cloud = cloud
        self.keepers = keepers
        self.pool = pool
        self.badness = 1.0
        """How much oftener than by ``RATES`` calls go wrong."""
        self.patience = 3.0
        """For how long, in seconds, a claimant waits at the most for a volume that must be made."""
        self.database = database
        self.random = random.Random(seed)
        self.claims = Counter[str]()
        self.faults = Counter[str]()
        self.kills = Counter[str]()
        self.held: dict[str, tuple[str, str]] = {}
        self.kept: dict[str, str] = {}
        self.strangers: list[CloudVolume] = []
        self.doubles: list[CloudVolume] = []
        self.installation = ""
        self.most = 0
        self.over: list[str] = []
        self._chance = random.Random(seed + 1)
        self._armed: tuple[str, str] | None = None
        self._ended = asyncio.Event()

    async def run(self, cycles: int, *, pace: float, claimants: int = 12) -> None:
        """Claim and delete, ``cycles`` times in all; ``pace``: seconds at most between faults, and twice what lies
        between two claims of one claimant.
        """
        self.cloud.chance = self._fault
        others = [asyncio.create_task(self._sabotage(pace)), asyncio.create_task(self._watch())]
        left = iter(range(cycles))
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(claimants):
                    group.create_task(self._claimant(left, random.Random(f"{self.random.random()}{number}"), pace))
        finally:
            self._ended.set()
            await asyncio.gather(*others)
            self.cloud.chance = None

    # -- claims ----------------------------------------------------------------------------------------------------

    async def _claimant(self, left: Any, chance: random.Random, pace: float) -> None:
        for _ in left:
            await asyncio.sleep(chance.random() * pace / 2)
            work = self._run_of_a_plan if chance.random() < 0.2 else self._vnf
            await work(chance)

    async def _vnf(self, chance: random.Random) -> None:
        demand = Demand(new_id(), f"vnf-{chance.randrange(10**9)}")
        type = chance.choice(list(TYPES))
        size = 2 if chance.random() < 0.1 else None
        copies = 2 if chance.random() < 0.1 else 1
        answers = await asyncio.gather(*(self.pool.claim(type, size, demand) for _ in range(copies)))
        self.claims["spare" if True in answers else "made"] += 1
        if chance.random() < 0.85:
            await self._until_settled(demand.id, chance.choice((0.05, 0.5, self.patience)))
        if chance.random() < 0.05:
            self.kept[demand.id] = demand.name
            return
        for _ in range(copies):
            async with session(self.database) as db:
                await delete_vnfp(db, demand.id)
        await self.pool.wake()

    async def _until_settled(self, vnfp: str, patience: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while True:
                    async with session(self.database) as db:
                        [row] = await load_vnfps(db, [vnfp])
                    if row["state"] == "active":
                        self._note(vnfp, str(row["v_id"]), str(row["v_backend_id"]))
                    if row["state"] != "creating":
                        return
                    await asyncio.sleep(0.02)

    async def _run_of_a_plan(self, chance: random.Random) -> None:
        run = new_id()
        count = chance.choice((1, 2, 3))
        modes: tuple[Mode, ...] = ("prefer", "prefer", "require", "bypass")
        wanted = [Wanted(f"data[{n}]", chance.choice(list(TYPES)), None, chance.choice(modes)) for n in range(count)]
        with suppress(TimeoutError, NeverHappenedError):
            async with asyncio.timeout(chance.choice((0.05, self.patience))):
                await eventually(lambda: self._claimed(run, wanted), 2)
                self.claims["runs"] += 1
        retained = chance.random() < 0.2
        for _ in range(chance.choice((1, 1, 2))):
            await self.pool.claims.settle_run(run, {"data[0]": "retain"} if retained else {})
        if retained:
            async with session(self.database) as db:
                rows = await db.fetch("SELECT id FROM control.volumes WHERE run = $1 AND retain", run)
                for row in rows:
                    await release_volume(db, str(row["id"]))
            await self.pool.wake()

    async def _claimed(self, run: str, wanted: list[Wanted]) -> bool:
        answer = await self.pool.claims.claim_for_run(run, wanted)
        if not isinstance(answer, Claimed):
            return False
        assert {volume.key for volume in answer.volumes} == {each.key for each in wanted}
        return True

    def _note(self, owner: str, volume: str, backend_id: str) -> None:
        before = self.held.setdefault(owner, (volume, backend_id))
        if before != (volume, backend_id):
            self.over.append(f"{owner} had {before} and now has {volume}, {backend_id}")

    # -- what goes wrong -------------------------------------------------------------------------------------------

    def _fault(self, operation: str) -> str | None:
        """Asked by the server at each call, in its thread."""
        if self._armed is not None and self._armed[0] == operation:
            (_, moment), self._armed = self._armed, None
            self.kills[f"{moment} {operation}"] += 1
            pids = tuple(self.keepers.pids)
            if moment == "answered":
                threading.Timer(self._chance.random() * 0.003, self.keepers.kill, pids).start()
                return None
            self.keepers.kill(*pids)
            return "reset" if moment == "before" else "lost"
        dice = self._chance.random() / self.badness
        for fault, rate in RATES.get(operation, {}).items():
            dice -= rate
            if dice < 0:
                self.faults[f"{operation} {fault}"] += 1
                return fault
        return None

    async def _sabotage(self, pace: float) -> None:
        chance = random.Random(self.random.random())
        often = [self._arm] * 5
        seldom = [self._kill_one, self._pause, self._outage, self._freeze, self._stranger, self._double]
        deeds = [*often, *seldom, self._expire, self._quota, self._lag, self._job]
        deck = chance.sample(deeds, len(deeds))
        while deck or not self._ended.is_set():
            deck = deck or chance.sample(deeds, len(deeds))
            await deck.pop()(chance)
            with suppress(TimeoutError):
                async with asyncio.timeout(chance.random() * pace):
                    await self._ended.wait()
            while len(self.keepers.pids) < 2:
                self.keepers.start()

    async def _arm(self, chance: random.Random) -> None:
        operations = ("create", "create", "delete", "get", "rename", "list")
        self._armed = (chance.choice(operations), chance.choice(MOMENTS))

    async def _kill_one(self, chance: random.Random) -> None:
        self.kills["at any moment"] += 1
        self.keepers.kill(chance.choice(self.keepers.pids))

    async def _pause(self, chance: random.Random) -> None:
        """One process stands still for longer than its lease, and then goes on as if nothing were."""
        pid = chance.choice(self.keepers.pids)
        self.kills["paused"] += 1
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.9)
            os.kill(pid, signal.SIGCONT)

    async def _outage(self, chance: random.Random) -> None:
        self.faults["down"] += 1
        self.cloud.down()
        await asyncio.sleep(chance.random() * 0.3)
        self.cloud.up()

    async def _freeze(self, chance: random.Random) -> None:
        self.faults["frozen"] += 1
        with self.cloud.frozen():
            await asyncio.sleep(chance.random() * 0.8)

    async def _expire(self, _: random.Random) -> None:
        self.faults["tokens expired"] += 1
        self.cloud.expire_tokens()

    async def _quota(self, chance: random.Random) -> None:
        self.faults["quota"] += 1
        self.cloud.quota_volumes = len(self.cloud.volumes) + chance.randrange(3)
        await asyncio.sleep(chance.random() * 0.6)
        self.cloud.quota_volumes = 10_000

    async def _lag(self, chance: random.Random) -> None:
        self.faults["list lags"] += 1
        self.cloud.list_lag = chance.choice((0.0, 0.0, 0.2, 1.0))

    async def _job(self, chance: random.Random) -> None:
        with suppress(ProctorError):
            await self.pool.run_job(chance.choice(("replenish", "sync")))

    async def _stranger(self, chance: random.Random) -> None:
        """Named as ours are, or with the mark of another installation; never ours."""
        ours = self.cloud.all()
        name = chance.choice(ours).name if ours else "spare-igw-1"
        marks = chance.choice(({}, {INSTALLATION_KEY: new_id(), VOLUME_KEY: new_id()}, {VOLUME_KEY: new_id()}))
        self.strangers.append(self.cloud.add(name, **marks))

    async def _double(self, chance: random.Random) -> None:
        """A second volume with the name and the marks of one of ours, as from a request that was sent twice."""
        ours = [volume for volume in self.cloud.all() if volume.metadata.get(INSTALLATION_KEY) == self.installation]
        if ours:
            twin = chance.choice(ours)
            self.doubles.append(self.cloud.add(twin.name, type=twin.type, **twin.metadata))

    # -- what must hold all the time -------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while not self._ended.is_set():
            await self.look()
            await asyncio.sleep(0.05)

    async def look(self) -> None:
        async with session(self.database) as db:
            for row in await db.fetch(
                """SELECT p.type, p.target, count(v.id) AS spares FROM control.pools p JOIN control.volumes v
                   ON v.type = p.type AND v.vnfp IS NULL AND v.run IS NULL
                       AND v.state IN ('intent', 'creating', 'ready')
                   GROUP BY p.type, p.target HAVING count(v.id) > p.target"""
            ):
                self.over.append(f"{row['spares']} spares of {row['type']}, wanted {row['target']}")
        self.most = max(self.most, len(self.cloud.volumes))

    async def doubly_given(self) -> list[str]:
        """Volumes of the backend that were given to more than one: by the rows, and by what claimants saw."""
        async with session(self.database) as db:
            rows = await db.fetch(
                """SELECT backend_id FROM control.volumes WHERE backend_id IS NOT NULL
                   GROUP BY backend_id HAVING count(DISTINCT coalesce(vnfp, run)) > 1"""
            )
            rows += await db.fetch(
                """SELECT min(volume_id::text) AS backend_id FROM control.vnfps
                   GROUP BY volume_id HAVING count(*) > 1"""
            )
        seen = Counter(backend_id for _, backend_id in self.held.values())
        return [str(row["backend_id"]) for row in rows] + [each for each, count in seen.items() if count > 1]

    def story(self) -> str:
        """What happened, for people."""
        return (
            f"{dict(self.claims)}; {self.cloud.created} volumes made, {self.most} at once; "
            f"{self.keepers.started} controllers, killed {dict(self.kills)}; {sum(self.faults.values())} faults; "
            f"{len(self.strangers)} strangers, {len(self.doubles)} doubles"
        )

    # -- peace -----------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """The cloud is well again, and its operator has cleared what only he can."""
        self._armed = None
        self.cloud.chance = None
        self.cloud.up()
        self.cloud.list_lag = 0.0
        self.cloud.quota_volumes = 10_000
        self.clear_by_hand()
        while len(self.keepers.pids) < 2:
            self.keepers.start()

    def clear_by_hand(self) -> None:
        for volume in self.cloud.all("error_deleting", "creating"):
            if not volume.turns:
                volume.status = "error"

    async def is_at_rest(self) -> bool:
        """Nothing is under way, each pool is full, and what the cloud has of ours is what the rows say."""
        self.clear_by_hand()
        async with session(self.database) as db:
            self.installation = str(await db.fetchval("SELECT installation FROM control.pool_settings"))
            rows = await db.fetch("SELECT * FROM control.volumes WHERE gone_at IS NULL")
        resting = {str(row["backend_id"]) for row in rows if row["state"] in {"ready", "in_use"}}
        spares = Counter(row["type"] for row in rows if row["state"] == "ready")
        ours = {v.id for v in self.cloud.all() if v.metadata.get(INSTALLATION_KEY) == self.installation}
        return len(resting) == len(rows) and dict(spares) == TYPES and ours == resting
