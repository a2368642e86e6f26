"""Whether a run has the step that a view of its log is narrowed to: a mistyped one must not look like an empty log."""

from proctor_api.controller_client import ControllerClient
from proctor_api.logs.record import matches_step, names_step
from proctor_common.errors import not_found
from proctor_common.messages.calls import Actor, StepList
from proctor_common.messages.views import RunLogIndex, View

PAGE = 1000


class _Step(View):
    id: str
    step: str
    instance: str = ""


class _Steps(View):
    items: list[_Step]
    next: str | None = None


async def require_step(controllers: ControllerClient, actor: Actor, index: RunLogIndex, step: str | None) -> None:
    """Raises 404 that names the step where the run has none such.

    The index knows attempts only; a step that has none yet is looked for among the run's steps.
    """
    if step is None or any(matches_step(entry, step) for entry in index.attempts):
        return
    cursor: str | None = None
    while True:
        body = StepList(run=index.run, limit=PAGE, cursor=cursor)
        page = await controllers.view(_Steps, "run.steps", actor, body)
        if any(
            names_step(row.step + (f"[{row.instance}]" if row.instance else ""), row.id, step) for row in page.items
        ):
            return
        cursor = page.next
        if cursor is None:
            raise not_found("step", step)
