"""What a tail asks the controllers: a run's attempts, and whether the run has the requested step (a mistyped name must
not look like an empty log).
"""

from proctor_api.controller_client import ControllerClient
from proctor_api.logs.record import matches_step, names_step
from proctor_common.errors import not_found
from proctor_common.messages.calls.operation import Actor
from proctor_common.messages.calls.runs import GET_LOG_INDEX, LIST_STEPS, LogIndex, StepList
from proctor_common.messages.views import RunLogIndex

PAGE = 1000


async def load_index(controllers: ControllerClient, actor: Actor, run: str) -> RunLogIndex:
    """All attempts of the run, page by page. Raises ProctorError, 404 if the caller may not see the run.

    The run's state is that of the first page, so that it is never finished before its attempts are. Later events tell
    what changes between two pages.
    """
    first = page = await controllers.ask(GET_LOG_INDEX, actor, LogIndex(run=run))
    if page.next is None:
        return first
    attempts = list(page.attempts)
    while page.next is not None:
        page = await controllers.ask(GET_LOG_INDEX, actor, LogIndex(run=run, after=page.next))
        attempts += page.attempts
    return first.model_copy(update={"attempts": attempts, "next": None})


async def require_step(controllers: ControllerClient, actor: Actor, index: RunLogIndex, step: str | None) -> None:
    """Raises 404 if the run has no such step.

    The index has only attempts; a step without one is searched for among the run's steps.
    """
    if step is None or any(matches_step(entry, step) for entry in index.attempts):
        return
    cursor: str | None = None
    while True:
        body = StepList(run=index.run, limit=PAGE, cursor=cursor)
        page = await controllers.ask(LIST_STEPS, actor, body)
        if any(
            names_step(row.step + (f"[{row.instance}]" if row.instance else ""), row.id, step) for row in page.items
        ):
            return
        cursor = page.next
        if cursor is None:
            raise not_found("step", step)
