"""Operations on the volume pool: pools, volumes, VNFs. No SQL."""

import unicodedata
from datetime import datetime
from typing import Any

from proctor_common.errors import Code, ProctorError, fault, faults, invalid, not_found
from proctor_common.ids import is_id
from proctor_common.messages.base import Encoded
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.pools import PoolList, PoolPut, VnfpCreate, VnfpList, VnfpRef, VolumeList, VolumeRef
from proctor_common.messages.pages import PoolPage, VnfpPage, VolumePage
from proctor_common.messages.pool_views import JobRunView, JobView, PoolView, VnfpView, VolumeView
from proctor_common.pg import transaction
from proctor_controller.context import ProcessContext
from proctor_controller.db.pool import vnfps as rows
from proctor_controller.db.pool.claims import Demand
from proctor_controller.db.pool.jobs import Job, load_breakers, load_jobs
from proctor_controller.db.pool.pools import PoolRow, load_pool_state, put_target
from proctor_controller.db.session import session
from proctor_controller.domain.volumes.breaker import BACKEND, Breaker
from proctor_controller.domain.volumes.refill import hit_rate, quantile
from proctor_controller.domain.volumes.settings import BadPoolSettings
from proctor_controller.handlers.auditing import note


def _refuse_bound(actor: Actor) -> None:
    if actor.groups is not None:
        raise ProctorError(Code.FORBIDDEN, "the volume pool is of no group: a token bound to groups may not use it")


# -- pools --------------------------------------------------------------------------------------------------------


async def _views(context: ProcessContext) -> list[PoolView]:
    await context.pool.demands.flush()
    pools = await context.pool.pools()
    async with session(context.database) as db:
        jobs, breakers, state = await load_jobs(db), await load_breakers(db), await load_pool_state(db)
    held = state["held_until"]
    hold = state["held_reason"] if held is not None and held > state["now"] else ""
    return [_pool_view(pool, jobs, _stopped(pool, breakers, hold)) for pool in pools if pool.listed]


def _stopped(pool: PoolRow, breakers: dict[str, Breaker], hold: str) -> str | None:
    for scope in (BACKEND, pool.type):
        breaker = breakers.get(scope)
        if breaker is not None and breaker.open:
            return f"{breaker.failures} failures in a row, one try a minute: {breaker.reason}"
    return f"the quota is used up: {hold}" if hold else None


def _pool_view(pool: PoolRow, jobs: dict[str, Job], stopped: str | None) -> PoolView:
    return PoolView(
        type=pool.type,
        size_gb=pool.size_gb,
        target=pool.target,
        version=pool.version,
        ready=pool.ready,
        creating=pool.creating + pool.intent,
        failed=pool.failed,
        leaked=pool.leaked,
        claims=pool.claims,
        hit_rate=hit_rate(pool.claims, pool.hits),
        claim_p50=quantile(pool.histogram, 0.5),
        claim_p99=quantile(pool.histogram, 0.99),
        stopped=stopped,
        replenish=_run_view(jobs["replenish"]),
        sync=_run_view(jobs["sync"]),
    )


def _run_view(job: Job) -> JobRunView:
    skipped = f"{_stamp(job.skipped_at)}: {job.skipped}" if job.skipped_at is not None else None
    return JobRunView(last=job.started_at, outcome=job.outcome, skipped=skipped)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


async def list_pools(context: ProcessContext, actor: Actor, body: PoolList) -> Encoded[PoolPage]:
    """``pool.list``: by type; none for a token bound to groups."""
    return PoolPage.of([] if actor.groups is not None else await _views(context), 1000, lambda view: view.type)


async def put_pool(context: ProcessContext, actor: Actor, body: PoolPut) -> PoolView:
    """``pool.put``"""
    _refuse_bound(actor)
    async with session(context.database) as db:
        if not await put_target(db, body.type, body.target):
            raise not_found("type", body.type[:100])
    await _write_down(context, actor, "pool.put", body.type, {"target": body.target})
    await context.pool.run_job("replenish")
    return next(view for view in await _views(context) if view.type == body.type)


async def _run_job(context: ProcessContext, actor: Actor, name: str) -> JobView:
    _refuse_bound(actor)
    if await context.pool.run_job(name):
        return JobView(job=name, outcome="started")
    async with session(context.database) as db:
        why = (await load_jobs(db))[name].skipped
    return JobView(job=name, outcome="skipped", reason=why)


async def replenish(context: ProcessContext, actor: Actor, body: PoolList) -> JobView:
    """``pool.replenish``: now, unless it is in progress."""
    return await _run_job(context, actor, "replenish")


async def sync(context: ProcessContext, actor: Actor, body: PoolList) -> JobView:
    """``pool.sync``: now, unless it is in progress."""
    return await _run_job(context, actor, "sync")


async def reload(context: ProcessContext, actor: Actor, body: PoolList) -> Encoded[PoolPage]:
    """``pool.reload``: if the settings are refused, nothing changes."""
    _refuse_bound(actor)
    if context.pool.source.path is None:
        raise ProctorError(Code.CONFLICT, "this controller has no settings file of the pool: set pool_file")
    try:
        await context.pool.reload()
    except BadPoolSettings as bad:
        raise faults([fault("setting", each, each.partition(":")[0]) for each in bad.faults]) from bad
    await _write_down(context, actor, "pool.reload", str(context.pool.source.path), {})
    return await list_pools(context, actor, body)


async def _write_down(context: ProcessContext, actor: Actor, action: str, object: str, detail: dict[str, Any]) -> None:
    async with transaction(context.database) as connection:
        await note(connection, actor, action, object, detail)


# -- volumes ------------------------------------------------------------------------------------------------------


def _volume_view(row: Any) -> VolumeView:
    return VolumeView(
        id=str(row["v_id"]),
        name=row["v_name"],
        type=row["v_type"],
        size_gb=row["v_size_gb"],
        state=row["v_state"],
        from_pool=row["v_from_pool"],
        backend_id=row["v_backend_id"],
        vnfp=_id(row["v_vnfp"]),
        run=_id(row["v_run"]),
        reason=row["v_reason"],
        created_at=row["v_created_at"],
    )


def _id(value: Any) -> str | None:
    return None if value is None else str(value)


def _after(cursor: str | None) -> str | None:
    if cursor is not None and not is_id(cursor):
        raise invalid("cursor: not one of this list", path="cursor")
    return cursor


async def list_volumes(context: ProcessContext, actor: Actor, body: VolumeList) -> Encoded[VolumePage]:
    """``volume.list``: newest first; a token bound to groups sees those of its groups' runs."""
    async with session(context.database) as db:
        found = await rows.list_volumes(
            db,
            groups=actor.groups,
            state=body.state,
            type=body.type,
            after=_after(body.cursor),
            limit=body.limit + 1,
        )
    return VolumePage.of([_volume_view(row) for row in found], body.limit, lambda view: view.id)


async def delete_volume(context: ProcessContext, actor: Actor, body: VolumeRef) -> VolumeView:
    """``volume.delete``: only a volume that a run has retained."""
    _refuse_bound(actor)
    if not is_id(body.volume):
        raise not_found("volume", body.volume[:100])
    async with session(context.database) as db:
        released = await rows.release_volume(db, body.volume)
        row = await rows.load_volume_row(db, body.volume)
    if row is None:
        raise not_found("volume", body.volume)
    view = _volume_view(row)
    if not released and view.state not in {"deleting", "deleted"}:
        raise ProctorError(
            Code.CONFLICT,
            "only a volume that its run has retained is deleted by hand; delete its VNF, or settle its run",
        )
    await _write_down(context, actor, "volume.delete", body.volume, {"name": view.name})
    await context.pool.wake()
    return view


# -- VNFs ---------------------------------------------------------------------------------------------------------


def _vnfp_view(row: Any) -> VnfpView:
    return VnfpView(
        id=str(row["id"]),
        name=row["name"],
        type=row["type"],
        size_gb=row["size_gb"],
        state=row["state"],
        reason=row["reason"],
        volume=_volume_view(row),
        created_at=row["created_at"],
    )


async def _load_vnfp(context: ProcessContext, vnfp: str) -> VnfpView:
    if not is_id(vnfp):
        raise not_found("VNF", vnfp[:100])
    async with session(context.database) as db:
        found = await rows.load_vnfps(db, [vnfp])
    if not found:
        raise not_found("VNF", vnfp)
    return _vnfp_view(found[0])


async def create_vnfp(context: ProcessContext, actor: Actor, body: VnfpCreate) -> VnfpView:
    """``vnfp.create``: active at once if a spare is idle; the same id again returns the existing one."""
    _refuse_bound(actor)
    if not is_id(body.id):
        raise invalid("id: not an id", path="id")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in body.name) or not body.name.strip():
        raise invalid("name: 1 to 255 characters, none of them a control character", path="name")
    await context.pool.claim(body.type, body.size_gb, Demand(body.id, body.name, actor.name))
    return await _load_vnfp(context, body.id)


async def get_vnfp(context: ProcessContext, actor: Actor, body: VnfpRef) -> VnfpView:
    """``vnfp.get``"""
    if actor.groups is not None:
        raise not_found("VNF", body.vnfp[:100])
    return await _load_vnfp(context, body.vnfp)


async def list_vnfps(context: ProcessContext, actor: Actor, body: VnfpList) -> Encoded[VnfpPage]:
    """``vnfp.list``: newest first; none for a token bound to groups."""
    after = _after(body.cursor)
    if actor.groups is not None:
        return VnfpPage.of([], body.limit, lambda view: view.id)
    async with session(context.database) as db:
        found = await rows.list_vnfps(db, state=body.state, after=after, limit=body.limit + 1)
    return VnfpPage.of([_vnfp_view(row) for row in found], body.limit, lambda view: view.id)


async def delete_vnfp(context: ProcessContext, actor: Actor, body: VnfpRef) -> VnfpView:
    """``vnfp.delete``: deletes its volume too; may be repeated."""
    view = await get_vnfp(context, actor, body)
    async with session(context.database) as db:
        await rows.delete_vnfp(db, view.id)
    await _write_down(context, actor, "vnfp.delete", view.id, {"name": view.name, "volume": view.volume.id})
    await context.pool.wake()
    return await _load_vnfp(context, view.id)
