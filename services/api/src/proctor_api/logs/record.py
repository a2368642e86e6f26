"""A run's attempts as the controllers know them: which chunks belong to it, and when a log is complete. No I/O."""

from datetime import datetime

from proctor_common.messages.views import AttemptLog, RunLogIndex
from proctor_common.states import RunResult, RunState, StepState


class RunRecord:
    """The attempts of a run at the time ``asked`` (seconds of the event loop's clock)."""

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
        """The highest attempt number; 0 without attempts."""
        return max(self.attempts, default=0)

    def number_of(self, agent: str, step: str, attempt: int) -> int | None:
        """The number of this agent's attempt; None if the agent did not hold it."""
        return self._by_origin.get((agent, step, attempt))

    def number_of_attempt(self, step: str, attempt: int) -> int | None:
        """The number of an attempt, of whichever agent; None if there is none."""
        return self._by_attempt.get((step, attempt))

    def chunks(self, number: int) -> int | None:
        """The number of chunks in the attempt's log; None while it is unknown.

        It stays unknown for an attempt that ended without a report of its agent.
        """
        entry = self.attempts.get(number)
        if entry is None or (entry.chunks == 0 and entry.lines is None):
            return None
        return entry.chunks

    def is_over(self, number: int) -> bool:
        """Whether the attempt adds nothing more to its log."""
        entry = self.attempts.get(number)
        if entry is None or self.chunks(number) is not None:
            return True
        return self.finished and entry.state is StepState.FINISHED


def matches_step(entry: AttemptLog, step: str | None) -> bool:
    """Whether a view of ``step`` (None: all steps) shows the attempt."""
    return step is None or names_step(entry.step, entry.step_id, step)


def names_step(name: str, step_id: str, wanted: str) -> bool:
    """Whether ``wanted`` means the step: by its full name with the instance, its name without, or its id."""
    return wanted in {name, name.partition("[")[0], step_id}
