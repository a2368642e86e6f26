"""SQL of what a run was made from, for views and reruns: its document, its test case, its passed steps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from proctor_common.messages.views import DocumentView
from proctor_controller.db.hosts.candidates import place_in
from proctor_controller.db.runs.columns import PLACE_COLUMNS
from proctor_controller.db.runs.views import RunKey
from proctor_controller.db.session import Session
from proctor_controller.domain.documents.spelled import unpack
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.runs.step_rules import Rules, rules_of
from proctor_controller.domain.runs.submission import Reused


async def find_document(session: Session, key: RunKey, groups: Sequence[str] | None) -> DocumentView | None:
    """The document of a run, if the run exists and members of ``groups`` (None: all) may see it."""
    row = await session.fetchrow(
        """SELECT id, plan, plan_version, document FROM control.runs
        WHERE (id = $1::uuid OR number = $2::bigint) AND ($3::text[] IS NULL OR group_name = ANY($3::text[]))""",
        key.id,
        key.number,
        None if groups is None else list(groups),
    )
    if row is None:
        return None
    return DocumentView(run=str(row["id"]), plan=row["plan"], version=row["plan_version"], document=row["document"])


class Case(NamedTuple):
    """A submitted test case."""

    name: str
    group: str | None
    run_timeout_s: float
    shown: Mapping[str, Any]
    """The run's parameters."""
    step: str
    node: str
    plugin: str
    method: str
    place: Placement
    parameters: Mapping[str, Any]
    """Hidden values masked; ``sealed``: all of them, if any is hidden."""
    sealed: str | None
    target: str | None
    timeout_s: float
    grace_s: float
    rules: Rules | None


async def load_case(session: Session, run: str) -> Case | None:
    """The test case of a run; None if there is no such run."""
    row = await session.fetchrow(
        f"""SELECT r.name, r.group_name, r.timeout_s AS run_timeout_s, r.parameters AS shown, s.id, s.node, s.plugin,
                  s.method, {PLACE_COLUMNS}, s.parameters, s.sealed, s.target, s.timeout_s, s.grace_s, n.rules
           FROM control.runs r JOIN control.steps s ON s.run_id = r.id
           JOIN control.nodes n ON n.run_id = r.id AND n.name = s.node WHERE r.id = $1 AND r.document IS NULL""",  # noqa: S608
        run,
    )
    if row is None:
        return None
    return Case(
        name=row["name"],
        group=row["group_name"],
        run_timeout_s=row["run_timeout_s"],
        shown=row["shown"],
        step=str(row["id"]),
        node=row["node"],
        plugin=row["plugin"],
        method=row["method"],
        place=place_in(row),
        parameters=row["parameters"],
        sealed=row["sealed"],
        target=row["target"],
        timeout_s=row["timeout_s"],
        grace_s=row["grace_s"],
        rules=rules_of(row["rules"]),
    )


async def load_passed(session: Session, run: str) -> dict[tuple[str, str], Reused]:
    """The main steps of a run that passed, by node and instance; a reused one is replaced by its source. Without those
    whose rollback has begun, as their effects are undone.
    """
    rows = await session.fetch(
        """SELECT s.node, s.instance, coalesce(s.reuse, s.id) AS step, s.outputs, s.host FROM control.steps s
           WHERE s.run_id = $1 AND s.phase = 'main' AND s.result IN ('passed', 'reused') AND NOT EXISTS (
             SELECT 1 FROM control.steps u WHERE u.run_id = s.run_id AND u.phase = 'rollback'
               AND u.node = 'rollback.' || s.node AND u.instance = s.instance AND u.started_at IS NOT NULL)""",
        run,
    )
    reused = ((row, Reused(str(row["step"]), unpack(row["outputs"]), row["host"])) for row in rows)
    return {(row["node"], row["instance"]): each for row, each in reused}


async def end_hold(session: Session, run: str) -> bool:
    """Release the hosts that a run keeps after its end; whether it kept any. No decision follows from it."""
    row = await session.fetchrow(
        """UPDATE control.runs SET hold_until = NULL WHERE id = $1 AND state = 'finished' AND hold_until IS NOT NULL
           RETURNING id""",
        run,
    )
    return row is not None
