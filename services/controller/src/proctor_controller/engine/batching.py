"""Events of one run that wait for their turn, and those of them that are decided together."""

from dataclasses import dataclass

from proctor_controller.domain.runs import events
from proctor_controller.domain.runs.decision import Decision, Stale

BATCHED = events.OrderAnswered | events.StepEnded
"""Events that come in numbers from a run with many steps under way."""
MOST = 16


@dataclass(slots=True, eq=False)
class Ticket:
    """An event that waits for its turn. ``outcome``: set once what follows from it is committed."""

    event: events.Event
    outcome: Decision | Stale | None = None


def batch_of(ticket: Ticket, inbox: list[Ticket]) -> list[Ticket]:
    """The ticket with those that may be decided together with it: events of different steps, in their order."""
    if not isinstance(ticket.event, BATCHED):
        return [ticket]
    batch, steps = [ticket], {ticket.event.step}
    for other in inbox:
        if other.outcome is None and isinstance(other.event, BATCHED) and other.event.step not in steps:
            batch.append(other)
            steps.add(other.event.step)
        if len(batch) == MOST:
            break
    return batch
