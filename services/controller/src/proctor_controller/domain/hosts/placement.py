"""Which agent a step goes to. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from proctor_common.states import AgentState

SHOWN = 3


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a step may run: on one host, on the agents of a group, or on those with all the labels; exactly one is set.
    A run with a group uses only that group's agents.
    """

    host: str | None = None
    group: str | None = None
    labels: tuple[tuple[str, str], ...] | None = None

    def __str__(self) -> str:
        if self.host is not None:
            return f"host {self.host}"
        if self.group is not None:
            return f"an agent of group {self.group}"
        return "an agent with labels " + ", ".join(f"{name}={value}" for name, value in self.labels or ())


@dataclass(frozen=True, slots=True)
class Candidate:
    """An agent where the step may run."""

    agent: str
    host: str
    state: AgentState
    registered: bool
    draining: bool
    leftovers: bool
    has_plugin: bool
    has_method: bool
    slots: int
    free: int
    """Its free slots."""
    queued: bool = False
    """A step that could run here is waiting already."""
    kept: str = ""
    """The run that holds it exclusively or has it reserved; empty: none."""
    has_target: bool = True
    """Whether it has the target that the step names, if any."""

    def hindrance(self) -> str:
        """Why it gets no work now; empty if it does."""
        if self.state is AgentState.LOST:
            return "its heartbeats stopped"
        if self.state is AgentState.ENROLLED or not self.registered:
            return "it has not connected yet"
        if self.draining:
            return "it is drained"
        if self.state is not AgentState.ONLINE:
            return "its heartbeats stopped a moment ago"
        if self.kept:
            return self.kept
        if self.leftovers:
            return "attempts of its former process may still run on its targets"
        return ""

    @property
    def is_away(self) -> bool:
        """Whether work for it alone is refused instead of queued."""
        return self.draining or self.state in {AgentState.LOST, AgentState.ENROLLED, AgentState.REMOVED}


def choose(candidates: Iterable[Candidate], *, overtake: bool = False) -> Candidate | None:
    """The least loaded agent that may take the step now; None if it has to wait.

    ``overtake``: the step is first in the queue, so it need not wait for others that want the same agents.
    """
    able = [
        found
        for found in candidates
        if found.has_method and found.has_target and found.free > 0 and not found.hindrance()
        if overtake or not found.queued
    ]
    return min(able, key=lambda found: (-found.free / max(found.slots, 1), found.host), default=None)


def explain(place: Placement, candidates: Iterable[Candidate], plugin: str, method: str) -> str:
    """What a step waits for that cannot be placed now."""
    found = list(candidates)
    if not found:
        return f"{place}: there is none"
    able = [candidate for candidate in found if candidate.has_method]
    if not able:
        return f"{place}: none has {plugin}.{method}"
    able = [candidate for candidate in able if candidate.has_target]
    if not able:
        return f"{place}: none has the target that the step names"
    fit = [candidate for candidate in able if not candidate.hindrance()]
    if not fit:
        if len(able) == 1:
            return f"host {able[0].host}: {able[0].hindrance()}"
        some = "; ".join(f"{each.host}: {each.hindrance()}" for each in able[:SHOWN])
        more = f"; and {len(able) - SHOWN} more" if len(able) > SHOWN else ""
        return f"{place}: {len(able)} agents, and none may take work ({some}{more})"
    slots, free = sum(candidate.slots for candidate in fit), sum(candidate.free for candidate in fit)
    others = f"; others wait for {'it' if free == 1 else 'them'}" if free else ""
    return f"a free slot on {place}: {slots - free} of {slots} are busy{others}"
