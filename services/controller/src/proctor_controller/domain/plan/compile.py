"""Makes a run of a checked plan: every step instance, every node and edge. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from proctor_common.errors import Fault, fault
from proctor_controller.domain.documents.json_schema import dotted
from proctor_controller.domain.documents.method_parameters import MASK
from proctor_controller.domain.documents.tree import text_size
from proctor_controller.domain.hosts.placement import Placement
from proctor_controller.domain.plan.calls import CheckedCall
from proctor_controller.domain.plan.matrix import cell_text
from proctor_controller.domain.plan.model import Path, Plan, PlanStep
from proctor_controller.domain.runs.step import Condition, Phase
from proctor_controller.domain.runs.step_rules import NO_CELL, SKIP_NO_CELL, NestedPlan, Rules
from proctor_controller.domain.runs.submission import EdgeSpec, NodeSpec, RunSpec, StepSpec

MAX_INSTANCES = 10_000
MAX_TEXT = 32 * 1024 * 1024
"""Characters in the parameters, environments and matrix cells of all instances."""
MAX_INSTANCE_TEXT = 200


@dataclass(frozen=True, slots=True)
class Birth:
    """What a run is made of besides its plan."""

    run: str
    name: str
    document: str
    """The exact text, with hidden texts masked."""
    default_timeout_s: Callable[[float], float]
    """Timeout of the whole run for so many seconds of work, if the plan sets none."""
    group: str | None = None
    created_by: str = ""
    plan: str | None = None
    plan_version: int | None = None
    hidden: Mapping[str, Any] = field(default_factory=dict)
    """Values to be sealed."""
    parent: str | None = None
    parent_step: str | None = None
    depth: int = 0
    rerun_of: str | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One cell or host of a step's fan-out."""

    text: str = ""
    cell: Mapping[str, Any] | None = None
    role_index: int | None = None
    place: Placement = field(default_factory=Placement)
    role: str | None = None


def find_explosion(plan: Plan) -> list[Fault]:
    """A fault if the plan makes more step instances than a run may have, or too much text: each instance has its own
    parameters, environment and matrix cell.
    """
    counts = {role.name: role.count for role in plan.wants.roles}
    sizes = {step.path: _size(step, counts) for step in plan.calls()}
    total = sum(sizes.values())
    if total <= MAX_INSTANCES:
        return _find_weight(plan, sizes)
    largest = max(sizes, key=lambda path: sizes[path])
    message = f"the plan comes to {total} step instances, {sizes[largest]} of this step; a run has at most"
    return [fault("too_large", f"{message} {MAX_INSTANCES}", dotted(list(largest)))]


def _find_weight(plan: Plan, sizes: Mapping[Path, int]) -> list[Fault]:
    weights = {step.path: _weight(step, sizes[step.path]) for step in plan.calls()}
    total = sum(weights.values())
    if total <= MAX_TEXT:
        return []
    largest = max(weights, key=lambda path: weights[path])
    message = f"the plan's step instances hold {total} characters, {weights[largest]} of them those of this step"
    return [fault("too_large", f"{message}; {MAX_TEXT} are allowed", dotted(list(largest)))]


def _weight(step: PlanStep, size: int) -> int:
    cells = step.cells or ()
    of_cells = sum(text_size(cell) for cell in cells) * (size // len(cells)) if cells else 0
    return size * (text_size(step.parameters) + text_size(step.env)) + of_cells


def _size(step: PlanStep, counts: Mapping[str, int]) -> int:
    cells = len(step.cells) if step.cells is not None else 1
    hosts = [counts[each.role] if each.each and each.role is not None else 1 for each in step.wheres or (step.where,)]
    return sum(hosts) if step.wheres else cells * hosts[0]


def compile_run(
    plan: Plan, calls: Mapping[Path, CheckedCall], children: Mapping[Path, str], birth: Birth, new_id: Callable[[], str]
) -> RunSpec:
    """The run. ``calls``: by the step's path; ``children``: exact stored plans (``name@version``) likewise."""
    counts = {role.name: role.count for role in plan.wants.roles}
    main: list[StepSpec] = []
    rollbacks: list[StepSpec] = []
    for step in plan.steps:
        made = [_spec(step, each, calls, new_id) for each in _instances(step, counts)]
        main += made
        if step.rollback is not None:
            # A rollback has the same cells and hosts as its step, in the same order.
            undoing = zip(made, _instances(step.rollback, counts), strict=True)
            rollbacks += [replace(_spec(step.rollback, each, calls, new_id), of=done.id) for done, each in undoing]
    cleanup = [_spec(step, each, calls, new_id) for step in plan.cleanup for each in _instances(step, counts)]
    work = sum((step.timeout_s + step.grace_s) * step.retry.attempts for step in main)
    return RunSpec(
        id=birth.run,
        name=birth.name,
        kind=plan.kind,
        steps=(*main, *rollbacks, *cleanup),
        edges=tuple(_edges(plan)),
        plan=birth.plan or plan.name,
        group=birth.group,
        parameters={name: MASK if name in plan.hidden else value for name, value in plan.values.items()},
        created_by=birth.created_by,
        timeout_s=plan.run_timeout_s or birth.default_timeout_s(work),
        node_specs=tuple(_nodes(plan, calls, children)),
        wants=plan.wants,
        document=birth.document,
        plan_version=birth.plan_version,
        hidden=birth.hidden,
        parent=birth.parent,
        parent_step=birth.parent_step,
        depth=birth.depth,
        rerun_of=birth.rerun_of,
    )


def _instances(step: PlanStep, counts: Mapping[str, int]) -> Iterator[Instance]:
    seen: set[str] = set()
    if step.cells == ():
        # It has no cell to run: the one row that says so is skipped.
        yield Instance(NO_CELL, None, step.where.role_index, step.where.place, step.where.role)
    for at, cell in enumerate(step.cells if step.cells is not None else (None,)):
        where = step.wheres[at] if step.wheres else step.where
        indexes: Sequence[int | None] = [where.role_index if where.role is not None else None]
        if where.each and where.role is not None:
            indexes = range(counts[where.role])
        for index in indexes:
            parts = [f"{where.role}[{index}]"] if where.each else []
            parts += [cell_text(cell)] if cell is not None else []
            text = ", ".join(parts)
            if len(text) > MAX_INSTANCE_TEXT or text in seen:
                text = f"{text[: MAX_INSTANCE_TEXT - 10]}… #{len(seen)}"
            seen.add(text)
            yield Instance(text, cell, index, where.place, where.role)


def _spec(step: PlanStep, each: Instance, calls: Mapping[Path, CheckedCall], new_id: Callable[[], str]) -> StepSpec:
    call = calls.get(step.path)
    return StepSpec(
        id=new_id(),
        node=step.node or step.name,
        name=step.name,
        plugin=step.plugin,
        method=step.method,
        place=each.place,
        instance=each.text,
        parameters=call.parameters if call is not None else step.parameters,
        secrets=call.secrets if call is not None else (),
        env=step.env,
        target=step.target,
        timeout_s=step.timeout_s,
        grace_s=step.grace_s,
        retry=step.retry,
        idempotent=step.idempotent,
        phase=step.phase,
        kind=step.kind,
        matrix=each.cell,
        role=each.role,
        role_index=each.role_index,
    )


def _nodes(plan: Plan, calls: Mapping[Path, CheckedCall], children: Mapping[Path, str]) -> Iterator[NodeSpec]:
    for step in plan.calls():
        rules = _rules(step, calls.get(step.path), children.get(step.path))
        yield NodeSpec(step.name, step.phase, rules, step.max_parallel, step.fail_fast)


def _rules(step: PlanStep, call: CheckedCall | None, child: str | None) -> Rules | None:
    rules = step.rules
    if step.cells == ():
        rules = replace(rules or Rules(), condition=SKIP_NO_CELL)
    if rules is None:
        return None
    if call is not None and rules.parameters is not None:
        rules = replace(rules, parameters=call.parameters, schema=call.schema)
    if child is not None and rules.child is not None:
        given = rules.child.parameters if call is None else call.parameters
        rules = replace(rules, child=NestedPlan(child, given, () if call is None else call.outputs))
    return rules


def _edges(plan: Plan) -> Iterator[EdgeSpec]:
    nodes = {step.name: step.node or step.name for step in plan.steps}
    seen: set[tuple[str, str]] = set()
    for step in plan.steps:
        for source, condition in step.depends_on:
            pair = nodes.get(source, source), nodes[step.name]
            if pair not in seen:
                seen.add(pair)
                yield EdgeSpec(*pair, condition)
    yield from _rollback_edges(plan)
    for phase in (Phase.ON_FAILURE, Phase.ALWAYS):
        names = [step.name for step in plan.cleanup if step.phase is phase]
        for before, after in pairwise(names):
            yield EdgeSpec(before, after, Condition.COMPLETED)


def _rollback_edges(plan: Plan) -> Iterator[EdgeSpec]:
    """Rollbacks run in the reverse order of their steps, also across steps without a rollback."""
    undone = {step.name for step in plan.steps if step.rollback is not None}
    if not undone:
        return
    steps = {step.name: step for step in plan.steps}
    for step in plan.steps:
        if step.name not in undone:
            continue
        todo, seen = [source for source, _ in step.depends_on], set[str]()
        while todo:
            source = todo.pop()
            if source in seen:
                continue
            seen.add(source)
            if source in undone:
                yield EdgeSpec(f"rollback.{step.name}", f"rollback.{source}", Condition.COMPLETED)
            else:
                todo += [before for before, _ in steps[source].depends_on]
