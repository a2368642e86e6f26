"""Checks the order of a plan's steps: no circle, and no step that can never be reached. Pure."""

from collections.abc import Mapping, Sequence

from proctor_controller.domain.plan.model import PlanStep
from proctor_controller.domain.plan.reader import Reader
from proctor_controller.domain.runs.step import Condition

MAX_SHOWN = 20


def check_order(reader: Reader, steps: Sequence[PlanStep]) -> None:
    """Add a fault for each circle (one for circles that share a step), else for each step that can never run."""
    edges = {step.name: [source for source, _ in step.depends_on] for step in steps}
    cycle = first = find_cycle(edges)
    while cycle and not reader.faults.is_full:
        names = cycle if len(cycle) <= MAX_SHOWN else [*cycle[:MAX_SHOWN], "…", cycle[-1]]
        reader.fault(("steps", cycle[0], "depends_on"), f"goes round in a circle: {' -> '.join(names)}", "cycle")
        for name in cycle[:-1]:
            edges.pop(name)
        cycle = find_cycle(edges)
    if first:
        return
    for step, source in _unreachable({step.name: step for step in steps}):
        message = f"can never run: {source} would have to succeed and to fail"
        reader.fault(("steps", step, "depends_on"), message, "unreachable")


def find_cycle(edges: Mapping[str, Sequence[str]]) -> list[str]:
    """The nodes of one circle, with the first one again at the end; empty if there is none.

    ``edges``: for each node those it waits for; unknown names are ignored. Without recursion.
    """
    done: set[str] = set()
    for start in edges:
        if start in done:
            continue
        trail: list[str] = [start]
        on_trail = {start}
        todo = [iter(edges[start])]
        while todo:
            following = next(todo[-1], None)
            if following is None:
                todo.pop()
                node = trail.pop()
                on_trail.discard(node)
                done.add(node)
            elif following in on_trail:
                return [*trail[trail.index(following) :], following]
            elif following in edges and following not in done:
                trail.append(following)
                on_trail.add(following)
                todo.append(iter(edges[following]))
    return []


def _unreachable(steps: Mapping[str, PlanStep]) -> list[tuple[str, str]]:
    """Steps that can never run, each with the one of which they need two different ends.

    A step runs only if all steps that it needs to have succeeded did run, and so on upwards. Sets of steps are bits of
    numbers, so that a thousand steps with all possible edges take no time.
    """
    bit = {name: 1 << index for index, name in enumerate(steps)}
    must_pass: dict[str, int] = {}
    must_fail: dict[str, int] = {}
    found: list[tuple[str, str]] = []
    for name in _sorted(steps):
        passing = failing = 0
        for source, condition in steps[name].depends_on:
            if source not in steps:
                continue
            if condition is Condition.SUCCEEDED:
                passing |= bit[source] | must_pass[source]
                failing |= must_fail[source]
            elif condition is Condition.FAILED:
                failing |= bit[source]
        both = passing & failing
        if both:
            found.append((name, list(steps)[both.bit_length() - 1]))
            # Its successors are unreachable for the same reason, which is reported once.
            passing, failing = passing & ~both, failing & ~both
        must_pass[name], must_fail[name] = passing, failing
    return found


def _sorted(steps: Mapping[str, PlanStep]) -> list[str]:
    """Every step after those that it waits for."""
    waiting = {name: sum(source in steps for source, _ in step.depends_on) for name, step in steps.items()}
    following: dict[str, list[str]] = {name: [] for name in steps}
    for name, step in steps.items():
        for source, _ in step.depends_on:
            if source in steps:
                following[source].append(name)
    ready = [name for name, count in waiting.items() if count == 0]
    for name in ready:
        for later in following[name]:
            waiting[later] -= 1
            if waiting[later] == 0:
                ready.append(later)
    return ready
