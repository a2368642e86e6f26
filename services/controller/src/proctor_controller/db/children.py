"""SQL of nested plans: the run that a step stands for, and the step that a run was begun by."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from proctor_common.states import RunResult, RunState
from proctor_controller.db.rows import STEP_COLUMNS, to_step
from proctor_controller.db.session import Session
from proctor_controller.domain.rules import Rules, rules_of
from proctor_controller.domain.step import Step


class Kin(NamedTuple):
    """A child run and its parent. ``pause_by``: who paused the child."""

    id: str
    state: RunState
    result: RunResult | None
    reason: str
    outputs: Mapping[str, Any]
    pause_by: str | None
    parent: str
    parent_step: str
    parent_state: RunState
    attempt: int


async def load_kin(session: Session, child: str) -> Kin | None:
    """The child run with its parent; None where there is no such run, or it is nobody's child."""
    row = await session.fetchrow(
        """SELECT c.id, c.state, c.result, c.reason, c.outputs, c.pause_by, c.parent, c.parent_step,
                  p.state AS parent_state, s.attempt
           FROM control.runs c JOIN control.runs p ON p.id = c.parent JOIN control.steps s ON s.id = c.parent_step
           WHERE c.id = $1""",
        child,
    )
    if row is None:
        return None
    return Kin(
        id=str(row["id"]),
        state=RunState(row["state"]),
        result=RunResult(row["result"]) if row["result"] else None,
        reason=row["reason"],
        outputs=row["outputs"] or {},
        pause_by=row["pause_by"],
        parent=str(row["parent"]),
        parent_step=str(row["parent_step"]),
        parent_state=RunState(row["parent_state"]),
        attempt=row["attempt"],
    )


class Nest(NamedTuple):
    """A step that runs a nested plan, and what of its run the child takes over."""

    step: Step
    rules: Rules | None
    group: str | None
    depth: int
    created_by: str


async def load_nest(session: Session, step: str) -> Nest | None:
    """The step that a nested plan is to be begun for; None where there is none."""
    row = await session.fetchrow(
        f"""SELECT {STEP_COLUMNS}, n.rules, r.group_name, r.depth, r.created_by
            FROM control.steps s JOIN control.runs r ON r.id = s.run_id
            JOIN control.nodes n ON n.run_id = s.run_id AND n.name = s.node WHERE s.id = $1""",  # noqa: S608
        step,
    )
    if row is None:
        return None
    return Nest(to_step(row), rules_of(row["rules"]), row["group_name"], row["depth"], row["created_by"])


async def find_children(session: Session, run: str) -> list[str]:
    """The unfinished runs that steps of this one stand for."""
    rows = await session.fetch(
        """SELECT c.id FROM control.steps s JOIN control.runs c ON c.parent_step = s.id
           WHERE s.run_id = $1 AND s.kind = 'plan' AND c.state <> 'finished'""",
        run,
    )
    return [str(row["id"]) for row in rows]
