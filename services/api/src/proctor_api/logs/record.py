"""What the controllers say of a run's attempts: whose chunks are shown, and when all of them were. No I/O."""

from datetime import datetime

from proctor_common.messages.views import AttemptLog, RunLogIndex
from proctor_common.states import RunResult, RunState, StepState


class RunRecord:
    """A run's record as it was at ``asked`` (seconds of the event loop's clock)."""

    def __init__(self, index: RunLogIndex, asked: float) -> None:
        self.asked = asked
        self.run = index.run
        self.number = index.number
        self.group = index.group
        self.result: RunResult | None = index.result
        self.created_at: datetime = index.created_at
        self.finished = index.state is RunState.FINISHED
        self.attempts: dict[int, AttemptLog] = {entry.index: entry for entry in index.attempts}
        self._by_origin = {(entry.agent, entry.step_id, entry.attempt): entry.index for entry in index.attempts}
        self._by_attempt = {(entry.step_id, entry.attempt): entry.index for entry in index.attempts}

    @property
    def last(self) -> int:
        """The highest number of an attempt."""
        return max(self.attempts, default=0)

    def number_of(self, agent: str, step: str, attempt: int) -> int | None:
        """The number of the attempt that this agent held; None: it held none such."""
        return self._by_origin.get((agent, step, attempt))

    def number_of_attempt(self, step: str, attempt: int) -> int | None:
        """The number of an attempt, whoever held it."""
        return self._by_attempt.get((step, attempt))

    def chunks(self, number: int) -> int | None:
        """How many chunks the attempt's log has, once that is known.

        An attempt that ended without a report of its agent may have logged all the same: nobody counted.
        """
        entry = self.attempts.get(number)
        if entry is None or (entry.chunks == 0 and entry.lines is None):
            return None
        return entry.chunks

    def is_over(self, number: int) -> bool:
        """Whether the attempt adds nothing to its log any more, as far as the record says."""
        entry = self.attempts.get(number)
        if entry is None or self.chunks(number) is not None:
            return True
        return self.finished and entry.state is StepState.FINISHED


def matches_step(entry: AttemptLog, step: str | None) -> bool:
    """Whether a view that is narrowed to ``step`` shows the attempt: by the instance's full name, the step's, or id."""
    return step is None or names_step(entry.step, entry.step_id, step)


def names_step(name: str, step_id: str, wanted: str) -> bool:
    """Whether ``wanted`` stands for the step with this id and this full name (with its instance, where it has one)."""
    return wanted in {name, name.partition("[")[0], step_id}
