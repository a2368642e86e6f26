"""The engine's interface to the pool: volumes for a run, all or nothing, and their fate at its end.

Both calls may come twice, from any controller; the second one finds what the first one did.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal, cast

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from proctor_common.clock import Clock
from proctor_common.states import VolumeState
from proctor_controller.db.pool import claims as rows
from proctor_controller.db.pool.jobs import load_breakers
from proctor_controller.db.pool.pools import load_pool_state, load_pools, load_sizes
from proctor_controller.db.pool.volumes import insert_volume
from proctor_controller.db.session import Session, session
from proctor_controller.domain.hosts.requirements import VolumeRequirement, requirements_of
from proctor_controller.domain.volumes.breaker import BACKEND
from proctor_controller.domain.volumes.volume import Volume

log = structlog.get_logger(__name__)

OVER_AT_ONCE = 100
Mode = Literal["prefer", "require", "bypass"]
Wake = Callable[[], Awaitable[None]]
Note = Callable[[str, bool, float], None]
"""Called for each committed claim: type, whether it got a spare, seconds."""
HAD = frozenset({VolumeState.CLAIMED, VolumeState.IN_USE})
AWAITED = frozenset({VolumeState.INTENT, VolumeState.CREATING})


@dataclass(frozen=True, slots=True)
class Wanted:
    """One volume that a run wants."""

    key: str
    """Its name in the run, such as ``data[0]``."""
    type: str
    size_gb: int | None = None
    """None: the pool's size."""
    mode: Mode = "prefer"
    """Prefer a spare, require one, or bypass the pool."""


@dataclass(frozen=True, slots=True)
class RunVolume:
    """A volume that a run holds. ``path``: its file, if the backend is on this machine; else empty."""

    key: str
    id: str
    name: str
    type: str
    size_gb: int
    path: str
    from_pool: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """The run holds everything that it wants."""

    volumes: tuple[RunVolume, ...]


@dataclass(frozen=True, slots=True)
class WaitForVolumes:
    """Not yet. ``why``: what the run waits for. Ask again after a change of the pool, or after a while. If a required
    spare is missing, nothing is held; while volumes are being made, the run holds the others (settle it to release
    them).
    """

    why: str


@dataclass(frozen=True, slots=True)
class Never:
    """Impossible: no such type, three volumes failed, or the run was settled. Settle the run."""

    why: str


def wanted_of(wants: Sequence[VolumeRequirement]) -> list[Wanted]:
    """The volumes of a plan's ``volumes:``, one by one, with keys ``name[0]``, ``name[1]``, …"""
    return [
        Wanted(f"{want.name}[{index}]", want.type, want.size_gb, cast("Mode", str(want.pool)))
        for want in wants
        for index in range(want.count)
    ]


def ends_of(wants: Sequence[VolumeRequirement]) -> dict[str, Literal["delete", "retain"]]:
    """What happens to each at the end of the run."""
    return {
        f"{want.name}[{index}]": cast("Literal['delete', 'retain']", str(want.on_end))
        for want in wants
        for index in range(want.count)
    }


def by_name(claimed: Claimed) -> dict[str, list[dict[str, Any]]]:
    """For expressions: ``volumes.data[0].path``; each is ``{id, name, type, size_gb, path}``."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in claimed.volumes:
        shown = {"id": each.id, "name": each.name, "type": each.type, "size_gb": each.size_gb, "path": each.path}
        found.setdefault(each.key.partition("[")[0], []).append(shown)
    return found


class _NoSpareError(Exception):
    def __init__(self, type: str) -> None:
        super().__init__(type)
        self.type = type


class Claims:
    """Claims of runs. ``wake`` is called after each commit that gives the pool work."""

    def __init__(self, database: AsyncEngine, clock: Clock, wake: Wake, note: Note) -> None:
        self._database = database
        self._clock = clock
        self._wake = wake
        self._note = note

    async def claim_for_run(self, run: str, wanted: Sequence[Wanted]) -> Claimed | WaitForVolumes | Never:
        """All volumes for the run, or none. Raises ProctorError ``database_unavailable``."""
        began = self._clock.monotonic()
        hits: list[tuple[str, bool]] = []
        try:
            async with session(self._database) as db, db.transaction():
                await rows.lock_run(db, run)
                found = await rows.load_of_run(db, run)
                fresh = not found
                if fresh:
                    sizes = await load_sizes(db)
                    missing = sorted({each.type for each in wanted} - set(sizes))
                    if missing:
                        return Never(f"no such type of volume: {', '.join(missing)}")
                    for each in wanted:
                        hit = await _claim(db, run, each, each.size_gb or sizes[each.type])
                        if each.mode != "bypass":
                            hits.append((each.type, hit))
                    found = await rows.load_of_run(db, run)
        except _NoSpareError as none:
            return WaitForVolumes(await self._say_none(none.type))
        for type, hit in hits:
            self._note(type, hit, self._clock.monotonic() - began)
        if fresh:
            await self._wake()
        answer = answer_for(found, wanted)
        if isinstance(answer, WaitForVolumes):
            stopped = await self._obstacles({row.type for row in found if row.state in AWAITED})
            return WaitForVolumes("; ".join([answer.why, *stopped]))
        return answer

    async def _say_none(self, type: str) -> str:
        """Why no spare of a type is ready."""
        async with session(self._database) as db:
            (pool,) = [each for each in await load_pools(db) if each.type == type]
            state = await load_pool_state(db)
        coming = pool.stock.pending
        said = [f"a spare of type {type}: none is ready ({coming} of {pool.stock.target} being made)"]
        if not pool.stock.target:
            said = [f"a spare of type {type}: none is ready, and none is kept (its target is 0)"]
        if state["held_until"] is not None and state["held_until"] > state["now"]:
            said.append(f"the quota is used up: {state['held_reason']}")
        return "; ".join([*said, *await self._obstacles({type})])

    async def _obstacles(self, types: AbstractSet[str]) -> list[str]:
        """What prevents the creation of volumes of these types."""
        async with session(self._database) as db:
            breakers = await load_breakers(db)
        opened = [breakers[scope] for scope in sorted({BACKEND, *types}) if scope in breakers and breakers[scope].open]
        return [f"creation is stopped after {each.failures} failures in a row: {each.reason}" for each in opened]

    async def has_all(self, db: Session, run: str, wanted: Sequence[Wanted]) -> bool:
        """Whether the run has all of its volumes, within the caller's transaction."""
        return isinstance(answer_for(await rows.load_of_run(db, run), wanted), Claimed)

    async def settle_run(self, run: str, ends: Mapping[str, Literal["delete", "retain"]]) -> None:
        """Delete the run's volumes, except those whose key has the end ``retain``; missing keys: delete.

        Raises ProctorError ``database_unavailable``.
        """
        async with session(self._database) as db, db.transaction():
            await rows.lock_run(db, run)
            await rows.settle_run(db, run, ends)
        await self._wake()

    async def settle_over(self) -> int:
        """Settle ended runs that were not settled, after a crash or without database; returns how many.

        Raises ProctorError ``database_unavailable``.
        """
        async with session(self._database) as db:
            found = await rows.find_unsettled(db, OVER_AT_ONCE)
        for run, wants, began in found:
            log.warning("run_left_volumes", run=run)
            await self.settle_run(run, ends_of(requirements_of(wants).volumes) if began else {})
        return len(found)


async def _claim(db: Session, run: str, wanted: Wanted, size_gb: int) -> bool:
    """Whether it got a spare. Raises _NoSpareError."""
    name = f"run-{run[-12:]}-{wanted.key}"[:255]
    if wanted.mode != "bypass":
        spare = await rows.claim_spare_for_run(db, run, wanted.key, name, type=wanted.type, size_gb=size_gb)
        if spare is not None:
            return True
        if wanted.mode == "require":
            raise _NoSpareError(wanted.type)
    await insert_volume(db, run=run, key=wanted.key, name=name, type=wanted.type, size_gb=size_gb)
    return False


def answer_for(found: Sequence[Volume], wanted: Sequence[Wanted]) -> Claimed | WaitForVolumes | Never:
    """The answer that follows from the run's rows."""
    last = {row.key: row for row in found}
    alive = {row.key: row for row in found if row.state in HAD | AWAITED}
    for each in wanted:
        if each.key not in alive:
            lost = last.get(each.key)
            why = lost.reason if lost is not None else "the run has claimed its volumes already, without this one"
            return Never(f"volume {each.key}: {why or 'it is gone'}")
    awaited = [row for row in alive.values() if row.state in AWAITED]
    if awaited:
        first = awaited[0]
        return WaitForVolumes(
            f"volume {first.key}, which is being made" + (f": {first.reason}" if first.reason else "")
        )
    return Claimed(
        tuple(
            RunVolume(each.key, row.id, row.name, row.type, row.size_gb, row.path, row.from_pool)
            for each in wanted
            for row in [alive[each.key]]
        )
    )
