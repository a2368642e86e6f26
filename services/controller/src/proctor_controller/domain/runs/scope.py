"""The scope of a step's expressions: plain JSON built from rows; hidden values only when an order is filled in. Pure.

The part that all steps of a run share is loaded once for a slice (``params``, ``steps``, ``hosts``, ``volumes``,
``run``); what differs between steps (``matrix``, ``host``, ``self``, ``result``) is added for each.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from proctor_common.states import StepResult
from proctor_controller.domain.runs.step import Step
from proctor_controller.domain.runs.step_rules import NO_CELL

Scope = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What other steps may read of one instance of a step."""

    node: str
    instance: str
    result: StepResult | None
    outputs: Mapping[str, Any] | None
    host: str | None
    returned: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    exit_code: int | None = None


def returned(
    verdict: str | None,
    output: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
    exit_code: int | None = None,
) -> dict[str, Any]:
    """``result``: what the method returned, with ``exit_code``, ``error`` and ``verdict`` (passed, failed, …)."""
    whole = dict(output or {})
    if exit_code is not None or "exit_code" not in whole:
        whole["exit_code"] = exit_code
    return {**whole, "error": None if error is None else dict(error), "verdict": verdict}


def steps_scope(instances: Iterable[InstanceFacts]) -> dict[str, Any]:
    """``steps``: of a step without fan-out its ``result`` and ``outputs``; of a fanned-out one a list of results, one
    for each instance in document order, and for each output the list of its values. ``hosts``: always a list;
    ``by_host``: ``result`` and ``outputs`` of the instance on a host, by its name.
    """
    nodes: dict[str, list[InstanceFacts]] = {}
    for each in instances:
        nodes.setdefault(each.node, []).append(each)
    return {name: _of_node(found) for name, found in nodes.items()}


def _of_node(found: list[InstanceFacts]) -> dict[str, Any]:
    hosts = [each.host for each in found if each.host is not None]
    if len(found) == 1 and not found[0].instance:
        outputs = dict(found[0].outputs or {})
        return {"result": _result(found[0]), "outputs": outputs, "hosts": hosts, "by_host": _by_host(found)}
    names: dict[str, None] = {name: None for each in found for name in each.outputs or {}}
    cells = [each for each in found if each.instance != NO_CELL]
    return {
        "result": [_result(each) for each in cells],
        "outputs": {name: [(each.outputs or {}).get(name) for each in cells] for name in names},
        "hosts": hosts,
        "by_host": _by_host(cells),
    }


def _by_host(found: list[InstanceFacts]) -> dict[str, Any]:
    """The one instance of each host; what has several there is null, which no expression goes through."""
    known: dict[str, Any] = {}
    for each in found:
        if each.host is not None:
            one = {"result": _result(each), "outputs": dict(each.outputs or {})}
            known[each.host] = None if each.host in known else one
    return known


def _result(each: InstanceFacts) -> dict[str, Any]:
    return returned(each.result.value if each.result else None, each.returned, each.error, each.exit_code)


def run_scope(run: str, name: str, parent: str | None) -> dict[str, Any]:
    """``run``"""
    return {"id": run, "name": name, "url": f"/v1/runs/{run}", "parent": parent}


def step_scope(
    shared: Mapping[str, Any],
    step: Step,
    *,
    result: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    undone: Mapping[str, Any] | None = None,
) -> Scope:
    """The whole scope of one step. ``self``: for a rollback what it undoes (``undone``), for another step that has
    ended its own result and outputs.
    """
    own = None if result is None else {"result": dict(result), "outputs": dict(outputs or {}), "host": step.host}
    return {
        **shared,
        "matrix": dict(step.matrix or {}),
        "host": step.host or _leased(shared, step),
        "self": own if undone is None else dict(undone),
        "result": None if result is None else dict(result),
    }


def _leased(shared: Mapping[str, Any], step: Step) -> str | None:
    """The host that a step with a role will run on, before it does."""
    held = shared.get("hosts", {}).get(step.role) or []
    index = step.role_index or 0
    return str(held[index]["host"]) if index < len(held) else None
