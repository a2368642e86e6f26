"""The record that a tail works from, asked for page by page: a run may have more attempts than one answer holds."""

from proctor_api.controller_client import ControllerClient
from proctor_common.messages.calls import Actor, LogIndex
from proctor_common.messages.views import RunLogIndex


async def load_index(controllers: ControllerClient, actor: Actor, run: str) -> RunLogIndex:
    """All attempts of the run, as far as the caller may see it. Raises ProctorError.

    What happens between two pages is told by later events; the run's own state is that of the first page, so that a
    run never looks finished before its attempts do.
    """
    first = page = await controllers.view(RunLogIndex, "run.log_index", actor, LogIndex(run=run))
    if page.next is None:
        return first
    attempts = list(page.attempts)
    while page.next is not None:
        page = await controllers.view(RunLogIndex, "run.log_index", actor, LogIndex(run=run, after=page.next))
        attempts += page.attempts
    return first.model_copy(update={"attempts": attempts, "next": None})
