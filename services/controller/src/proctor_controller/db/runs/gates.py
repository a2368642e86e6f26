"""SQL that finds a gate by the names people give it."""

from collections.abc import Sequence
from typing import NamedTuple

from proctor_common.ids import is_id
from proctor_common.states import StepResult, StepState
from proctor_controller.db.session import Session
from proctor_controller.domain.runs.step import StepKind


class FoundStep(NamedTuple):
    """A step as far as deciding a gate needs it. ``roles``: whose tokens may, of a gate."""

    id: str
    kind: StepKind
    state: StepState
    result: StepResult | None
    reason: str
    waiting_for: str | None
    roles: Sequence[str]


async def find_steps(session: Session, run: str, name: str) -> list[FoundStep]:
    """The steps of a run with this name, name and instance (``name[instance]``) or id: two at most."""
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
