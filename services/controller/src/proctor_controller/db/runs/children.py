"""SQL of steps without an agent: gates, and nested plans with their runs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from proctor_common.ids import is_id
from proctor_common.states import RunResult, RunState, StepResult, StepState
from proctor_controller.db.runs.columns import STEP_COLUMNS, to_step
from proctor_controller.db.session import Session
from proctor_controller.domain.documents.spelled import unpack
from proctor_controller.domain.runs.step import Step, StepKind
from proctor_controller.domain.runs.step_rules import Rules, rules_of


class Kin(NamedTuple):
    """A child run and its parent. ``pause_by``: who paused the child; ``resting``: the parent step's waiting_for."""

    id: str
    number: int
    name: str
    state: RunState
    result: RunResult | None
    reason: str
    outputs: Mapping[str, Any]
    pause_by: str | None
    parent: str
    parent_step: str
    parent_state: RunState
    attempt: int
    resting: str | None


async def load_kin(session: Session, child: str) -> Kin | None:
    """The child run with its parent; None if there is no such run, or if it has no parent."""
    row = await session.fetchrow(
        """SELECT c.id, c.number, c.name, c.state, c.result, c.reason, c.outputs, c.pause_by, c.parent, c.parent_step,
                  p.state AS parent_state, s.attempt, s.waiting_for AS resting
           FROM control.runs c JOIN control.runs p ON p.id = c.parent JOIN control.steps s ON s.id = c.parent_step
           WHERE c.id = $1""",
        child,
    )
    if row is None:
        return None
    return Kin(
        id=str(row["id"]),
        number=row["number"],
        name=row["name"],
        state=RunState(row["state"]),
        result=RunResult(row["result"]) if row["result"] else None,
        reason=row["reason"],
        outputs=unpack(row["outputs"]) or {},
        pause_by=row["pause_by"],
        parent=str(row["parent"]),
        parent_step=str(row["parent_step"]),
        parent_state=RunState(row["parent_state"]),
        attempt=row["attempt"],
        resting=row["resting"],
    )


class Nest(NamedTuple):
    """A step that runs a nested plan, and what the child takes over from its run."""

    step: Step
    rules: Rules | None
    state: RunState
    group: str | None
    depth: int
    created_by: str


async def load_nest(session: Session, step: str) -> Nest | None:
    """The step for which a nested plan is to be begun; None if there is none."""
    row = await session.fetchrow(
        f"""SELECT {STEP_COLUMNS}, n.rules, r.state AS run_state, r.group_name, r.depth, r.created_by
            FROM control.steps s JOIN control.runs r ON r.id = s.run_id
            JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node WHERE s.id = $1""",  # noqa: S608
        step,
    )
    if row is None:
        return None
    return Nest(
        to_step(row),
        rules_of(row["rules"]),
        RunState(row["run_state"]),
        row["group_name"],
        row["depth"],
        row["created_by"],
    )


async def find_nests(session: Session, run: str) -> list[tuple[str, int]]:
    """The steps of this run whose nested plans' runs have not ended, and their attempts."""
    rows = await session.fetch(
        "SELECT id, attempt FROM control.steps WHERE run_id = $1 AND kind = 'plan' AND state = 'running'", run
    )
    return [(str(row["id"]), row["attempt"]) for row in rows]


class FoundStep(NamedTuple):
    """The columns of a step that deciding a gate needs. ``roles``: a gate's token roles."""

    id: str
    kind: StepKind
    state: StepState
    result: StepResult | None
    reason: str
    waiting_for: str | None
    roles: Sequence[str]


async def find_steps(session: Session, run: str, name: str) -> list[FoundStep]:
    """The steps of a run with this name, ``name[instance]`` or id; at most two."""
    rows = await session.fetch(
        """SELECT s.id, s.kind, s.state, s.result, s.reason, s.waiting_for, n.rules -> 'gate' -> 'roles' AS roles
           FROM control.steps s JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node
           WHERE s.run_id = $1 AND (s.id = $3::uuid OR s.name = $2 OR s.name || '[' || s.instance || ']' = $2)
           ORDER BY s.idx LIMIT 2""",
        run,
        name,
        name if is_id(name) else None,
    )
    return [
        FoundStep(
            id=str(row["id"]),
            kind=StepKind(row["kind"]),
            state=StepState(row["state"]),
            result=StepResult(row["result"]) if row["result"] else None,
            reason=row["reason"],
            waiting_for=row["waiting_for"],
            roles=tuple(row["roles"] or ("admin",)),
        )
        for row in rows
    ]
