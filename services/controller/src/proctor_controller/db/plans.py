"""SQL of stored plans: their versions, which never change."""

# ruff: noqa: S608 - statements are put together from constants of this module

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from proctor_controller.db.column import FIXED, Column, Columns, When, reader
from proctor_controller.db.session import Row, Session
from proctor_controller.domain.documents.spelled import unpack

PLANS = Columns(
    (
        Column("name", "text", FIXED),
        Column("version", "integer", FIXED),
        Column("document", "text", FIXED),
        Column("group_name", "text", FIXED, "group"),
        Column("created_by", "text", FIXED),
        Column("created_at", "timestamptz", When.READ),
    )
)
"""Of a :class:`StoredPlan`."""
SHOWN_VERSIONS = 1000
_ALL = f"""(SELECT array_agg(v.version ORDER BY v.version) FROM (SELECT version FROM control.plans
  WHERE name = p.name AND deleted_at IS NULL ORDER BY version DESC LIMIT {SHOWN_VERSIONS}) v)"""
_LOCK = 71_004


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A version of a plan. ``versions``: the newest ones, if asked for."""

    name: str
    version: int
    document: str
    group: str | None
    created_by: str
    created_at: datetime
    versions: tuple[int, ...] = ()


_VERSIONS = Column("versions", "int[]", When.READ, read=lambda numbers: tuple(numbers or ()))
_plan: Callable[[Row | RowMapping], StoredPlan] = reader(StoredPlan, Columns((*PLANS, _VERSIONS)))


async def find_plan(session: Session, name: str, version: int | None, *, deleted: bool = False) -> StoredPlan | None:
    """The version, or the newest one. ``deleted``: a deleted one counts too."""
    row = await session.fetchrow(
        f"""SELECT {PLANS.names}, NULL::int[] AS versions FROM control.plans
            WHERE name = $1 AND ($2::int IS NULL OR version = $2) AND ($3 OR deleted_at IS NULL)
            ORDER BY version DESC LIMIT 1""",
        name,
        version,
        deleted,
    )
    return _plan(row) if row else None


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run of a plan was made from, as stored: hidden values masked, and ``sealed``."""

    name: str
    document: str
    plan: str
    version: int | None
    parameters: Mapping[str, Any]
    sealed: str | None
    group: str | None


async def load_origin(session: Session, run: str) -> Origin | None:
    """What the run was made from; None for a test case or an unknown run."""
    row = await session.fetchrow(
        """SELECT name, document, plan, plan_version, parameters, sealed, group_name FROM control.runs
           WHERE id = $1 AND document IS NOT NULL""",
        run,
    )
    if row is None:
        return None
    return Origin(
        name=row["name"],
        document=row["document"],
        plan=row["plan"],
        version=row["plan_version"],
        parameters=unpack(row["parameters"]),
        sealed=row["sealed"],
        group=row["group_name"],
    )


async def load_plan(connection: AsyncConnection, name: str, version: int | None) -> StoredPlan | None:
    """The version, or the newest one, with the numbers of all."""
    query = f"""SELECT {PLANS.names}, {_ALL} AS versions FROM control.plans p
        WHERE name = :name AND (CAST(:version AS int) IS NULL OR version = :version) AND deleted_at IS NULL
        ORDER BY version DESC LIMIT 1"""
    row = (await connection.execute(text(query), {"name": name, "version": version})).mappings().first()
    return _plan(row) if row else None


async def list_plans(
    connection: AsyncConnection, *, groups: Sequence[str] | None, after: str, limit: int
) -> list[StoredPlan]:
    """The newest version of each plan by name, after ``after``, without its text; only of these groups unless None."""
    columns = PLANS.names.replace("document", "'' AS document")
    query = f"""SELECT DISTINCT ON (name COLLATE "C") {columns}, {_ALL} AS versions
        FROM control.plans p
        WHERE deleted_at IS NULL AND name COLLATE "C" > :after AND (:all OR group_name = ANY(:groups))
        ORDER BY name COLLATE "C", version DESC LIMIT :limit"""
    values = {"after": after, "all": groups is None, "groups": list(groups or []), "limit": limit}
    return [_plan(row) for row in (await connection.execute(text(query), values)).mappings()]


async def lock_plan(connection: AsyncConnection, name: str) -> None:
    """Block other writers of this plan until the transaction ends."""
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(:lock, hashtext(:name))"), {"lock": _LOCK, "name": name}
    )


async def insert_plan(connection: AsyncConnection, name: str, document: str, group: str | None, by: str) -> None:
    """Store a new version. Numbers are never reused, not even those of deleted versions."""
    await connection.execute(
        text("""INSERT INTO control.plans (name, version, document, group_name, created_by)
             SELECT :name, coalesce(max(version), 0) + 1, :document, :group, :by
             FROM control.plans WHERE name = :name"""),
        {"name": name, "document": document, "group": group, "by": by},
    )


async def delete_plan(connection: AsyncConnection, name: str) -> bool:
    """Delete all versions; runs that need one can still read it."""
    done = await connection.execute(
        text("UPDATE control.plans SET deleted_at = now() WHERE name = :name AND deleted_at IS NULL"), {"name": name}
    )
    return bool(done.rowcount)
